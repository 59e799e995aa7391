//! Nodes, their Redis and everything that can go wrong between them, as one state with actions. The nodes are the
//! program's own state machine and ledger; the Redis is a model or a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fanlight::admission::key::Key;
use fanlight::admission::lease::call::Call;
use fanlight::admission::lease::reply::Reply;
use fanlight::admission::lease::state::{Lease, Outcome};
use fanlight::admission::local::{Ledger, Limits, Request, SessionPolicy, Stamp};
use fanlight::admission::{IpKey, NodeTag, SessionKey};

/// Counts by lease and key.
pub(super) type Leases = BTreeMap<NodeTag, BTreeMap<Key, u32>>;

/// A Redis that carries out calls, and what can happen to it.
pub(super) trait Backend {
    /// Runs the call's script.
    fn execute(&mut self, call: &Call) -> Reply;
    /// The time to live of this lease is over.
    fn expire(&mut self, tag: NodeTag);
    /// All data is lost.
    fn lose_everything(&mut self);
    /// The members' record is no longer young.
    fn age(&mut self);
    /// A replica has come up to here.
    fn snapshot(&mut self);
    /// That replica takes over; false when there is none.
    fn rewind(&mut self) -> bool;
    /// What all leases hold.
    fn leases(&mut self) -> Leases;
    /// Whether there is such a lease.
    fn has_lease(&mut self, tag: NodeTag) -> bool;
    /// Whether the members' record is young.
    fn is_young(&mut self) -> bool;
}

/// Something that happens. `n` is a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// A client asks node `n` for its request number `r`.
    Arrive { n: usize, r: usize },
    /// The clients that wait at node `n` leave.
    Cancel { n: usize },
    /// Node `n` makes its next call.
    Send { n: usize },
    /// Redis carries it out.
    Execute { n: usize },
    /// Node `n` hears the answer.
    Receive { n: usize },
    /// Node `n` hears no answer; a call that Redis has not seen yet may still reach it later.
    LoseAnswer { n: usize },
    /// A call that its node has given up on reaches Redis.
    ExecuteLate { at: usize },
    /// The last client that waits at node `n` loses its patience, and the node decides about it alone.
    AdmitAlone { n: usize },
    /// The oldest connection of node `n` ends.
    Release { n: usize },
    /// Node `n` stands still.
    Pause { n: usize },
    /// It goes on.
    Resume { n: usize },
    /// The lease of node `n`, which stands still or is dead, ends.
    Expire { n: usize },
    /// Node `n` dies.
    Die { n: usize },
    /// It starts again.
    Restart { n: usize },
    /// The lease of a life that is over ends.
    Bury,
    /// Redis loses its data.
    Flush,
    /// A replica takes what Redis has.
    Snapshot,
    /// The replica takes over.
    Rewind,
    /// Every node that reaches Redis has told what it holds, and time has passed.
    Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Life {
    Up,
    Paused,
    Dead,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    pub(super) call: Call,
    pub(super) reply: Option<Reply>,
    /// The lease has ended since: the answer comes too late to be believed.
    pub(super) late: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) lease: Lease,
    pub(super) ledger: Ledger,
    pub(super) life: Life,
    pub(super) flight: Option<Flight>,
    /// Requests that wait, and whether their clients still do.
    pub(super) waiting: Vec<(Request, bool)>,
    pub(super) connections: Vec<(Request, Option<Stamp>)>,
    /// It was away at some time: its lease has ended while it held it, or it has admitted alone.
    pub(super) was_away: bool,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World<B> {
    pub(super) redis: B,
    pub(super) nodes: Vec<Node>,
    pub(super) late: Vec<Call>,
    /// Lives that are over and may have left a lease.
    pub(super) ghosts: Vec<NodeTag>,
    pub(super) limits: Limits,
    pub(super) arrivals: usize,
    pub(super) faults: usize,
    next_tag: u64,
}

/// The requests that clients make: two addresses, and one session that both use.
pub(super) fn request(r: usize) -> Request {
    let ip = IpKey::V4([192, 0, 2, (r % 2) as u8]);
    Request { ip, session: (r >= 2).then(|| SessionKey::of("tab")) }
}

impl<B: Backend> World<B> {
    pub(super) fn new(redis: B, nodes: usize, limits: Limits) -> Self {
        Self {
            redis,
            nodes: (0..nodes).map(|tag| Node::new(tag as u64, limits)).collect(),
            late: Vec::new(),
            ghosts: Vec::new(),
            limits,
            arrivals: 0,
            faults: 0,
            next_tag: nodes as u64,
        }
    }

    /// Carries out `action`; false when it is not possible now.
    pub(super) fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Arrive { n, r } => self.arrive(n, r),
            Action::Cancel { n } => self.cancel(n),
            Action::Send { n } => self.send(n),
            Action::Execute { n } => self.execute(n),
            Action::Receive { n } => self.receive(n),
            Action::LoseAnswer { n } => self.lose_answer(n),
            Action::ExecuteLate { at } => self.execute_late(at),
            Action::AdmitAlone { n } => self.admit_alone(n),
            Action::Release { n } => self.release(n),
            Action::Pause { n } => self.change_life(n, Life::Up, Life::Paused),
            Action::Resume { n } => self.change_life(n, Life::Paused, Life::Up),
            Action::Expire { n } => self.expire(n),
            Action::Die { n } => self.die(n),
            Action::Restart { n } => self.restart(n),
            Action::Bury => self.bury(),
            Action::Flush => self.flush(),
            Action::Snapshot => self.snapshot(),
            Action::Rewind => self.rewind(),
            Action::Age => self.age(),
        }
    }

    fn is_up(&self, n: usize) -> bool {
        self.nodes[n].life == Life::Up
    }

    fn arrive(&mut self, n: usize, r: usize) -> bool {
        let node = &mut self.nodes[n];
        let request = request(r);
        if node.life != Life::Up || node.waiting.len() >= 2 || node.ledger.meets(&request).is_some() {
            return false;
        }
        node.waiting.push((request, true));
        self.arrivals += 1;
        true
    }

    fn cancel(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        let waits = node.life == Life::Up && node.waiting.iter().any(|(_, waits)| *waits);
        node.waiting.iter_mut().for_each(|(_, waits)| *waits = false);
        waits
    }

    fn send(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        if node.life != Life::Up || node.flight.is_some() {
            return false;
        }
        node.waiting.retain(|(_, waits)| *waits);
        let requests: Vec<Request> = node.waiting.iter().map(|(request, _)| *request).collect();
        let call = node.lease.next_call(&mut node.ledger, &requests, true);
        node.flight = Some(Flight { call, reply: None, late: false });
        true
    }

    fn execute(&mut self, n: usize) -> bool {
        let Some(flight) = self.nodes[n].flight.as_mut().filter(|flight| flight.reply.is_none()) else {
            return false;
        };
        flight.reply = Some(self.redis.execute(&flight.call));
        true
    }

    fn receive(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        let ready = node.flight.as_ref().is_some_and(|flight| flight.reply.is_some() && !flight.late);
        if node.life != Life::Up || !ready {
            return false;
        }
        let Some(Flight { call, reply: Some(reply), .. }) = node.flight.take() else { return false };
        let Outcome::Applied { entered, mandate, .. } = node.lease.settle(&mut node.ledger, &call, reply)
        else {
            return true;
        };
        for decision in entered {
            let (request, waits) = node.waiting.remove(0);
            match decision {
                Ok(stamp) if waits => node.connections.push((request, stamp)),
                Ok(stamp) => node.ledger.leave(&request, stamp),
                Err(_) => {}
            }
        }
        mandate.into_iter().for_each(|(session, stamp)| node.close_up_to(session, stamp));
        true
    }

    fn lose_answer(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        if node.life != Life::Up || node.flight.is_none() {
            return false;
        }
        let Some(flight) = node.flight.take() else { return false };
        node.lease.doubt(&mut node.ledger, &flight.call);
        if flight.reply.is_none() {
            self.late.push(flight.call);
        }
        self.faults += 1;
        true
    }

    fn execute_late(&mut self, at: usize) -> bool {
        if at >= self.late.len() {
            return false;
        }
        let call = self.late.remove(at);
        self.redis.execute(&call);
        true
    }

    fn admit_alone(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        let up = node.life == Life::Up;
        let Some((request, waits)) = node.waiting.iter_mut().rev().find(|(_, waits)| up && *waits) else {
            return false;
        };
        *waits = false;
        let request = *request;
        self.faults += 1;
        if node.ledger.meets(&request).is_none() {
            let stamp = node.ledger.enter_unasked(&request);
            node.connections.push((request, stamp));
            node.was_away = true;
            let beyond = node.ledger.beyond_limit(&request);
            if let Some((session, last)) = request.session.zip(beyond.last()) {
                node.close_up_to(session, *last);
            }
        }
        true
    }

    fn release(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        if node.life != Life::Up || node.connections.is_empty() {
            return false;
        }
        let (request, stamp) = node.connections.remove(0);
        node.ledger.leave(&request, stamp);
        true
    }

    fn change_life(&mut self, n: usize, from: Life, to: Life) -> bool {
        let possible = self.nodes[n].life == from;
        if possible {
            self.nodes[n].life = to;
            self.faults += usize::from(to == Life::Paused);
        }
        possible
    }

    fn expire(&mut self, n: usize) -> bool {
        let tag = self.nodes[n].lease.tag();
        if self.is_up(n) || !self.redis.has_lease(tag) {
            return false;
        }
        self.redis.expire(tag);
        let node = &mut self.nodes[n];
        node.was_away |= node.life == Life::Paused;
        if let Some(flight) = &mut node.flight {
            flight.late = true;
        }
        true
    }

    fn die(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        if node.life == Life::Dead {
            return false;
        }
        node.life = Life::Dead;
        node.ledger = Ledger::new(self.limits);
        node.connections.clear();
        node.waiting.clear();
        if let Some(flight) = node.flight.take().filter(|flight| flight.reply.is_none()) {
            self.late.push(flight.call);
        }
        self.faults += 1;
        true
    }

    fn restart(&mut self, n: usize) -> bool {
        let node = &mut self.nodes[n];
        if node.life != Life::Dead {
            return false;
        }
        self.ghosts.push(node.lease.tag());
        *node = Node::new(self.next_tag, self.limits);
        self.next_tag += 1;
        true
    }

    fn bury(&mut self) -> bool {
        let found = self.ghosts.iter().find(|ghost| self.redis.has_lease(**ghost)).copied();
        found.map(|ghost| self.redis.expire(ghost)).is_some()
    }

    fn flush(&mut self) -> bool {
        self.redis.lose_everything();
        self.faults += 1;
        true
    }

    fn snapshot(&mut self) -> bool {
        self.redis.snapshot();
        true
    }

    /// Until a node has called again, the others see what it held at the time of the snapshot: all were away.
    fn rewind(&mut self) -> bool {
        let rewound = self.redis.rewind();
        if rewound {
            self.nodes.iter_mut().for_each(|node| node.was_away = true);
            self.faults += 1;
        }
        rewound
    }

    /// Time enough has passed when every node that reaches Redis has told it everything: a heartbeat is shorter.
    fn age(&mut self) -> bool {
        if !self.redis.is_young() {
            return false;
        }
        let redis = &mut self.redis;
        let mut told = |node: &Node| {
            node.life != Life::Up
                || (node.flight.is_none() && !node.ledger.has_untold() && redis.has_lease(node.lease.tag()))
        };
        if !self.nodes.iter().all(&mut told) {
            return false;
        }
        self.redis.age();
        true
    }

    /// All keys that are counted.
    pub(super) fn keys(&self) -> BTreeSet<Key> {
        (0..4)
            .flat_map(|r| {
                let request = request(r);
                std::iter::once(Key::Ip(request.ip)).chain(request.session.map(Key::Session))
            })
            .collect()
    }

    /// What the limit of `key` is.
    pub(super) fn limit(&self, key: Key) -> u32 {
        match key {
            Key::Ip(_) => self.limits.per_ip,
            Key::Session(_) => self.limits.per_session,
        }
    }

    /// How many connections the nodes that were never away have together.
    pub(super) fn held_by_steady(&self, key: Key) -> u32 {
        self.nodes.iter().filter(|node| !node.was_away).map(|node| node.count(key)).sum()
    }

    /// The faults end: every node gets its answers again, and after one heartbeat of each the counts must be right.
    /// Calls that were given up may arrive `before` that or after it.
    pub(super) fn heal(&mut self, late_before: bool) {
        for n in 0..self.nodes.len() {
            self.act(Action::Resume { n });
            self.act(Action::LoseAnswer { n });
            self.nodes[n].waiting.clear();
        }
        if late_before {
            while self.act(Action::ExecuteLate { at: 0 }) {}
        }
        self.heartbeat_everywhere();
        while self.act(Action::ExecuteLate { at: 0 }) {}
        // What the dead have left, or their late calls have made anew, ends by itself.
        for n in 0..self.nodes.len() {
            self.act(Action::Expire { n });
        }
        while self.act(Action::Bury) {}
    }

    /// Every node has a heartbeat, and whatever calls follow from it.
    pub(super) fn heartbeat_everywhere(&mut self) {
        for n in 0..self.nodes.len() {
            let mut calls = 0;
            while self.is_up(n) && (calls == 0 || self.nodes[n].has_news(&mut self.redis)) {
                assert!(calls < 8, "node {n} does not come to rest: {:?}", self.nodes[n]);
                self.act(Action::Send { n });
                self.act(Action::Execute { n });
                self.act(Action::Receive { n });
                calls += 1;
            }
        }
    }

    /// Why Redis and the nodes disagree, if they do.
    pub(super) fn disagreement(&mut self) -> Option<String> {
        let leases = self.redis.leases();
        let alive: Vec<&Node> = self.nodes.iter().filter(|node| node.life == Life::Up).collect();
        for node in &alive {
            let real: BTreeMap<Key, u32> = node.ledger.counts().collect();
            let told = leases.get(&node.lease.tag());
            if told != Some(&real) {
                return Some(format!("{} holds {real:?}, Redis says {told:?}", node.lease.tag()));
            }
        }
        (leases.len() != alive.len()).then(|| format!("leases of the dead: {leases:?}"))
    }

    /// Why a state is wrong at any time, if it is.
    pub(super) fn violation(&self) -> Option<String> {
        for key in self.keys() {
            let limit = self.limit(key);
            if limit == 0 {
                continue;
            }
            let replaced = matches!(key, Key::Session(_)) && self.limits.policy == SessionPolicy::Replace;
            if let Some(node) = self.nodes.iter().find(|node| node.count(key) != node.ledger.count(key)) {
                return Some(format!("{key}: the ledger of {node:?}"));
            }
            if replaced {
                continue;
            }
            if let Some(node) = self.nodes.iter().find(|node| node.count(key) > limit) {
                return Some(format!("{key}: one node alone has more than {limit}: {node:?}"));
            }
            let steady = self.held_by_steady(key);
            if steady > limit {
                return Some(format!(
                    "{key}: {steady} connections at nodes that were never away, limit {limit}"
                ));
            }
        }
        None
    }

    /// Why, after healing and one more heartbeat, a session is over its limit although newcomers replace.
    pub(super) fn unreplaced(&self) -> Option<String> {
        let sessions = self.keys().into_iter().filter(|key| matches!(key, Key::Session(_)));
        sessions.filter(|_| self.limits.policy == SessionPolicy::Replace).find_map(|key| {
            let total: u32 = self.nodes.iter().map(|node| node.count(key)).sum();
            let limit = self.limit(key);
            (limit > 0 && total > limit).then(|| format!("{key}: {total} connections"))
        })
    }
}

impl Node {
    fn new(tag: u64, limits: Limits) -> Self {
        // Nothing ends by the clock and a record is young until an action says otherwise.
        let hour = Duration::from_secs(3600);
        Self {
            lease: Lease::new(NodeTag::fixed(tag), hour, hour),
            ledger: Ledger::new(limits),
            life: Life::Up,
            flight: None,
            waiting: Vec::new(),
            connections: Vec::new(),
            was_away: false,
        }
    }

    /// How many connections it really has.
    pub(super) fn count(&self, key: Key) -> u32 {
        if self.life == Life::Dead {
            return 0;
        }
        let counted = |request: &Request| match key {
            Key::Ip(ip) => request.ip == ip,
            Key::Session(session) => request.session == Some(session),
        };
        self.connections.iter().filter(|(request, _)| counted(request)).count() as u32
    }

    /// Ends the connections of `session` with this stamp or a lower one.
    fn close_up_to(&mut self, session: SessionKey, last: Stamp) {
        let goes = |(request, stamp): &(Request, Option<Stamp>)| {
            request.session == Some(session) && stamp.is_some_and(|stamp| stamp <= last)
        };
        let (gone, stay) = std::mem::take(&mut self.connections).into_iter().partition(goes);
        let gone: Vec<_> = gone;
        self.connections = stay;
        gone.iter().for_each(|(request, stamp)| self.ledger.leave(request, *stamp));
    }

    fn has_news<B: Backend>(&self, redis: &mut B) -> bool {
        !redis.has_lease(self.lease.tag()) || !self.lease.is_joined() || self.ledger.has_untold()
    }
}
