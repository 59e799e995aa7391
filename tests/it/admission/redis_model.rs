//! What the scripts should do, written a second time: small enough to be searched exhaustively, and compared with the
//! scripts in a real Redis step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::time::Duration;

use fanlight::admission::key::Key;
use fanlight::admission::lease::call::{Apply, Call};
use fanlight::admission::lease::reply::{Applied, Membership, Reply, Verdict};
use fanlight::admission::local::{Held, Met, Request, SessionPolicy, Stamp};
use fanlight::admission::{NodeTag, SessionKey};

use super::world::{Backend, Leases};

/// A Redis with nothing in it but what the scripts use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct RedisModel {
    record: Option<Record>,
    leases: BTreeMap<NodeTag, LeaseHash>,
    /// Stands for the time: rises with everything that takes its value from it, and survives a loss of the data.
    clock: u64,
    snapshot: Option<Box<Contents>>,
}

type Contents = (Option<Record>, BTreeMap<NodeTag, LeaseHash>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Record {
    version: u64,
    young: bool,
    members: BTreeSet<NodeTag>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct LeaseHash {
    call: u64,
    orders: BTreeMap<SessionKey, Stamp>,
    counts: BTreeMap<Key, Held>,
}

fn size(held: &Held) -> u32 {
    match held {
        Held::Count(count) => *count,
        Held::Stamps(stamps) => stamps.len() as u32,
    }
}

fn stamps(held: Option<&Held>) -> &[Stamp] {
    if let Some(Held::Stamps(stamps)) = held { stamps } else { &[] }
}

impl Backend for RedisModel {
    fn execute(&mut self, call: &Call) -> Reply {
        match call {
            Call::Join { tag, number, .. } => self.join(*tag, *number),
            Call::Apply(apply) => self.apply(apply),
            Call::Leave { tag } => self.leave(*tag),
        }
    }

    fn expire(&mut self, tag: NodeTag) {
        self.leases.remove(&tag);
    }

    fn lose_everything(&mut self) {
        self.record = None;
        self.leases.clear();
    }

    fn age(&mut self) {
        if let Some(record) = &mut self.record {
            record.young = false;
        }
    }

    fn snapshot(&mut self) {
        self.snapshot = Some(Box::new((self.record.clone(), self.leases.clone())));
    }

    fn rewind(&mut self) -> bool {
        let Some(snapshot) = self.snapshot.take() else { return false };
        (self.record, self.leases) = *snapshot;
        true
    }

    fn leases(&mut self) -> Leases {
        let counts = |lease: &LeaseHash| lease.counts.iter().map(|(key, held)| (*key, size(held))).collect();
        self.leases.iter().map(|(tag, lease)| (*tag, counts(lease))).collect()
    }

    fn has_lease(&mut self, tag: NodeTag) -> bool {
        self.leases.contains_key(&tag)
    }

    fn is_young(&mut self) -> bool {
        self.young()
    }
}

impl RedisModel {
    /// The numbers of the node's calls that are known here.
    pub(super) fn numbers(&self, tag: NodeTag) -> impl Iterator<Item = u64> {
        let then = self.snapshot.as_ref().and_then(|snapshot| snapshot.1.get(&tag));
        self.leases.get(&tag).into_iter().chain(then).map(|lease| lease.call)
    }

    /// What the model holds of one node: whether it is a member, the `rank` of its call's number and its counts, now and
    /// in the snapshot.
    pub(super) fn of_node(&self, tag: NodeTag, rank: &impl Fn(u64) -> usize) -> impl Hash {
        let view = |record: Option<&Record>, leases: &BTreeMap<NodeTag, LeaseHash>| {
            let lease = leases.get(&tag);
            let call = lease.map(|lease| rank(lease.call));
            let content = lease.map(|lease| (lease.orders.clone(), lease.counts.clone()));
            (record.is_some_and(|record| record.members.contains(&tag)), call, content)
        };
        let then = self.snapshot.as_ref().map(|snapshot| view(snapshot.0.as_ref(), &snapshot.1));
        (view(self.record.as_ref(), &self.leases), then)
    }

    /// What the model holds beside that.
    pub(super) fn of_all(&self) -> impl Hash {
        let young = |record: &Record| record.young;
        let then = self.snapshot.as_ref().map(|snapshot| snapshot.0.as_ref().map(young));
        (self.record.as_ref().map(young), then)
    }

    /// What a version is now: the record's, the snapshot's, or an old one.
    pub(super) fn kind_of(&self, version: u64) -> (bool, bool) {
        let is = |record: Option<&Record>| record.is_some_and(|record| record.version == version);
        (is(self.record.as_ref()), self.snapshot.as_ref().is_some_and(|snapshot| is(snapshot.0.as_ref())))
    }

    /// Whether the members' record is young.
    pub(super) fn young(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.young)
    }

    fn tick(&mut self) -> u64 {
        // Wide apart, as times are: stamps that nodes give without Redis lie between.
        self.clock += 1000;
        self.clock
    }

    /// Whether a call of this node would change or tell anything beside its number.
    pub(super) fn has_news_for(&self, tag: NodeTag, version: u64) -> bool {
        let current = self.record.as_ref().is_some_and(|r| r.version == version && r.members.contains(&tag));
        let dead =
            self.record.as_ref().is_some_and(|r| r.members.iter().any(|m| !self.leases.contains_key(m)));
        let orders = self.leases.get(&tag).is_some_and(|lease| !lease.orders.is_empty());
        !current || dead || orders || !self.leases.contains_key(&tag)
    }

    fn join(&mut self, tag: NodeTag, number: u64) -> Reply {
        if self.leases.get(&tag).is_some_and(|lease| lease.call >= number) {
            return Reply::Lost;
        }
        if self.record.is_none() {
            let version = self.tick();
            self.record = Some(Record { version, young: true, members: BTreeSet::new() });
        }
        let later = self.tick();
        let record = self.record.as_mut().expect("just made");
        if record.members.insert(tag) {
            // The script counts up from a time; any number never used before does.
            record.version = later;
        }
        self.leases.insert(tag, LeaseHash { call: number, ..LeaseHash::default() });
        Reply::Joined(self.membership())
    }

    fn leave(&mut self, tag: NodeTag) -> Reply {
        let later = self.tick();
        self.leases.remove(&tag);
        if let Some(record) = &mut self.record
            && record.members.remove(&tag)
        {
            record.version = later;
        }
        Reply::Left
    }

    fn membership(&self) -> Membership {
        let record = self.record.as_ref().expect("a record");
        Membership { version: record.version, members: record.members.iter().copied().collect() }
    }

    fn apply(&mut self, apply: &Apply) -> Reply {
        let fits =
            self.leases.get(&apply.tag).is_some_and(|l| (apply.confirmed..apply.number).contains(&l.call));
        let Some(record) = self.record.as_ref().filter(|record| fits && record.members.contains(&apply.tag))
        else {
            return Reply::Lost;
        };
        if record.version != apply.version {
            return Reply::Stale(self.membership());
        }
        if apply.beat.is_some() {
            self.bury(apply);
        }
        Reply::Applied(self.carry_out(apply))
    }

    fn bury(&mut self, apply: &Apply) {
        let dead: Vec<NodeTag> =
            apply.others.iter().filter(|tag| !self.leases.contains_key(tag)).copied().collect();
        for tag in dead {
            let later = self.tick();
            let record = self.record.as_mut().expect("checked");
            record.members.remove(&tag);
            record.version = later;
        }
    }

    fn carry_out(&mut self, apply: &Apply) -> Applied {
        let mut contested = BTreeSet::new();
        for (key, held) in &apply.told {
            if let (Key::Session(session), true) = (key, apply.limits.policy == SessionPolicy::Replace)
                && size(held) > 0
            {
                contested.insert(*session);
            }
            self.set(apply.tag, *key, held.clone());
        }
        let mut applied = Applied::default();
        if self.is_young() {
            applied.wait = Duration::from_secs(1);
        } else {
            let verdicts = apply.requests.iter().map(|request| self.decide(apply, request, &mut contested));
            applied.verdicts = verdicts.collect();
        }
        contested.into_iter().for_each(|session| self.order(apply, session, &mut applied.nudge));
        self.leases.get_mut(&apply.tag).expect("checked").call = apply.number;
        applied.mandate = self.standing(apply.tag);
        applied
    }

    fn set(&mut self, tag: NodeTag, key: Key, held: Held) {
        let counts = &mut self.leases.get_mut(&tag).expect("checked").counts;
        if size(&held) == 0 {
            counts.remove(&key)
        } else {
            counts.insert(key, held)
        };
    }

    /// The caller's lease and those of the members that it knows.
    fn holders<'a>(&'a self, apply: &'a Apply) -> impl Iterator<Item = (NodeTag, &'a LeaseHash)> {
        let tags = std::iter::once(apply.tag).chain(apply.others.iter().copied());
        tags.filter_map(|tag| self.leases.get(&tag).map(|lease| (tag, lease)))
    }

    fn total(&self, apply: &Apply, key: Key) -> u32 {
        self.holders(apply).filter_map(|(_, lease)| lease.counts.get(&key)).map(size).sum()
    }

    fn decide(&mut self, apply: &Apply, request: &Request, contested: &mut BTreeSet<SessionKey>) -> Verdict {
        let limits = &apply.limits;
        let replace = limits.policy == SessionPolicy::Replace;
        let ip = (limits.per_ip > 0).then_some(Key::Ip(request.ip));
        let session = request.session.filter(|_| limits.per_session > 0);
        if ip.is_some_and(|ip| self.total(apply, ip) >= limits.per_ip) {
            return Verdict::Refused(Met::Ip);
        }
        let full = |session| self.total(apply, Key::Session(session)) >= limits.per_session;
        if !replace && session.is_some_and(full) {
            return Verdict::Refused(Met::Session);
        }
        for key in ip.into_iter().chain(session.filter(|_| !replace).map(Key::Session)) {
            let count = self.leases[&apply.tag].counts.get(&key).map_or(0, size);
            self.set(apply.tag, key, Held::Count(count + 1));
        }
        let Some(session) = session.filter(|_| replace) else { return Verdict::Admitted(None) };
        contested.insert(session);
        Verdict::Admitted(Some(self.stamp(apply, session)))
    }

    fn stamp(&mut self, apply: &Apply, session: SessionKey) -> Stamp {
        let key = Key::Session(session);
        let now = self.tick();
        let last = self.holders(apply).flat_map(|(_, lease)| stamps(lease.counts.get(&key))).max().copied();
        let stamp = now.max(last.map_or(0, |last| last + 1));
        let mut mine = stamps(self.leases[&apply.tag].counts.get(&key)).to_vec();
        mine.push(stamp);
        self.set(apply.tag, key, Held::Stamps(mine));
        stamp
    }

    fn order(&mut self, apply: &Apply, session: SessionKey, nudge: &mut Vec<NodeTag>) {
        let key = Key::Session(session);
        let order: Vec<NodeTag> = self.holders(apply).map(|(tag, _)| tag).collect();
        let mut all: Vec<(Stamp, usize)> = Vec::new();
        for (at, (_, lease)) in self.holders(apply).enumerate() {
            all.extend(stamps(lease.counts.get(&key)).iter().map(|stamp| (*stamp, at)));
        }
        all.sort_unstable();
        let excess = self.total(apply, key).saturating_sub(apply.limits.per_session) as usize;
        for (stamp, at) in all.iter().take(excess.min(all.len().saturating_sub(1))) {
            let tag = order[*at];
            let orders = &mut self.leases.get_mut(&tag).expect("a holder").orders;
            let highest = orders.entry(session).or_default();
            *highest = (*highest).max(*stamp);
            if tag != apply.tag && !nudge.contains(&tag) {
                nudge.push(tag);
            }
        }
    }

    /// The orders to `tag` that its counts do not show as done; the others are forgotten.
    fn standing(&mut self, tag: NodeTag) -> Vec<(SessionKey, Stamp)> {
        let lease = self.leases.get_mut(&tag).expect("checked");
        let counts = &lease.counts;
        lease.orders.retain(|session, order| {
            stamps(counts.get(&Key::Session(*session))).first().is_some_and(|oldest| oldest <= order)
        });
        lease.orders.iter().map(|(session, stamp)| (*session, *stamp)).collect()
    }
}
