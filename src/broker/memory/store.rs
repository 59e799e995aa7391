//! The histories of all channels in memory; a pure value that is told the time.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use crate::broker::replay::{self, Extent, Replay};
use crate::broker::{Acknowledgement, Config, History, HistoryRequest, Publication};
use crate::protocol::channel::ChannelName;
use crate::protocol::event::Delivery;
use crate::protocol::position::{Position, STEP_BITS};

/// How many bytes of events all histories hold at most. When it is full the channels that have been quiet for longest
/// lose theirs, and then the busiest lose their oldest events; both is told as `history_trimmed`.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// All histories.
#[derive(Debug)]
pub(super) struct Store {
    size: usize,
    ttl_ms: u64,
    max_bytes: usize,
    epoch: u64,
    n: u64,
    /// Channels without a ring have had no event after this one.
    floor: u64,
    bytes: usize,
    rings: HashMap<ChannelName, Ring>,
    /// The rings by their last event: the quietest first.
    quiet: BTreeMap<u64, ChannelName>,
    keys: HashMap<(ChannelName, Box<str>), Position>,
    /// The keys with the time at which they end, in that order.
    key_ends: VecDeque<(u64, (ChannelName, Box<str>))>,
}

/// The history of one channel.
#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<(u64, Delivery)>,
    last: u64,
    /// The last event that was cut off.
    floor: u64,
}

impl Store {
    /// An empty one, born at `now` (Unix milliseconds).
    pub(super) fn new(config: &Config, now: u64) -> Self {
        Self {
            size: config.history_size.max(1),
            ttl_ms: millis(config.history_ttl),
            max_bytes: MAX_BYTES,
            epoch: now,
            n: now << STEP_BITS,
            floor: 0,
            bytes: 0,
            rings: HashMap::new(),
            quiet: BTreeMap::new(),
            keys: HashMap::new(),
            key_ends: VecDeque::new(),
        }
    }

    /// The last position given out; before the first event, where the counting begins.
    pub(super) const fn position(&self) -> Position {
        Position { epoch: self.epoch, n: self.n }
    }

    /// Appends one event at `now`; answers what is to be delivered as well, unless it is a repetition.
    pub(super) fn append(
        &mut self,
        publication: &Publication,
        now: u64,
    ) -> (Acknowledgement, Option<Delivery>) {
        self.expire(now);
        let key = publication.idempotency_key.clone().map(|key| (publication.channel.clone(), key));
        let next = Position { epoch: self.epoch, n: (self.n + 1).max(now << STEP_BITS) };
        if let Some(key) = key {
            match self.keys.entry(key) {
                Entry::Occupied(first) => return (Acknowledgement::Repeated(*first.get()), None),
                Entry::Vacant(free) => {
                    self.key_ends.push_back((now + self.ttl_ms, free.key().clone()));
                    free.insert(next);
                }
            }
        }
        self.n = next.n;
        let delivery = Delivery {
            channel: publication.channel.clone(),
            event: publication.event.clone(),
            position: Some(next),
        };
        self.insert(delivery.clone(), next.n);
        (Acknowledgement::Appended(next), Some(delivery))
    }

    fn insert(&mut self, delivery: Delivery, n: u64) {
        let channel = delivery.channel.clone();
        self.bytes += replay::cost(&delivery);
        let ring = self
            .rings
            .entry(channel.clone())
            .or_insert_with(|| Ring { floor: self.floor, ..Ring::default() });
        self.quiet.remove(&ring.last);
        self.quiet.insert(n, channel);
        ring.last = n;
        ring.events.push_back((n, delivery));
        if ring.events.len() > self.size {
            self.bytes -= ring.cut();
        }
        self.shrink();
    }

    /// Makes room: first the quiet channels go, then the oldest events of the one that is left.
    fn shrink(&mut self) {
        while self.bytes > self.max_bytes && self.quiet.len() > 1 {
            self.forget_quietest();
        }
        for ring in self.rings.values_mut().take(1) {
            while self.bytes > self.max_bytes && ring.events.len() > 1 {
                self.bytes -= ring.cut();
            }
        }
    }

    fn forget_quietest(&mut self) {
        let Some((last, channel)) = self.quiet.pop_first() else { return };
        let events = self.rings.remove(&channel).map(|ring| ring.events).unwrap_or_default();
        self.bytes -= events.iter().map(|(_, delivery)| replay::cost(delivery)).sum::<usize>();
        self.floor = last;
    }

    /// Drops what is too old.
    fn expire(&mut self, now: u64) {
        let horizon = now.saturating_sub(self.ttl_ms) << STEP_BITS;
        while self.quiet.first_key_value().is_some_and(|(&last, _)| last < horizon) {
            self.forget_quietest();
        }
        while self.key_ends.front().is_some_and(|(end, _)| *end <= now) {
            if let Some((_, key)) = self.key_ends.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    /// Everything after the positions asked for, as of `now`.
    pub(super) fn read(&mut self, requests: &[HistoryRequest], now: u64) -> History {
        self.expire(now);
        let end = Position { epoch: self.epoch, n: self.n };
        let mut found: BTreeMap<u64, &Delivery> = BTreeMap::new();
        let mut replay = Replay::default();
        for request in requests {
            let ring = self.rings.get(&request.channel);
            let floor = ring.map_or(self.floor, |ring| ring.floor);
            replay.complete_after(request.channel.clone(), floor);
            let (after, _) = Extent { floor, lost: 0, end }.judge(request.after);
            let events = ring.into_iter().flat_map(|ring| ring.after(after));
            found.extend(events.map(|(n, delivery)| (*n, delivery)));
        }
        found.into_values().for_each(|delivery| replay.push(delivery.clone()));
        replay.finish(end, 0)
    }
}

impl Ring {
    /// Forgets the oldest event; returns what it cost.
    fn cut(&mut self) -> usize {
        self.events.pop_front().map_or(0, |(n, delivery)| {
            self.floor = n;
            replay::cost(&delivery)
        })
    }

    fn after(&self, n: u64) -> impl Iterator<Item = &(u64, Delivery)> {
        self.events.range(self.events.partition_point(|(at, _)| *at <= n)..)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::GapReason;
    use crate::protocol::event::Event;

    fn store(size: usize, ttl: Duration) -> Store {
        Store::new(&Config { history_size: size, history_ttl: ttl, ..Config::default() }, 1_000_000)
    }

    fn publication(channel: &str, data: &str) -> Publication {
        let channel = ChannelName::parse(channel).unwrap();
        Publication { channel, event: Event::unnamed(data), idempotency_key: None }
    }

    fn append(store: &mut Store, channel: &str, data: &str, now: u64) -> Position {
        store.append(&publication(channel, data), now).0.position()
    }

    fn read(store: &mut Store, channel: &str, after: Position, now: u64) -> (Vec<String>, Option<GapReason>) {
        let channel = ChannelName::parse(channel).unwrap();
        let history = store.read(&[HistoryRequest { channel: channel.clone(), after }], now);
        let gap = history.gap(&channel, after);
        (history.events.into_iter().map(|delivery| delivery.event.data).collect(), gap)
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn positions_rise_when_the_clock_stands_still_or_goes_back() {
        let mut store = store(10, HOUR);
        let positions = [2_000_000, 2_000_000, 1_500_000].map(|now| append(&mut store, "a", "x", now));
        assert!(positions[0] < positions[1] && positions[1] < positions[2]);
        assert_eq!(positions[0].n >> STEP_BITS, 2_000_000);
    }

    #[test]
    fn a_channel_that_was_quiet_for_its_ttl_has_a_gap_and_no_other_has() {
        let mut store = store(10, Duration::from_secs(10));
        let start = append(&mut store, "other", "0", 1_000_000);
        append(&mut store, "quiet", "1", 1_000_001);
        append(&mut store, "live", "2", 1_009_000);
        assert_eq!(read(&mut store, "quiet", start, 1_010_000), (vec!["1".into()], None));
        assert_eq!(read(&mut store, "quiet", start, 1_010_500), (vec![], Some(GapReason::HistoryTrimmed)));
        assert_eq!(read(&mut store, "live", start, 1_010_500), (vec!["2".into()], None));
    }

    #[test]
    fn too_many_bytes_cost_the_quietest_channel_its_history_first() {
        let mut store = store(1000, HOUR);
        store.max_bytes = 10_000;
        let start = append(&mut store, "first", "0", 1_000_000);
        append(&mut store, "quiet", &"q".repeat(4_000), 1_000_001);
        append(&mut store, "busy", &"b".repeat(5_000), 1_000_002);
        append(&mut store, "busy", &"b".repeat(5_000), 1_000_003);
        append(&mut store, "busy", "end", 1_000_004);
        assert_eq!(read(&mut store, "quiet", start, 1_000_005).1, Some(GapReason::HistoryTrimmed));
        assert!(store.bytes <= 10_000);
        let (events, gap) = read(&mut store, "busy", start, 1_000_005);
        assert_eq!((events.last().map(String::as_str), gap), (Some("end"), Some(GapReason::HistoryTrimmed)));
    }

    #[test]
    fn an_idempotency_key_is_of_its_channel_and_ends_with_the_ttl() {
        let mut store = store(10, Duration::from_secs(10));
        let mut publish = |channel: &str, now| {
            let publication = Publication { idempotency_key: Some("k".into()), ..publication(channel, "x") };
            store.append(&publication, now).0
        };
        let first = publish("a", 1_000_000).position();
        assert_eq!(publish("a", 1_009_999), Acknowledgement::Repeated(first));
        assert!(publish("b", 1_009_999).appended().is_some());
        assert!(publish("a", 1_010_000).appended().is_some());
    }
}
