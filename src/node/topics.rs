//! The table of topics: names to numbers, how many hold each, and how far the broker is with it.
//!
//! One table for all of it, because there may be a hundred thousand channels with one subscriber each: an entry costs
//! 40 bytes, its name, and some ten bytes of index.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::broker::InterestChanges;
use crate::clock::Tick;
use crate::hub::TopicId;
use crate::protocol::channel::ChannelName;
use crate::protocol::event::Key;

/// What can be listened to: a channel, or the events of one key on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Topic {
    pub(super) channel: ChannelName,
    /// Only events with this key; `None` for all of the channel.
    pub(super) key: Option<Key>,
}

/// How far the broker is with a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    No,
    Asked,
    Yes,
}

struct Entry {
    /// The channel's name, without the reference count of a [`ChannelName`]: it is handed out seldom.
    channel: Box<str>,
    /// Boxed, since few topics have one and all have room for it.
    key: Option<Box<Key>>,
    generation: u32,
    holders: u32,
    /// Which linger is its last; counts up.
    linger: u16,
    /// Nobody holds it, but it is still wanted.
    lingers: bool,
    applied: Applied,
    /// Stands in `changes`.
    queued: bool,
    vacant: bool,
    /// Somebody was let in before the broker had confirmed the channel: what came in between is told as a gap.
    owes_gap: bool,
}

/// A time at which a channel stops being wanted, unless somebody came back meanwhile.
#[derive(Clone, Copy)]
struct Linger {
    until: Tick,
    index: u32,
    count: u16,
}

#[derive(Default)]
pub(super) struct Topics {
    index: HashTable<u32>,
    hasher: RandomState,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Entries whose subscription may have to change; each at most once.
    changes: VecDeque<u32>,
    /// In the order of their ends, since all lingers are of one length.
    lingering: VecDeque<Linger>,
}

impl Entry {
    const fn is_wanted_channel(&self) -> bool {
        let wanted = self.holders > 0 || self.lingers;
        wanted && !self.vacant && self.key.is_none()
    }

    fn name(&self) -> Option<ChannelName> {
        // It was one when it was put here.
        ChannelName::parse(&self.channel).ok()
    }
}

impl Topics {
    /// Adds a holder. Holding a key holds its channel as well: that is what the broker is asked for.
    pub(super) fn hold(&mut self, topic: &Topic) -> TopicId {
        if topic.key.is_some() {
            self.hold(&Topic { channel: topic.channel.clone(), key: None });
        }
        let found = self.index_of(topic.channel.as_str(), topic.key.as_ref());
        let index = found.unwrap_or_else(|| self.insert(topic));
        let entry = &mut self.entries[index as usize];
        entry.holders += 1;
        entry.lingers = false;
        if entry.key.is_none() && entry.applied == Applied::No {
            self.queue(index);
        }
        self.id(index)
    }

    /// Takes a holder away. A channel that nobody holds any more lingers; a key is forgotten at once, since the broker
    /// never heard of it.
    pub(super) fn give_back(&mut self, index: u32, until: Tick) {
        let entry = &mut self.entries[index as usize];
        entry.holders -= 1;
        let abandoned = entry.holders == 0;
        if entry.key.is_none() {
            if abandoned {
                entry.linger = entry.linger.wrapping_add(1);
                entry.lingers = true;
                self.lingering.push_back(Linger { until, index, count: entry.linger });
            }
            return;
        }
        let channel = entry.channel.clone();
        if abandoned {
            self.vacate(index);
        }
        if let Some(channel) = self.index_of(&channel, None) {
            self.give_back(channel, until);
        }
    }

    /// The number of a topic that somebody holds or that lingers.
    pub(super) fn find(&self, channel: &ChannelName, key: Option<&Key>) -> Option<TopicId> {
        self.index_of(channel.as_str(), key).map(|index| self.id(index))
    }

    /// A channel and every key on it. Looks at the whole table: for what is rare.
    pub(super) fn all_of(&self, channel: &ChannelName) -> Vec<TopicId> {
        let of_channel = |(_, entry): &(usize, &Entry)| !entry.vacant && *entry.channel == *channel.as_str();
        let number = |(index, entry): (usize, &Entry)| TopicId {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            generation: entry.generation,
        };
        self.entries.iter().enumerate().filter(of_channel).map(number).collect()
    }

    /// What a topic is called; `None` when it is gone.
    pub(super) fn name(&self, topic: TopicId) -> Option<String> {
        let entry = self.entries.get(topic.index as usize)?;
        let (channel, key) = (&entry.channel, &entry.key);
        let name = key.as_ref().map_or_else(|| channel.to_string(), |key| format!("{channel} {key}"));
        (!entry.vacant && entry.generation == topic.generation).then_some(name)
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// `true` when something is to be unsubscribed.
    pub(super) fn end_lingers(&mut self, now: Tick) -> bool {
        let mut any = false;
        while let Some(Linger { index, count, .. }) =
            self.lingering.front().copied().filter(|linger| linger.until <= now)
        {
            self.lingering.pop_front();
            let entry = &mut self.entries[index as usize];
            // Held again since, lingering anew, or vacated and reused: then this end is not its own.
            if entry.lingers && entry.linger == count {
                entry.lingers = false;
                self.queue(index);
                any = true;
            }
        }
        any
    }

    /// At most `max` changes, marked as being carried out. A channel that is no longer wanted is forgotten.
    pub(super) fn take_changes(&mut self, max: usize) -> InterestChanges {
        let mut changes = InterestChanges::default();
        while changes.subscribe.len() + changes.unsubscribe.len() < max {
            let Some(index) = self.changes.pop_front() else { break };
            let entry = &mut self.entries[index as usize];
            entry.queued = false;
            if entry.is_wanted_channel() {
                if entry.applied == Applied::No {
                    entry.applied = Applied::Asked;
                    changes.subscribe.extend(entry.name());
                }
            } else if !entry.vacant {
                if entry.applied != Applied::No {
                    changes.unsubscribe.extend(entry.name());
                }
                self.vacate(index);
            }
        }
        changes
    }

    /// Whether the broker delivers all of these.
    pub(super) fn all_applied(&self, topics: &[TopicId]) -> bool {
        let applied = |index: u32| self.entries[index as usize].applied == Applied::Yes;
        topics.iter().all(|topic| self.channel_of(*topic).is_some_and(applied))
    }

    /// The broker delivers these from now on. `true` when a gap is owed for one of them.
    pub(super) fn confirm(&mut self, channels: &[ChannelName]) -> bool {
        let mut owed = false;
        for channel in channels {
            if let Some(index) = self.index_of(channel.as_str(), None) {
                let entry = &mut self.entries[index as usize];
                entry.applied = Applied::Yes;
                owed |= entry.owes_gap;
            }
        }
        owed
    }

    /// The channels of these topics that are not confirmed owe their listeners a gap.
    pub(super) fn owe_gap(&mut self, topics: &[TopicId]) {
        for topic in topics {
            if let Some(channel) = self.channel_of(*topic) {
                let entry = &mut self.entries[channel as usize];
                entry.owes_gap |= entry.applied != Applied::Yes;
            }
        }
    }

    /// The confirmed channels that owe a gap, which they owe no longer.
    pub(super) fn take_owed_gaps(&mut self) -> Vec<ChannelName> {
        let mut channels = Vec::new();
        for entry in &mut self.entries {
            if !entry.vacant && entry.owes_gap && entry.applied == Applied::Yes {
                entry.owes_gap = false;
                channels.extend(entry.name());
            }
        }
        channels
    }

    /// The broker has lost all subscriptions: everything wanted is a change again.
    pub(super) fn reset(&mut self) {
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            if !entry.vacant && entry.key.is_none() {
                entry.applied = Applied::No;
                self.queue(u32::try_from(index).unwrap_or(u32::MAX));
            }
        }
    }

    pub(super) fn for_each_wanted(&self, visit: &mut dyn FnMut(&ChannelName)) {
        for entry in self.entries.iter().filter(|entry| entry.is_wanted_channel()) {
            entry.name().iter().for_each(&mut *visit);
        }
    }

    /// How many hold a channel.
    pub(super) fn holders(&self, channel: &ChannelName) -> u32 {
        self.index_of(channel.as_str(), None).map_or(0, |index| self.entries[index as usize].holders)
    }

    /// The channels with holders among the entries from `from` on, at most `len` entries; `None` past the last entry.
    pub(super) fn held(&self, from: usize, len: usize) -> Option<impl Iterator<Item = (u32, ChannelName)>> {
        let part = self.entries.get(from..)?.iter().take(len);
        let held = part.filter(|entry| !entry.vacant && entry.key.is_none() && entry.holders > 0);
        (from < self.entries.len()).then(|| held.filter_map(|entry| Some((entry.holders, entry.name()?))))
    }

    fn index_of(&self, channel: &str, key: Option<&Key>) -> Option<u32> {
        let same = |index: &u32| {
            let entry = &self.entries[*index as usize];
            *entry.channel == *channel && entry.key.as_deref() == key
        };
        self.index.find(self.hasher.hash_one((channel, key)), same).copied()
    }

    fn id(&self, index: u32) -> TopicId {
        TopicId { index, generation: self.entries[index as usize].generation }
    }

    /// The entry of the whole channel that a topic belongs to.
    fn channel_of(&self, topic: TopicId) -> Option<u32> {
        let Entry { channel, key, .. } = &self.entries[topic.index as usize];
        if key.is_some() { self.index_of(channel, None) } else { Some(topic.index) }
    }

    fn insert(&mut self, topic: &Topic) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        let generation = self.entries.get(index as usize).map_or(0, |entry| entry.generation.wrapping_add(1));
        let entry = Entry {
            channel: topic.channel.as_str().into(),
            key: topic.key.clone().map(Box::new),
            generation,
            holders: 0,
            // Goes on from its predecessor's, whose lingers may still be waiting for their end.
            linger: self.entries.get(index as usize).map_or(0, |entry| entry.linger),
            lingers: false,
            applied: Applied::No,
            queued: false,
            vacant: false,
            owes_gap: false,
        };
        match self.entries.get_mut(index as usize) {
            Some(vacant) => *vacant = entry,
            None => self.entries.push(entry),
        }
        let Self { index: table, entries, hasher, .. } = self;
        let hash = |index: u32| {
            let entry = &entries[index as usize];
            hasher.hash_one((&*entry.channel, entry.key.as_deref()))
        };
        table.insert_unique(hash(index), index, |i| hash(*i));
        index
    }

    /// Forgets a topic. Its number may be used again; its place in `changes` or `lingering` then means nothing.
    fn vacate(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.vacant = true;
        let hash = self.hasher.hash_one((&*entry.channel, entry.key.as_deref()));
        if let Ok(found) = self.index.find_entry(hash, |i| *i == index) {
            found.remove();
        }
        self.free.push(index);
    }

    fn queue(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if !std::mem::replace(&mut entry.queued, true) {
            self.changes.push_back(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(channel: &str, key: Option<&str>) -> Topic {
        Topic { channel: ChannelName::parse(channel).unwrap(), key: key.map(|k| Key::parse(k).unwrap()) }
    }

    fn names(channels: &[ChannelName]) -> Vec<&str> {
        channels.iter().map(ChannelName::as_str).collect()
    }

    const fn at(ms: u64) -> Tick {
        Tick::from_millis(ms)
    }

    #[test]
    fn an_entry_stays_small() {
        assert!(size_of::<Entry>() <= 40, "{}", size_of::<Entry>());
    }

    #[test]
    fn the_first_holder_subscribes_and_the_last_leaves_after_the_linger() {
        let mut topics = Topics::default();
        let (a, b) = (topics.hold(&topic("a", None)), topics.hold(&topic("a", None)));
        assert_eq!(a, b);
        assert_eq!(names(&topics.take_changes(9).subscribe), ["a"]);
        topics.give_back(a.index, at(5));
        topics.give_back(b.index, at(6));
        assert!(!topics.end_lingers(at(5)));
        assert!(topics.end_lingers(at(6)));
        assert_eq!(names(&topics.take_changes(9).unsubscribe), ["a"]);
        assert_eq!(topics.find(&topic("a", None).channel, None), None);
    }

    #[test]
    fn whoever_comes_back_during_the_linger_keeps_the_subscription() {
        let mut topics = Topics::default();
        let id = topics.hold(&topic("a", None));
        topics.take_changes(9);
        topics.give_back(id.index, at(5));
        assert_eq!(topics.hold(&topic("a", None)), id);
        assert!(!topics.end_lingers(at(9)));
        assert_eq!(topics.take_changes(9), InterestChanges::default());
    }

    #[test]
    fn whoever_comes_between_the_lingers_end_and_the_unsubscribe_keeps_it_too() {
        let mut topics = Topics::default();
        let id = topics.hold(&topic("a", None));
        topics.take_changes(9);
        topics.give_back(id.index, at(5));
        assert!(topics.end_lingers(at(5)));
        topics.hold(&topic("a", None));
        assert_eq!(topics.take_changes(9), InterestChanges::default());
    }

    #[test]
    fn a_key_holds_its_channel_and_is_never_subscribed_itself() {
        let mut topics = Topics::default();
        let key = topics.hold(&topic("jobs", Some("42")));
        assert_eq!(names(&topics.take_changes(9).subscribe), ["jobs"]);
        assert!(!topics.all_applied(&[key]));
        topics.confirm(&[topic("jobs", None).channel]);
        assert!(topics.all_applied(&[key]));
        topics.give_back(key.index, at(5));
        assert_eq!(topics.find(&topic("jobs", None).channel, Some(&Key::parse("42").unwrap())), None);
        assert!(topics.end_lingers(at(5)));
        assert_eq!(names(&topics.take_changes(9).unsubscribe), ["jobs"]);
    }

    #[test]
    fn a_lost_broker_makes_everything_wanted_a_change_again() {
        let mut topics = Topics::default();
        topics.hold(&topic("a", None));
        let gone = topics.hold(&topic("b", None));
        topics.take_changes(9);
        topics.give_back(gone.index, at(5));
        topics.end_lingers(at(5));
        topics.reset();
        let changes = topics.take_changes(9);
        assert_eq!((names(&changes.subscribe), changes.unsubscribe.len()), (vec!["a"], 0));
    }

    #[test]
    fn an_unconfirmed_channel_owes_its_listeners_a_gap_once() {
        let mut topics = Topics::default();
        let id = topics.hold(&topic("a", None));
        topics.owe_gap(&[id]);
        assert!(topics.take_owed_gaps().is_empty(), "not before it is confirmed");
        assert!(topics.confirm(&[topic("a", None).channel]));
        assert_eq!(names(&topics.take_owed_gaps()), ["a"]);
        assert!(topics.take_owed_gaps().is_empty());
    }

    #[test]
    fn reused_numbers_differ_by_generation() {
        let mut topics = Topics::default();
        let first = topics.hold(&topic("a", Some("1")));
        topics.give_back(first.index, at(5));
        let second = topics.hold(&topic("b", Some("2")));
        let reused = [second, topics.find(&topic("b", None).channel, None).unwrap()];
        assert!(reused.iter().all(|id| *id != first));
    }
}
