//! Whose connections this node has: different addresses and sessions, and sessions that it had before.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sketch;

/// Sessions that are remembered after they left: at least so many, at most twice as many, eight bytes each.
const REMEMBERED: usize = 65_536;

/// The connections' addresses and sessions.
#[derive(Debug, Default)]
pub struct Presence(Mutex<Present>);

#[derive(Debug, Default)]
struct Present {
    ips: Crowd,
    sessions: Crowd,
    /// Sessions seen before. When the young set is full it becomes the old one, and that is forgotten.
    young: HashSet<u64>,
    old: HashSet<u64>,
}

/// How many connections each has.
#[derive(Debug, Default)]
struct Crowd {
    members: HashMap<u64, u32>,
    /// Counts the changes of who is there.
    version: u64,
}

/// One connection's presence; ends when dropped.
#[derive(Debug)]
pub struct Here {
    presence: Arc<Presence>,
    ip: u64,
    session: Option<u64>,
}

/// What is told of a crowd, and to which of its versions that belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) version: u64,
    pub(super) sketch: Vec<u8>,
}

impl Presence {
    fn lock(&self) -> MutexGuard<'_, Present> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection opens, of the address and the session that it is counted by.
    pub fn arrive(self: &Arc<Self>, ip: &[u8], session: Option<&[u8]>) -> Here {
        let (ip, session) = (sketch::hash(ip), session.map(sketch::hash));
        let mut present = self.lock();
        present.ips.enter(ip);
        if let Some(session) = session {
            present.sessions.enter(session);
        }
        Here { presence: Arc::clone(self), ip, session }
    }

    /// Whether this node has seen the session lately, or sees it now; from now on it has.
    pub fn met_before(&self, session: &[u8]) -> bool {
        let session = sketch::hash(session);
        let mut present = self.lock();
        let met = present.old.contains(&session);
        let met = !present.young.insert(session) || met;
        if present.young.len() >= REMEMBERED {
            present.old = std::mem::take(&mut present.young);
        }
        met
    }

    /// Different addresses and different sessions on this node.
    pub fn counts(&self) -> (u64, u64) {
        let present = self.lock();
        (present.ips.members.len() as u64, present.sessions.members.len() as u64)
    }

    /// What is to be told of the addresses and of the sessions, where it is not told yet.
    pub(super) fn news(&self, told_ips: Option<u64>, told_sessions: Option<u64>) -> [Option<Told>; 2] {
        let present = self.lock();
        [present.ips.news(told_ips), present.sessions.news(told_sessions)]
    }
}

impl Crowd {
    fn enter(&mut self, member: u64) {
        let connections = self.members.entry(member).or_insert_with(|| {
            self.version += 1;
            0
        });
        *connections += 1;
    }

    fn leave(&mut self, member: u64) {
        if let Some(connections) = self.members.get_mut(&member) {
            *connections -= 1;
            if *connections == 0 {
                self.members.remove(&member);
                self.version += 1;
            }
        }
    }

    fn news(&self, told: Option<u64>) -> Option<Told> {
        let members = || self.members.keys().copied();
        (told != Some(self.version))
            .then(|| Told { version: self.version, sketch: sketch::encode(members()) })
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut present = self.presence.lock();
        present.ips.leave(self.ip);
        if let Some(session) = self.session {
            present.sessions.leave(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_there_until_the_last_connection_has_gone() {
        let presence = Arc::new(Presence::default());
        let first = presence.arrive(b"192.0.2.1", Some(b"tab"));
        let second = presence.arrive(b"192.0.2.1", None);
        let third = presence.arrive(b"192.0.2.2", Some(b"tab"));
        assert_eq!(presence.counts(), (2, 1));
        drop(first);
        assert_eq!(presence.counts(), (2, 1));
        drop(second);
        assert_eq!(presence.counts(), (1, 1));
        drop(third);
        assert_eq!(presence.counts(), (0, 0));
    }

    #[test]
    fn only_changes_are_news() {
        let presence = Arc::new(Presence::default());
        let [Some(ips), Some(sessions)] = presence.news(None, None) else { panic!("never told") };
        assert_eq!(presence.news(Some(ips.version), Some(sessions.version)), [None, None]);
        let _here = presence.arrive(b"192.0.2.1", None);
        let [Some(changed), None] = presence.news(Some(ips.version), Some(sessions.version)) else {
            panic!("an address came")
        };
        let _same = presence.arrive(b"192.0.2.1", None);
        assert_eq!(presence.news(Some(changed.version), Some(sessions.version)), [None, None]);
    }

    #[test]
    fn a_session_is_known_again_within_bounds() {
        let presence = Presence::default();
        assert!(!presence.met_before(b"a"));
        assert!(presence.met_before(b"a"));
        for i in 0..2 * REMEMBERED {
            presence.met_before(&i.to_be_bytes());
        }
        assert!(!presence.met_before(b"a"), "forgotten");
        assert!(presence.met_before(&(2 * REMEMBERED - 1).to_be_bytes()));
    }
}
