//! What has been heard on channel `jobs` and is not recorded yet.
//!
//! The recorder's queue, and on every other node the memory of the last seconds, from which the next recorder goes on. So
//! it takes events as they are: a node that never records never looks into them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{JobState, JobUpdate, Place};
use crate::clock::{Clock, Tick};
use crate::protocol::event::{Delivery, Event, Key};
use crate::protocol::position::Position;

/// How many events it holds at most. When it is full the oldest go: durable ones are still in the history.
const MAX_EVENTS: usize = 16 * 1024;

/// How many bytes of data it holds at most, with the same consequence.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Events on their way to the store. Whoever hears them puts them in; nobody waits.
#[derive(Debug)]
pub struct Backlog {
    events: Mutex<Events>,
    arrived: Notify,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Events {
    queue: VecDeque<Heard>,
    /// What was taken last: on its way to the store, or there.
    taken: Vec<Heard>,
    bytes: usize,
    dropped: u64,
    /// The last durable event that was heard.
    last: Option<Position>,
}

/// An event of channel `jobs` and when it came.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    event: Arc<Event>,
    /// `None` for a plain event before which no durable one was heard.
    place: Option<Place>,
    at: Tick,
}

impl Backlog {
    /// An empty one.
    pub fn new(clock: Clock) -> Self {
        Self { events: Mutex::default(), arrived: Notify::new(), clock }
    }

    /// A panic cannot leave it half changed in a way that matters more than going on.
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event of channel `jobs`, in the order in which they are heard.
    pub fn push(&self, delivery: Delivery) {
        let at = self.clock.now();
        self.events().push(Heard::new(delivery, at));
        self.arrived.notify_one();
    }

    /// Waits until something was added since this last returned.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// The oldest events: at most `max_events` of at most `max_bytes`, but always one if there is any. What was taken before
    /// is in the store, or was put back.
    pub(super) fn take(&self, max_events: usize, max_bytes: usize) -> Vec<Heard> {
        self.events().take(max_events, max_bytes)
    }

    /// How `job` has ended by what was heard and may not be in the store yet, and where in the stream; a plain event before
    /// which no durable one was heard does not know its place.
    pub fn end_of(&self, job: &Key) -> Option<(JobState, Option<Place>)> {
        let now = self.clock.unix_millis();
        let events = self.events();
        let mut end = None;
        let of_job = |heard: &&Heard| heard.event.key.as_ref() == Some(job);
        for heard in events.taken.iter().chain(&events.queue).filter(of_job) {
            let Some(update) = heard.update() else { continue };
            if update.starts {
                end = None;
            } else if update.status.is_terminal() {
                end.get_or_insert((update, heard.place));
            }
        }
        end.map(|(update, place)| (JobState::new(&update, update.place.happened(now)), place))
    }

    /// Everything, merged with `missed` events from the history into the order of the stream, each once; `up_to` is a
    /// durable event that happened before all of it.
    pub(super) fn take_merged(&self, missed: Vec<Delivery>, up_to: Option<Position>) -> Vec<Heard> {
        let now = self.clock.now();
        let mut merged: Vec<Heard> = missed.into_iter().map(|delivery| Heard::new(delivery, now)).collect();
        let mut events = self.events();
        let heard = events.take(usize::MAX, usize::MAX);
        // Plain events that were heard before the first durable one stand right before that. Where none was heard they
        // stand behind all that there are.
        let before = |first: Position| Position { n: first.n.saturating_sub(1), ..first };
        let last = match heard.iter().find_map(Heard::position) {
            Some(first) => Some(before(first)),
            None => merged.iter().rev().find_map(Heard::position).max(up_to),
        };
        events.last = events.last.max(last);
        drop(events);
        merged.extend(heard.into_iter().map(|heard| heard.placed_behind(last)));
        merged.sort_by_key(|event| event.place);
        merged.dedup_by(|again, first| first.position().is_some() && again.place == first.place);
        merged
    }

    /// Something may be missing between what was heard so far and what will be: what was heard so far must not be
    /// recorded after what somebody else has recorded meanwhile.
    pub fn interrupted(&self) {
        let mut events = self.events();
        events.dropped += events.queue.len() as u64;
        events.queue.clear();
        events.taken.clear();
        events.bytes = 0;
    }

    /// What was taken and could not be recorded is the oldest again.
    pub(super) fn put_back(&self, taken: Vec<Heard>) {
        let mut events = self.events();
        events.taken.clear();
        for heard in taken.into_iter().rev() {
            events.bytes += heard.cost();
            events.queue.push_front(heard);
        }
        events.shrink();
    }

    /// Forgets what came longer ago than `age`.
    pub(super) fn forget(&self, age: Duration) {
        let now = self.clock.now();
        let mut events = self.events();
        events.taken.clear();
        while events.pop_if(|oldest| now.since(oldest.at) > age).is_some() {}
    }

    /// How many were dropped since the last call, unrecorded.
    pub(super) fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.events().dropped)
    }
}

impl Events {
    fn push(&mut self, heard: Heard) {
        self.last = self.last.max(heard.position());
        let heard = match self.last {
            Some(last) => heard.placed_behind(Some(last)),
            None => heard,
        };
        self.bytes += heard.cost();
        self.queue.push_back(heard);
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.queue.len() > MAX_EVENTS || self.bytes > MAX_BYTES {
            self.pop_if(|_| true);
            self.dropped += 1;
        }
    }

    fn take(&mut self, max_events: usize, max_bytes: usize) -> Vec<Heard> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < max_events
            && let Some(heard) = self.pop_if(|next| bytes == 0 || next.cost() <= max_bytes - bytes)
        {
            bytes += heard.cost().min(max_bytes - bytes);
            taken.push(heard);
        }
        self.taken.clone_from(&taken);
        taken
    }

    fn pop_if(&mut self, wanted: impl FnOnce(&Heard) -> bool) -> Option<Heard> {
        self.queue.front().filter(|oldest| wanted(oldest))?;
        let heard = self.queue.pop_front()?;
        self.bytes -= heard.cost();
        Some(heard)
    }
}

impl Heard {
    fn new(Delivery { event, position, .. }: Delivery, at: Tick) -> Self {
        Self { event: Arc::new(event), place: position.map(Place::at), at }
    }

    /// A plain event that does not know its place was heard behind the durable one at `last`.
    fn placed_behind(self, last: Option<Position>) -> Self {
        Self { place: self.place.or_else(|| Some(Place::behind(last))), ..self }
    }

    /// Its own position.
    pub(super) fn position(&self) -> Option<Position> {
        self.place.and_then(Place::position)
    }

    /// What it says of a job.
    pub(super) fn update(&self) -> Option<JobUpdate> {
        JobUpdate::from_event(&self.event, self.place.unwrap_or(Place::behind(None)))
    }

    fn cost(&self) -> usize {
        size_of::<Self>() + self.event.data.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::channel::ChannelName;

    fn at(n: u64) -> Position {
        Position { epoch: 1, n }
    }

    fn delivery(data: &str, n: Option<u64>) -> Delivery {
        let event = Event::unnamed(data);
        Delivery { channel: ChannelName::jobs(), event, position: n.map(at) }
    }

    fn backlog(heard: &[(&str, Option<u64>)]) -> Backlog {
        let backlog = Backlog::new(Clock::held());
        heard.iter().for_each(|(data, n)| backlog.push(delivery(data, *n)));
        backlog
    }

    fn data(events: &[Heard]) -> Vec<&str> {
        events.iter().map(|heard| heard.event.data.as_str()).collect()
    }

    #[test]
    fn the_oldest_come_first_within_bounds_but_at_least_one_and_can_be_put_back() {
        let large = "x".repeat(1000);
        let backlog = backlog(&[(&large, None), ("b", None), ("c", None), ("d", None)]);
        let first = backlog.take(2, 500);
        assert_eq!(data(&first), [large.as_str()]);
        let more = backlog.take(2, 500);
        assert_eq!(data(&more), ["b", "c"]);
        backlog.put_back(more);
        backlog.put_back(first);
        assert_eq!(data(&backlog.take(9, 9000)), [large.as_str(), "b", "c", "d"]);
        assert_eq!(backlog.take_dropped(), 0);
        assert_eq!(backlog.events().bytes, 0);
    }

    #[test]
    fn when_it_is_full_the_oldest_go_and_are_counted() {
        let backlog = backlog(&[]);
        (0..MAX_EVENTS + 3).for_each(|i| backlog.push(delivery(&i.to_string(), None)));
        assert_eq!((backlog.take_dropped(), backlog.take_dropped()), (3, 0));
        assert_eq!(data(&backlog.take(1, 1)), ["3"]);
        let half = "x".repeat(MAX_BYTES / 2);
        (0..3).for_each(|_| backlog.push(delivery(&half, None)));
        assert!(backlog.take_dropped() > 0 && backlog.events().bytes <= MAX_BYTES);
        backlog.interrupted();
        assert_eq!((backlog.take_dropped(), backlog.take(1, 1).len()), (1, 0));
    }

    #[test]
    fn the_end_of_a_job_is_known_from_when_it_is_heard_until_it_is_in_the_store() {
        let job = Key::parse("42").unwrap();
        let said = |word: &str, id: &str, n| {
            let mut delivery = delivery(&format!(r#"{{"status":"{word}"}}"#), n);
            delivery.event.key = Key::parse(id).ok();
            delivery
        };
        let backlog = backlog(&[]);
        let end = |backlog: &Backlog| {
            backlog.end_of(&job).map(|(state, place)| {
                assert_eq!(state.position, place.and_then(Place::position));
                (state.word, state.position)
            })
        };
        backlog.push(said("completed", "other", Some(1)));
        backlog.push(said("running", "42", Some(2)));
        assert_eq!(end(&backlog), None);
        backlog.push(said("failed", "42", Some(3)));
        backlog.push(said("completed", "42", None));
        let failed = Some(("failed".into(), Some(at(3))));
        assert_eq!(end(&backlog), failed, "the first one is final");
        let taken = backlog.take(9, 9000);
        assert_eq!(end(&backlog), failed, "on its way");
        backlog.put_back(taken);
        assert_eq!(end(&backlog), failed);
        backlog.take(9, 9000);
        assert!(backlog.take(9, 9000).is_empty());
        assert_eq!(end(&backlog), None, "in the store");
        backlog.push(said("failed", "42", Some(4)));
        backlog.push(said("queued", "42", None));
        assert_eq!(end(&backlog), None, "it began again");
    }

    #[test]
    fn a_node_that_does_not_record_forgets_what_is_old() {
        let clock = Clock::held();
        let backlog = Backlog::new(clock.clone());
        for data in ["a", "b", "c"] {
            backlog.push(delivery(data, None));
            clock.advance(Duration::from_secs(1));
        }
        backlog.forget(Duration::from_secs(2));
        assert_eq!((data(&backlog.take(9, 9000)), backlog.take_dropped()), (vec!["b", "c"], 0));
    }

    #[test]
    fn history_and_what_was_heard_are_one_stream_with_each_event_once() {
        let backlog = backlog(&[
            ("p7", None),
            ("8", Some(8)),
            ("p8", None),
            ("p8 again", None),
            ("12", Some(12)),
            ("p12", None),
        ]);
        let missed = [5, 6, 8, 10, 12].map(|n| delivery(&n.to_string(), Some(n)));
        let merged = backlog.take_merged(missed.into(), Some(at(4)));
        assert_eq!(data(&merged), ["5", "6", "p7", "8", "p8", "p8 again", "10", "12", "p12"]);
        assert!(backlog.take(1, 1).is_empty());
    }

    #[test]
    fn plain_events_alone_stand_behind_all_that_is_recorded() {
        let places = |missed: Vec<Delivery>, up_to| {
            let backlog = backlog(&[("a", None)]);
            let merged = backlog.take_merged(missed, up_to);
            backlog.push(delivery("later", None));
            let places = [merged.last().unwrap().place, backlog.take(1, 1)[0].place];
            assert_eq!(places[0], places[1]);
            places[0]
        };
        let behind = |n| Some(Place::behind(Some(at(n))));
        assert_eq!(places(vec![delivery("5", Some(5))], Some(at(4))), behind(5));
        assert_eq!(places(vec![], Some(at(4))), behind(4));
    }
}
