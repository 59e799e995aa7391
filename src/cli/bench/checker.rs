//! Did every stream get what was acknowledged: once, in order, and nothing missing in silence (invariant 1)?
//!
//! Pure bookkeeping over event numbers; the tests of the whole program use it too.

use std::ops::Range;

/// Disjoint ranges in rising order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Where the range is, or would be, that holds `n`.
    fn position(&self, n: u64) -> Result<usize, usize> {
        let at = self.0.partition_point(|range| range.end <= n);
        if self.0.get(at).is_some_and(|range| range.contains(&n)) { Ok(at) } else { Err(at) }
    }

    fn contains(&self, n: u64) -> bool {
        self.position(n).is_ok()
    }

    fn insert(&mut self, n: u64) {
        let Err(at) = self.position(n) else {
            return;
        };
        let joins_next = self.0.get(at).is_some_and(|next| next.start == n + 1);
        let joins_last = at > 0 && self.0[at - 1].end == n;
        match (joins_last, joins_next) {
            (true, true) => self.0[at - 1].end = self.0.remove(at).end,
            (true, false) => self.0[at - 1].end = n + 1,
            (false, true) => self.0[at].start = n,
            (false, false) => self.0.insert(at, n..n + 1),
        }
    }

    fn remove(&mut self, n: u64) -> bool {
        let Ok(at) = self.position(n) else {
            return false;
        };
        let Range { start, end } = self.0[at];
        let rest = [start..n, n + 1..end].into_iter().filter(|range| !range.is_empty());
        self.0.splice(at..=at, rest);
        true
    }

    fn overlap(&self, other: &Range<u64>) -> u64 {
        let common =
            |range: &Range<u64>| range.end.min(other.end).saturating_sub(range.start.max(other.start));
        self.0.iter().map(common).sum()
    }
}

/// What an arriving event was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// Later than everything before it.
    InOrder,
    /// For the first time, but after a later one.
    OutOfOrder,
    /// Not for the first time.
    Duplicate,
}

/// The account of one stream, over all of its connections.
#[derive(Clone, Debug)]
pub struct StreamChecker {
    next: u64,
    silent: Ranges,
    announced: Ranges,
    gap: bool,
    received: u64,
    out_of_order: u64,
    duplicated: u64,
}

impl StreamChecker {
    /// A stream that is owed every event from `first` on.
    pub fn starting_at(first: u64) -> Self {
        Self {
            next: first,
            silent: Ranges::default(),
            announced: Ranges::default(),
            gap: false,
            received: 0,
            out_of_order: 0,
            duplicated: 0,
        }
    }

    /// Event `n` has arrived.
    pub fn receive(&mut self, n: u64) -> Receipt {
        self.received += 1;
        if n >= self.next {
            self.skip_to(n);
            self.next = n + 1;
            return Receipt::InOrder;
        }
        if self.silent.remove(n) || self.announced.remove(n) {
            self.out_of_order += 1;
            return Receipt::OutOfOrder;
        }
        self.duplicated += 1;
        Receipt::Duplicate
    }

    fn skip_to(&mut self, n: u64) {
        let gap = std::mem::take(&mut self.gap);
        if n > self.next {
            let hole = self.next..n;
            let ranges = if gap { &mut self.announced } else { &mut self.silent };
            ranges.0.push(hole); // beyond all others
        }
    }

    /// A `gap` was announced: what is missing between the last event and the next one was said to be.
    pub fn gap(&mut self) {
        self.gap = true;
    }

    /// A `gap` `history_lost` was announced: events from before it may be missing wherever they were. While one Redis takes
    /// over from another, what was published on the new one may belong before what came from the old one.
    pub fn history_lost(&mut self) {
        self.announced.0.append(&mut self.silent.0);
        self.announced.0.sort_unstable_by_key(|range| range.start);
        self.gap();
    }

    /// Whether event `n` or a later one has arrived.
    pub const fn is_beyond(&self, n: u64) -> bool {
        self.next > n
    }

    /// Whether event `n` has arrived; nothing is known of events from before the start.
    pub fn has(&self, n: u64) -> bool {
        n < self.next && !self.silent.contains(n) && !self.announced.contains(n)
    }

    /// Of these events, how many are missing without a word, and how many with.
    fn missing(&self, range: &Range<u64>) -> (u64, u64) {
        let tail = range.end.saturating_sub(range.start.max(self.next));
        let (silent, announced) = (self.silent.overlap(range), self.announced.overlap(range));
        if self.gap { (silent, announced + tail) } else { (silent + tail, announced) }
    }
}

/// The account of all streams.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    acknowledged: Ranges,
    /// One account per stream.
    pub streams: Vec<StreamChecker>,
}

/// What came out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Acknowledged events.
    pub acknowledged: u64,
    /// Events that arrived, over all streams.
    pub received: u64,
    /// Acknowledged, missing on a stream, and no gap announced there: must be 0.
    pub lost: u64,
    /// Acknowledged and missing on a stream that was told so.
    pub announced: u64,
    /// Arrived again.
    pub duplicated: u64,
    /// Arrived after a later one.
    pub out_of_order: u64,
}

impl Checker {
    /// An account for this many streams, each of which is owed every event from `first` on.
    pub fn new(streams: usize, first: u64) -> Self {
        Self { acknowledged: Ranges::default(), streams: vec![StreamChecker::starting_at(first); streams] }
    }

    /// The publication of event `n` was acknowledged: every stream is owed it.
    pub fn acknowledge(&mut self, n: u64) {
        self.acknowledged.insert(n);
    }

    /// The sum over all streams.
    pub fn verdict(&self) -> Verdict {
        let mut verdict = Verdict {
            acknowledged: self.acknowledged.0.iter().map(|range| range.end - range.start).sum(),
            ..Verdict::default()
        };
        for stream in &self.streams {
            verdict.received += stream.received;
            verdict.duplicated += stream.duplicated;
            verdict.out_of_order += stream.out_of_order;
            for range in &self.acknowledged.0 {
                let (silent, announced) = stream.missing(range);
                verdict.lost += silent;
                verdict.announced += announced;
            }
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    fn verdict(acknowledged: Range<u64>, arrivals: &[u64]) -> Verdict {
        let mut checker = Checker::new(1, 0);
        acknowledged.for_each(|n| checker.acknowledge(n));
        arrivals.iter().for_each(|n| _ = checker.streams[0].receive(*n));
        checker.verdict()
    }

    #[test]
    fn what_arrives_once_and_in_order_is_in_order() {
        let verdict = verdict(0..4, &[0, 1, 2, 3]);
        assert_eq!(verdict, Verdict { acknowledged: 4, received: 4, ..Verdict::default() });
    }

    #[test]
    fn holes_and_what_never_came_are_lost() {
        assert_eq!(verdict(0..6, &[1, 3]).lost, 4);
        assert_eq!(verdict(0..6, &[]).lost, 6);
    }

    #[test]
    fn what_comes_late_is_out_of_order_and_what_comes_again_a_duplicate() {
        let verdict = verdict(0..4, &[0, 2, 1, 1, 3, 3, 0]);
        assert_eq!((verdict.lost, verdict.out_of_order, verdict.duplicated), (0, 1, 3));
    }

    #[test]
    fn a_gap_excuses_what_is_missing_at_its_place_and_nothing_else() {
        let mut checker = Checker::new(1, 0);
        (0..10).for_each(|n| checker.acknowledge(n));
        let stream = &mut checker.streams[0];
        stream.receive(0);
        stream.receive(2);
        stream.gap();
        stream.receive(5);
        stream.receive(7);
        assert_eq!((checker.verdict().lost, checker.verdict().announced), (2 + 2, 2));
        checker.streams[0].gap();
        assert_eq!(
            (checker.verdict().lost, checker.verdict().announced),
            (2, 4),
            "a gap at the end excuses the rest"
        );
    }

    #[test]
    fn a_lost_history_excuses_what_is_missing_from_before_it_as_well() {
        let mut checker = Checker::new(1, 0);
        (0..10).for_each(|n| checker.acknowledge(n));
        let stream = &mut checker.streams[0];
        stream.receive(1);
        stream.receive(4);
        stream.history_lost();
        stream.receive(6);
        stream.receive(8);
        assert_eq!((checker.verdict().lost, checker.verdict().announced), (2, 1 + 2 + 1));
        checker.streams[0].receive(2);
        assert_eq!((checker.verdict().announced, checker.verdict().out_of_order), (3, 1));
    }

    #[test]
    fn what_was_not_acknowledged_may_be_missing_and_may_arrive() {
        let mut checker = Checker::new(1, 0);
        checker.acknowledge(0);
        checker.acknowledge(3);
        [0, 2, 3].into_iter().for_each(|n| _ = checker.streams[0].receive(n));
        let verdict = checker.verdict();
        assert_eq!((verdict.acknowledged, verdict.received, verdict.lost, verdict.duplicated), (2, 3, 0, 0));
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set(
            acknowledged in proptest::collection::btree_set(0u64..40, 0..40),
            arrivals in proptest::collection::vec(0u64..40, 0..60),
        ) {
            let mut checker = Checker::new(1, 0);
            // Acknowledgements of different publishers come in any order.
            acknowledged.iter().rev().for_each(|n| checker.acknowledge(*n));
            let mut seen = BTreeSet::new();
            let (mut duplicated, mut out_of_order) = (0, 0);
            for n in &arrivals {
                checker.streams[0].receive(*n);
                let highest = seen.last().copied();
                match (seen.insert(*n), highest) {
                    (false, _) => duplicated += 1,
                    (true, Some(highest)) if highest > *n => out_of_order += 1,
                    (true, _) => {}
                }
            }
            let lost = acknowledged.difference(&seen).count() as u64;
            prop_assert_eq!(checker.verdict(), Verdict {
                acknowledged: acknowledged.len() as u64,
                received: arrivals.len() as u64,
                lost, announced: 0, duplicated, out_of_order,
            });
            prop_assert!((0..40).all(|n| checker.streams[0].has(n) == seen.contains(&n)));
        }
    }
}
