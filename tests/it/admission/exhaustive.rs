//! Every order of events, up to a bound: the program's own node code against the model of Redis, searched by stateright.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use fanlight::admission::NodeTag;
use fanlight::admission::lease::call::Call;
use fanlight::admission::lease::reply::Reply;
use fanlight::admission::local::{Limits, SessionPolicy};
use stateright::{Checker as _, Model, Property};

use super::redis_model::RedisModel;
use super::world::{Action, Node, World};

/// What may happen, and how often.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    nodes: usize,
    limits: Limits,
    /// Kinds of requests, see [`super::world::request`].
    requests: &'static [usize],
    /// Connections that are tried.
    arrivals: usize,
    /// Lost answers, pauses, deaths, losses of Redis' data.
    faults: usize,
    flush: bool,
    rewind: bool,
    /// Connections that stand before the search begins, at node 0.
    connected: usize,
}

struct Search(Bounds);

/// A world, told apart from others only by what can still make a difference: not by which node is which, nor by how high
/// the numbers of calls and versions have become, because those are only compared with each other.
#[derive(Clone, Debug, PartialEq)]
struct State(World<RedisModel>);

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let world = &self.0;
        let mut parts: Vec<u64> = world.nodes.iter().map(|node| self.of_node(node)).collect();
        parts.extend(world.ghosts.iter().map(|ghost| {
            let rank = ranking(world.redis.numbers(*ghost).chain(self.late_numbers(*ghost)));
            digest(&(world.redis.of_node(*ghost, &rank), self.late_calls(*ghost, &rank)))
        }));
        parts.sort_unstable();
        (parts, world.redis.of_all(), world.arrivals, world.faults).hash(state);
    }
}

impl State {
    fn of_node(&self, node: &Node) -> u64 {
        let (redis, tag) = (&self.0.redis, node.lease.tag());
        let (confirmed, last) = node.lease.numbers();
        let known = [confirmed, last].into_iter().chain(redis.numbers(tag)).chain(self.late_numbers(tag));
        let rank = ranking(known.chain(node.flight.iter().flat_map(|flight| numbers_of(&flight.call))));
        let lease = (node.lease.is_joined(), rank(confirmed), redis.kind_of(node.lease.version()));
        let flight = node.flight.as_ref().map(|flight| {
            (
                self.call(&flight.call, &rank),
                flight.reply.as_ref().map(|reply| self.reply(reply)),
                flight.late,
            )
        });
        let clients = (&node.waiting, &node.connections, node.life as u8, node.was_away);
        let late = self.late_calls(tag, &rank);
        digest(&(lease, flight, clients, &node.ledger, redis.of_node(tag, &rank), late))
    }

    fn late_of(&self, tag: NodeTag) -> impl Iterator<Item = &Call> {
        self.0.late.iter().filter(move |call| call.leases().next() == Some(tag))
    }

    fn late_numbers(&self, tag: NodeTag) -> impl Iterator<Item = u64> {
        self.late_of(tag).flat_map(numbers_of)
    }

    fn late_calls(&self, tag: NodeTag, rank: &impl Fn(u64) -> usize) -> Vec<u64> {
        let mut calls: Vec<u64> = self.late_of(tag).map(|call| self.call(call, rank)).collect();
        calls.sort_unstable();
        calls
    }

    fn call(&self, call: &Call, rank: &impl Fn(u64) -> usize) -> u64 {
        match call {
            Call::Join { number, .. } => digest(&rank(*number)),
            Call::Leave { .. } => 0,
            Call::Apply(apply) => {
                let numbers = (rank(apply.number), rank(apply.confirmed));
                digest(&(numbers, self.0.redis.kind_of(apply.version), &apply.told, &apply.requests))
            }
        }
    }

    fn reply(&self, reply: &Reply) -> u64 {
        match reply {
            Reply::Stale(membership) => digest(&(1, self.0.redis.kind_of(membership.version))),
            Reply::Joined(membership) => digest(&(2, self.0.redis.kind_of(membership.version))),
            Reply::Lost | Reply::Left => 3,
            Reply::Applied(applied) => digest(applied),
        }
    }
}

fn numbers_of(call: &Call) -> Vec<u64> {
    match call {
        Call::Join { number, .. } => vec![*number],
        Call::Apply(apply) => vec![apply.confirmed, apply.number],
        Call::Leave { .. } => Vec::new(),
    }
}

/// The place of each number among them: the numbers of calls are only ever compared.
fn ranking(numbers: impl Iterator<Item = u64>) -> impl Fn(u64) -> usize {
    let numbers: BTreeSet<u64> = numbers.collect();
    move |number| numbers.range(..number).count()
}

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Model for Search {
    type State = State;
    type Action = Action;

    /// All nodes have joined and the record is not young any more.
    fn init_states(&self) -> Vec<State> {
        let mut world = World::new(RedisModel::default(), self.0.nodes, self.0.limits);
        world.heartbeat_everywhere();
        world.act(Action::Age);
        for _ in 0..self.0.connected {
            world.act(Action::Arrive { n: 0, r: self.0.requests[0] });
            world.heartbeat_everywhere();
        }
        world.arrivals = 0;
        world.act(Action::Snapshot);
        vec![State(world)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let state = &state.0;
        for n in 0..self.0.nodes {
            self.of_node(state, n, actions);
        }
        actions.extend((0..state.late.len()).map(|at| Action::ExecuteLate { at }));
        actions.extend([Action::Age, Action::Bury]);
        if state.faults < self.0.faults {
            actions.extend(self.0.flush.then_some(Action::Flush));
            actions.extend(self.0.rewind.then_some(Action::Rewind));
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        next.0.act(action).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the limits hold", |_, state: &State| state.0.violation().is_none()),
            Property::always("the counts heal", |_, state: &State| unhealed(state).is_none()),
            Property::sometimes("a limit is reached", |_, state: &State| is_full(state)),
        ]
    }
}

/// What is still wrong after the faults have ended: counts one heartbeat later, replaced connections three later.
fn unhealed(state: &State) -> Option<String> {
    let mut healed = state.0.clone();
    healed.heal(true);
    let mut wrong = healed.disagreement();
    if state.0.limits.policy == SessionPolicy::Replace {
        healed.heartbeat_everywhere();
        healed.heartbeat_everywhere();
        wrong = wrong.or_else(|| healed.unreplaced());
    }
    if !state.0.late.is_empty() || state.0.nodes.iter().any(|node| node.flight.is_some()) {
        let mut healed = state.0.clone();
        healed.heal(false);
        wrong = wrong.or_else(|| healed.disagreement());
    }
    wrong
}

fn is_full(state: &State) -> bool {
    let state = &state.0;
    let full = |key| {
        let total: u32 = state.nodes.iter().map(|node| node.count(key)).sum();
        state.limit(key) > 0 && total >= state.limit(key)
    };
    state.keys().into_iter().any(full)
}

impl Search {
    /// What can happen at node `n`. Left out is what leads nowhere new: a call that would tell and hear nothing, and what
    /// clients do between a call's departure and its arrival at Redis, which might as well happen right after it.
    fn of_node(&self, world: &World<RedisModel>, n: usize, actions: &mut Vec<Action>) {
        let node = &world.nodes[n];
        let under_way = node.flight.as_ref().is_some_and(|flight| flight.reply.is_none());
        if !under_way {
            if world.arrivals < self.0.arrivals {
                actions.extend(self.0.requests.iter().map(|r| Action::Arrive { n, r: *r }));
            }
            actions.push(Action::Release { n });
            actions.extend(node.flight.is_some().then_some(Action::Cancel { n }));
        }
        let asks = !node.waiting.is_empty() && !world.redis.young();
        let news = node.ledger.has_untold() || !node.lease.is_joined() || asks;
        if news || world.redis.has_news_for(node.lease.tag(), node.lease.version()) {
            actions.push(Action::Send { n });
        }
        actions.extend([Action::Execute { n }, Action::Receive { n }]);
        actions.extend([Action::Resume { n }, Action::Expire { n }, Action::Restart { n }]);
        if world.faults < self.0.faults {
            actions.extend([Action::LoseAnswer { n }, Action::AdmitAlone { n }, Action::Die { n }]);
            let matters = node.flight.is_some() || !node.connections.is_empty();
            actions.extend(matters.then_some(Action::Pause { n }));
        }
    }
}

fn search(name: &str, bounds: Bounds) {
    let checker = Search(bounds).checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, {} steps deep", checker.unique_state_count(), checker.max_depth());
    for property in ["the limits hold", "the counts heal"] {
        let Some(path) = checker.discovery(property) else { continue };
        let state = path.last_state().clone();
        let why = [state.0.violation(), unhealed(&state)];
        panic!("{name}: not always: {property}: {why:#?}\nafter {:?}\n{state:#?}", path.into_actions());
    }
    checker.assert_any_discovery("a limit is reached");
}

const fn reject(per_ip: u32, per_session: u32) -> Limits {
    Limits { per_ip, per_session, policy: SessionPolicy::Reject }
}

const fn replace(per_session: u32) -> Limits {
    Limits { per_ip: 0, per_session, policy: SessionPolicy::Replace }
}

/// The searches: a few that take seconds, and with `FANLIGHT_SEARCH=deep` those that take hours.
const QUICK: &[(&str, Bounds)] = &[
    ("three nodes, two addresses", Bounds { arrivals: 3, requests: &[0, 1], ..CALM }),
    (
        "three nodes, addresses and a session",
        Bounds { arrivals: 3, requests: &[2, 3], limits: reject(2, 1), ..CALM },
    ),
    ("two nodes, a fault", Bounds { nodes: 2, limits: reject(1, 0), connected: 0, ..FAULTY }),
    (
        "two nodes, a fault, one that replaces",
        Bounds { nodes: 2, arrivals: 1, requests: &[2], limits: replace(1), ..FAULTY },
    ),
    (
        "two nodes, a replica that takes over",
        Bounds { nodes: 2, arrivals: 1, flush: false, rewind: true, ..FAULTY },
    ),
];
const DEEP: &[(&str, Bounds)] = &[
    ("three nodes, two addresses, a fault", Bounds { requests: &[0, 1], ..FAULTY }),
    ("three nodes, two faults", Bounds { arrivals: 1, faults: 2, connected: 1, ..FAULTY }),
    ("three nodes, a fault, one that replaces", Bounds { requests: &[2], limits: replace(1), ..FAULTY }),
    ("two nodes, two faults and a replica", Bounds { nodes: 2, faults: 2, rewind: true, ..FAULTY }),
];
const CALM: Bounds = Bounds {
    nodes: 3,
    limits: reject(2, 0),
    requests: &[0],
    arrivals: 4,
    faults: 0,
    flush: false,
    rewind: false,
    connected: 0,
};
const FAULTY: Bounds = Bounds { arrivals: 2, faults: 1, flush: true, connected: 1, ..CALM };

#[test]
fn the_limits_hold_and_the_counts_heal_in_every_order_of_events() {
    let deep = std::env::var("FANLIGHT_SEARCH").is_ok_and(|word| word == "deep");
    for (name, bounds) in if deep { DEEP } else { QUICK } {
        let start = std::time::Instant::now();
        search(name, *bounds);
        println!("{:?}", start.elapsed());
    }
}
