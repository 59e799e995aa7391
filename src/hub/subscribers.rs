//! Which slots of a shard hear which topic.

use slab::Slab;

use super::TopicId;

/// The subscribers of one topic on one shard. One subscriber, by far the most frequent case when every client has its
/// own channel, costs nothing beside its eight bytes here.
#[derive(Clone, Copy, Default)]
enum Slots {
    #[default]
    None,
    /// This slot. Which generation of the topic it hears is looked up with the connection.
    One(u32),
    /// A place in `crowds`.
    Many(u32),
}

struct Crowd {
    generation: u32,
    slots: Vec<u32>,
}

/// A table from topic to slots, by the topic's dense index.
///
/// A topic's number is used again only when nobody holds it any more, and a slot is taken out before its connection lets
/// go of its topics. So all slots of an entry hear one generation; only a broadcast may be late and of an earlier one.
#[derive(Default)]
pub(super) struct Subscribers {
    topics: Vec<Slots>,
    crowds: Slab<Crowd>,
}

impl Subscribers {
    /// Adds `slot` and returns its place in the topic's list.
    pub(super) fn add(&mut self, topic: TopicId, slot: u32) -> u32 {
        let index = topic.index as usize;
        if index >= self.topics.len() {
            self.topics.resize(index + 1, Slots::default());
        }
        match self.topics[index] {
            Slots::None => {
                self.topics[index] = Slots::One(slot);
                0
            }
            Slots::One(first) => {
                let crowd = Crowd { generation: topic.generation, slots: vec![first, slot] };
                self.topics[index] = Slots::Many(narrow(self.crowds.insert(crowd)));
                1
            }
            Slots::Many(crowd) => {
                let slots = &mut self.crowds[crowd as usize].slots;
                slots.push(slot);
                narrow(slots.len() - 1)
            }
        }
    }

    /// Removes the slot at `place`. The last of the list takes its place; its slot is returned so that the caller can
    /// tell it.
    pub(super) fn remove(&mut self, topic: TopicId, place: u32) -> Option<u32> {
        let entry = self.topics.get_mut(topic.index as usize)?;
        let Slots::Many(crowd) = *entry else {
            *entry = Slots::None;
            return None;
        };
        let slots = &mut self.crowds[crowd as usize].slots;
        slots.swap_remove(place as usize);
        let moved = slots.get(place as usize).copied();
        if slots.is_empty() {
            *entry = Slots::None;
            self.crowds.remove(crowd as usize);
        } else if slots.capacity() > 64 && slots.len() < slots.capacity() / 4 {
            slots.shrink_to(slots.len() * 2);
        }
        moved
    }

    /// The slots that hear `topic`; `hears` tells whether a connection hears this generation of it.
    pub(super) fn of(&self, topic: TopicId, hears: impl Fn(u32) -> bool) -> &[u32] {
        match self.topics.get(topic.index as usize) {
            Some(Slots::One(slot)) if hears(*slot) => std::slice::from_ref(slot),
            Some(Slots::Many(crowd)) => match self.crowds.get(*crowd as usize) {
                Some(crowd) if crowd.generation == topic.generation => &crowd.slots,
                _ => &[],
            },
            _ => &[],
        }
    }
}

/// Slots and places stay far below the number of open files.
fn narrow(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashMap};

    const fn topic(index: u32) -> TopicId {
        TopicId { index, generation: 1 }
    }

    #[test]
    fn an_entry_costs_eight_bytes() {
        assert_eq!(size_of::<Slots>(), 8);
    }

    #[test]
    fn a_late_broadcast_does_not_reach_the_subscribers_of_a_reused_number() {
        let mut table = Subscribers::default();
        let [old, new] = [1, 2].map(|generation| TopicId { index: 3, generation });
        table.add(new, 7);
        assert!(table.of(old, |_| false).is_empty());
        assert_eq!(table.of(new, |slot| slot == 7), [7]);
        table.add(new, 8);
        assert!(table.of(old, |_| true).is_empty());
        assert_eq!(table.of(new, |_| true), [7, 8]);
    }

    proptest! {
        /// Against a plain set, with the places kept as a connection keeps them.
        #[test]
        fn adding_and_removing_in_any_order_keeps_exactly_the_subscribers(steps in prop::collection::vec((0u32..4, 0u32..12), 0..200)) {
            let mut table = Subscribers::default();
            let mut places: HashMap<(u32, u32), u32> = HashMap::new();
            for (index, slot) in steps {
                if let Some(place) = places.remove(&(index, slot)) {
                    if let Some(moved) = table.remove(topic(index), place) {
                        places.insert((index, moved), place);
                    }
                } else {
                    places.insert((index, slot), table.add(topic(index), slot));
                }
                for index in 0..4 {
                    let expected: BTreeSet<u32> = places.keys().filter(|k| k.0 == index).map(|k| k.1).collect();
                    let found: BTreeSet<u32> = table.of(topic(index), |_| true).iter().copied().collect();
                    prop_assert_eq!(table.of(topic(index), |_| true).len(), found.len());
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
