//! What this node holds: the truth about its own connections, from which everything that Redis knows of them is told.
//!
//! Pure bookkeeping: no time, no lock, no Redis. It also remembers which counts Redis may not know yet.

use std::collections::{BTreeMap, BTreeSet};

use super::key::{IpKey, Key, SessionKey};

/// The order in which the connections of a session came in, over all nodes: Redis' time in µs, and always higher than
/// any of the session before.
pub type Stamp = u64;

/// What the newcomer of a session that is at its limit gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SessionPolicy {
    /// A refusal.
    #[default]
    Reject,
    /// The place of the session's oldest connection.
    Replace,
}

/// The cluster-wide limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Connections per address; 0 = no limit.
    pub per_ip: u32,
    /// Connections per session; 0 = no limit.
    pub per_session: u32,
    /// What happens at a session's limit.
    pub policy: SessionPolicy,
}

/// Who wants to come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The client's address.
    pub ip: IpKey,
    /// The client's session, when it has one.
    pub session: Option<SessionKey>,
}

/// The limit that a request met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Met {
    /// The address has as many connections as it may have.
    Ip,
    /// The session has as many connections as it may have.
    Session,
}

/// The value of a count as a lease holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// So many connections.
    Count(u32),
    /// Connections with these stamps, rising; at least one.
    Stamps(Vec<Stamp>),
}

impl Limits {
    /// The request as far as it is limited at all.
    pub(super) fn ip_of(&self, request: &Request) -> Option<Key> {
        (self.per_ip > 0).then_some(Key::Ip(request.ip))
    }

    /// The request's session, when sessions are limited.
    pub(super) fn session_of(&self, request: &Request) -> Option<SessionKey> {
        request.session.filter(|_| self.per_session > 0)
    }

    fn keys(&self, request: &Request) -> impl Iterator<Item = Key> + use<> {
        self.ip_of(request).into_iter().chain(self.session_of(request).map(Key::Session))
    }

    fn replaces(&self) -> bool {
        self.policy == SessionPolicy::Replace
    }
}

/// The node's own counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ledger {
    limits: Limits,
    counts: BTreeMap<Key, u32>,
    /// Only with [`SessionPolicy::Replace`].
    stamps: BTreeMap<SessionKey, Vec<Stamp>>,
    /// Counts that Redis may hold another value of. Every change enters its key here, unless Redis made it.
    untold: BTreeSet<Key>,
    /// The highest stamp that was ever seen here.
    newest: Stamp,
}

impl Ledger {
    /// No connections.
    pub fn new(limits: Limits) -> Self {
        Self { limits, counts: BTreeMap::new(), stamps: BTreeMap::new(), untold: BTreeSet::new(), newest: 0 }
    }

    /// The limits that it keeps.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How many connections this node holds for `key`.
    pub fn count(&self, key: Key) -> u32 {
        self.counts.get(&key).copied().unwrap_or(0)
    }

    /// Every count that is not zero.
    pub fn counts(&self) -> impl Iterator<Item = (Key, u32)> {
        self.counts.iter().map(|(key, count)| (*key, *count))
    }

    /// The limit that this node's own connections alone already meet, whatever the other nodes hold.
    pub fn meets(&self, request: &Request) -> Option<Met> {
        let full = |key: Option<Key>, limit| key.is_some_and(|key| self.count(key) >= limit);
        if full(self.limits.ip_of(request), self.limits.per_ip) {
            return Some(Met::Ip);
        }
        let session = self.limits.session_of(request).map(Key::Session);
        (!self.limits.replaces() && full(session, self.limits.per_session)).then_some(Met::Session)
    }

    /// Enters a connection that Redis has admitted and counted, with the `stamp` that it gave. Returns the stamp to
    /// leave with.
    ///
    /// # Errors
    /// When meanwhile connections came in without Redis and this node alone meets a limit: then Redis counts one too
    /// many until it is told.
    pub fn enter_admitted(&mut self, request: &Request, stamp: Option<Stamp>) -> Result<Option<Stamp>, Met> {
        if let Some(met) = self.meets(request) {
            self.untold.extend(self.limits.keys(request));
            return Err(met);
        }
        let given = stamp.unwrap_or(0);
        let stamp = self.enter(request, given);
        if stamp.is_some_and(|stamp| stamp != given) {
            self.untold.extend(self.limits.keys(request));
        }
        Ok(stamp)
    }

    /// Enters a connection without asking anybody; Redis is told later. Returns the stamp to leave with.
    pub fn enter_unasked(&mut self, request: &Request) -> Option<Stamp> {
        self.untold.extend(self.limits.keys(request));
        self.enter(request, self.newest.saturating_add(1))
    }

    /// Stamps are unique within a session, so a stamp that is taken (by a connection that came in while Redis could not
    /// be asked) is passed over.
    fn enter(&mut self, request: &Request, mut stamp: Stamp) -> Option<Stamp> {
        self.limits.keys(request).for_each(|key| *self.counts.entry(key).or_default() += 1);
        let session = self.limits.session_of(request).filter(|_| self.limits.replaces())?;
        let stamps = self.stamps.entry(session).or_default();
        let at = loop {
            match stamps.binary_search(&stamp) {
                Ok(_) => stamp += 1,
                Err(at) => break at,
            }
        };
        stamps.insert(at, stamp);
        self.newest = self.newest.max(stamp);
        Some(stamp)
    }

    /// Takes out a connection that came in with `stamp`.
    pub fn leave(&mut self, request: &Request, stamp: Option<Stamp>) {
        for key in self.limits.keys(request) {
            self.untold.insert(key);
            if let Some(count) = self.counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&key);
                }
            }
        }
        let session = self.limits.session_of(request).zip(stamp);
        if let Some((session, stamp)) = session
            && let Some(stamps) = self.stamps.get_mut(&session)
        {
            stamps.retain(|s| *s != stamp);
            if stamps.is_empty() {
                self.stamps.remove(&session);
            }
        }
    }

    /// The connections of `session` that came in up to `stamp`.
    pub fn up_to(&self, session: SessionKey, stamp: Stamp) -> Vec<Stamp> {
        let stamps = self.stamps.get(&session).map_or(&[][..], Vec::as_slice);
        stamps.iter().copied().take_while(|s| *s <= stamp).collect()
    }

    /// The connections of the request's session that are more than its limit, oldest first, counting this node's only.
    pub fn beyond_limit(&self, request: &Request) -> Vec<Stamp> {
        let Some(session) = self.limits.session_of(request) else { return Vec::new() };
        let stamps = self.stamps.get(&session).map_or(&[][..], Vec::as_slice);
        let excess = stamps.len().saturating_sub(self.limits.per_session as usize);
        stamps.iter().copied().take(excess).collect()
    }

    /// Whether Redis may know another value of some count.
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Takes at most `max` counts that Redis must be told, with their values now. They count as told until
    /// [`doubt`](Self::doubt).
    pub(super) fn take_untold(&mut self, max: usize) -> Vec<(Key, Held)> {
        let keys: Vec<Key> = std::iter::from_fn(|| self.untold.pop_first()).take(max).collect();
        keys.into_iter().map(|key| (key, self.held(key))).collect()
    }

    fn held(&self, key: Key) -> Held {
        let Key::Session(session) = key else { return Held::Count(self.count(key)) };
        let stamps = self.stamps.get(&session).cloned();
        stamps.map_or_else(|| Held::Count(self.count(key)), Held::Stamps)
    }

    /// It is not known what Redis holds for `keys`.
    pub(super) fn doubt(&mut self, keys: impl IntoIterator<Item = Key>) {
        self.untold.extend(keys);
    }

    /// It is not known what Redis holds for the keys of `request`.
    pub(super) fn doubt_request(&mut self, request: &Request) {
        self.untold.extend(self.limits.keys(request));
    }

    /// Redis has forgotten this node: everything must be told again, and zeros need not be.
    pub(super) fn doubt_everything(&mut self) {
        self.untold = self.counts.keys().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpKey = IpKey::V4([192, 0, 2, 1]);

    fn ledger(policy: SessionPolicy) -> Ledger {
        Ledger::new(Limits { per_ip: 2, per_session: 1, policy })
    }

    fn of(session: &str) -> Request {
        Request { ip: ADDRESS, session: Some(SessionKey::of(session)) }
    }

    fn told(ledger: &mut Ledger) -> Vec<(Key, Held)> {
        ledger.take_untold(usize::MAX)
    }

    #[test]
    fn what_redis_has_counted_itself_need_not_be_told() {
        let mut ledger = ledger(SessionPolicy::Reject);
        assert_eq!(ledger.enter_admitted(&of("a"), None), Ok(None));
        assert!(!ledger.has_untold());
        ledger.leave(&of("a"), None);
        let session = Key::Session(SessionKey::of("a"));
        assert_eq!(told(&mut ledger), [(Key::Ip(ADDRESS), Held::Count(0)), (session, Held::Count(0))]);
        assert!(!ledger.has_untold());
    }

    #[test]
    fn a_limit_that_this_node_meets_alone_is_met_whatever_redis_says() {
        let mut ledger = ledger(SessionPolicy::Reject);
        ledger.enter_unasked(&of("a"));
        assert_eq!(ledger.meets(&of("a")), Some(Met::Session));
        assert_eq!(ledger.enter_admitted(&of("a"), None), Err(Met::Session));
        ledger.enter_unasked(&of("b"));
        assert_eq!(ledger.meets(&of("c")), Some(Met::Ip));
        assert_eq!(told(&mut ledger).len(), 3);
    }

    #[test]
    fn what_is_not_limited_is_not_counted() {
        let limits = Limits { per_ip: 0, per_session: 0, policy: SessionPolicy::Reject };
        let mut ledger = Ledger::new(limits);
        ledger.enter_unasked(&of("a"));
        assert_eq!((ledger.counts().count(), ledger.has_untold()), (0, false));
    }

    #[test]
    fn newcomers_that_replace_are_told_apart_by_rising_stamps() {
        let mut ledger = ledger(SessionPolicy::Replace);
        assert_eq!(ledger.enter_admitted(&of("a"), Some(1000)), Ok(Some(1000)));
        assert_eq!(ledger.meets(&of("a")), None);
        assert_eq!(ledger.enter_unasked(&of("a")), Some(1001));
        assert_eq!(ledger.beyond_limit(&of("a")), [1000]);
        // Redis gave the stamp that this node has used meanwhile.
        ledger.limits.per_ip = 9;
        assert_eq!(ledger.enter_admitted(&of("a"), Some(1001)), Ok(Some(1002)));
        assert_eq!(ledger.up_to(SessionKey::of("a"), 1001), [1000, 1001]);
        ledger.leave(&of("a"), Some(1001));
        let session = Key::Session(SessionKey::of("a"));
        assert!(told(&mut ledger).contains(&(session, Held::Stamps(vec![1000, 1002]))));
    }

    #[test]
    fn doubt_is_told_again_and_a_new_lease_is_told_everything_but_zeros() {
        let mut ledger = ledger(SessionPolicy::Reject);
        ledger.enter_unasked(&of("a"));
        let first = told(&mut ledger);
        ledger.doubt(first.iter().map(|(key, _)| *key));
        assert_eq!(told(&mut ledger), first);
        ledger.leave(&of("a"), None);
        ledger.enter_unasked(&of("b"));
        ledger.doubt_everything();
        let session = Key::Session(SessionKey::of("b"));
        assert_eq!(told(&mut ledger), [(Key::Ip(ADDRESS), Held::Count(1)), (session, Held::Count(1))]);
    }
}
