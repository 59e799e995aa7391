//! What a node must remember so that all it counts reaches the cluster's totals exactly once.
//!
//! The rules, of which the scripts enforce the other half:
//! - An incarnation's counts are absolute and written by it alone. Redis knows, beside the totals, what of them comes from whom, and
//!   adds only what is above. So a heartbeat whose answer was lost is simply followed by the next one.
//! - Every node holds a copy of the totals as of one moment, with the part of every node that was heard of lately. When Redis has lost
//!   the totals, the first node that notices brings its copy back; after that each node's next heartbeat adds what the copy lacks of
//!   its own. Only what nodes counted that died between the copy and the loss is gone.

use std::collections::VecDeque;

use super::counts::Counts;
use super::presence::Told;
use super::store::{Answer, MAX_LINEAGE};

/// With so many nodes that were heard of lately a copy of the totals is taken with every heartbeat, with more less often: all
/// copies together cost what grows with the nodes and not with their square.
const NODES_PER_COPY: usize = 20;

/// The totals as of one moment, in a form that can be brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Copy {
    /// Which totals it was taken from and when, and the same of the copies that these came from.
    pub(super) lineage: String,
    /// Since when the totals are counted, in milliseconds of Redis' clock.
    pub(super) since: u64,
    /// What of them comes from nodes that are not remembered any more.
    pub(super) past: Counts,
    /// What comes from each node that is.
    pub(super) parts: Vec<(String, Counts)>,
}

impl Copy {
    pub(super) fn new(lineage: String, since: u64, totals: &Counts, parts: Vec<(String, Counts)>) -> Self {
        let mut known = Counts::default();
        parts.iter().for_each(|(_, counts)| known.add(counts));
        Self { lineage, since, past: totals.since(&known), parts }
    }
}

/// What this incarnation has said and what it was answered.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The epochs of the totals that it was counted in, the last one first, and when that was first, in milliseconds of Redis' clock.
    epochs: VecDeque<(String, u64)>,
    /// What the totals are known to hold of this node.
    answered: Counts,
    /// What was said first after that. Its answer did not come, so it may be in the totals or not.
    unanswered: Option<Counts>,
    /// For when Redis loses the totals.
    pub(super) copy: Option<Copy>,
    beats_since_copy: usize,
    /// Versions of the addresses and the sessions whose sketches are in Redis.
    pub(super) told: [Option<u64>; 2],
}

impl Ledger {
    /// `<epoch>@<when it was first counted there>` of the totals that this node was counted in, with spaces between them; empty
    /// before the first answer.
    pub(super) fn counted_in(&self) -> String {
        self.epochs.iter().map(|(epoch, at)| format!("{epoch}@{at}")).collect::<Vec<_>>().join(" ")
    }

    /// A heartbeat with these counts is about to be sent. What the totals hold of this node at least, as far as is known before.
    pub(super) fn send(&mut self, counts: &Counts) -> Counts {
        let floor = self.unanswered.as_ref().unwrap_or(&self.answered).clone();
        self.unanswered.get_or_insert_with(|| counts.clone());
        floor
    }

    /// The answer to the heartbeat with these counts. `false` when it was lost on a Redis that has lost the totals.
    pub(super) fn answer(&mut self, counts: &Counts, answer: Answer) -> bool {
        let Answer::Counted { now, epoch, sketched } = answer else { return false };
        if self.epochs.front().is_none_or(|(last, _)| *last != epoch) {
            self.epochs.push_front((epoch, now));
            self.epochs.truncate(MAX_LINEAGE);
        }
        self.answered.clone_from(counts);
        self.unanswered = None;
        if !sketched {
            self.told = [None, None];
        }
        true
    }

    /// Whether it is time for another copy, after a heartbeat that was counted in.
    pub(super) fn is_copy_due(&mut self) -> bool {
        self.beats_since_copy += 1;
        let nodes = self.copy.as_ref().map_or(0, |copy| copy.parts.len());
        self.beats_since_copy * NODES_PER_COPY > nodes
    }

    /// This is the latest copy.
    pub(super) fn copied(&mut self, copy: Copy) {
        self.copy = Some(copy);
        self.beats_since_copy = 0;
    }

    /// These sketches were part of a heartbeat that was counted in.
    pub(super) fn tell(&mut self, news: &[Option<Told>; 2]) {
        for (told, news) in self.told.iter_mut().zip(news) {
            *told = news.as_ref().map(|news| news.version).or(*told);
        }
    }

    /// The totals that Redis has now do not know this node: it begins anew, with everything that it has counted.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(opened: u64) -> Counts {
        Counts::from_iter([("opened", opened)])
    }

    fn counted(epoch: &str) -> Answer {
        Answer::Counted { now: 7, epoch: epoch.into(), sketched: true }
    }

    #[test]
    fn the_floor_is_what_may_have_arrived_first_after_the_last_answer() {
        let mut ledger = Ledger::default();
        let mut floor = |now, answered: bool| {
            let floor = ledger.send(&counts(now));
            assert!(!answered || ledger.answer(&counts(now), counted("e")));
            floor.get("opened")
        };
        assert_eq!(floor(3, true), 0);
        assert_eq!(floor(5, false), 3, "what is being sent now cannot have arrived before");
        assert_eq!(floor(8, false), 5);
        assert_eq!(floor(9, true), 5);
        assert_eq!(floor(9, true), 9);
    }

    #[test]
    fn the_first_answer_of_an_epoch_is_remembered() {
        let mut ledger = Ledger::default();
        ledger.answer(&counts(1), counted("e"));
        for now in [9, 10] {
            ledger.answer(&counts(1), Answer::Counted { now, epoch: "f".into(), sketched: false });
        }
        assert_eq!(ledger.counted_in(), "f@9 e@7");
        assert!(!ledger.answer(&counts(1), Answer::Lost));
    }

    #[test]
    fn a_copy_holds_the_totals_exactly() {
        let totals = Counts::from_iter([("opened", 10), ("bytes", 4)]);
        let parts = vec![("a".to_owned(), counts(3)), ("b".to_owned(), counts(2))];
        let copy = Copy::new("e@1".into(), 1, &totals, parts);
        let mut sum = copy.past.clone();
        copy.parts.iter().for_each(|(_, counts)| sum.add(counts));
        assert_eq!((copy.past.get("opened"), sum), (5, totals));
    }
}
