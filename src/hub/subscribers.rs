//! Which slots of a shard hear which topic.

use super::TopicId;

/// The subscribers of one topic on one shard. One subscriber, by far the most frequent case when every client has its
/// own channel, costs no allocation.
#[derive(Default)]
enum Slots {
    #[default]
    None,
    One {
        generation: u32,
        slot: u32,
    },
    Many {
        generation: u32,
        #[expect(clippy::box_collection, reason = "keeps the usual entry at 16 bytes")]
        slots: Box<Vec<u32>>,
    },
}

/// A table from topic to slots, by the topic's dense index.
#[derive(Default)]
pub(super) struct Subscribers {
    topics: Vec<Slots>,
}

impl Subscribers {
    /// Adds `slot` and returns its place in the topic's list.
    pub(super) fn add(&mut self, topic: TopicId, slot: u32) -> u32 {
        let index = topic.index as usize;
        if index >= self.topics.len() {
            self.topics.resize_with(index + 1, Slots::default);
        }
        let entry = &mut self.topics[index];
        match entry {
            Slots::One { generation, slot: first } if *generation == topic.generation => {
                let slots = Box::new(vec![*first, slot]);
                *entry = Slots::Many { generation: topic.generation, slots };
                1
            }
            Slots::Many { generation, slots } if *generation == topic.generation => {
                slots.push(slot);
                u32::try_from(slots.len() - 1).unwrap_or(u32::MAX)
            }
            // Nobody yet, or the table of a topic that had this index before: its subscribers are gone.
            _ => {
                *entry = Slots::One { generation: topic.generation, slot };
                0
            }
        }
    }

    /// Removes the slot at `place`. The last of the list takes its place; its slot is returned so that the caller can
    /// tell it.
    pub(super) fn remove(&mut self, topic: TopicId, place: u32) -> Option<u32> {
        let entry = self.topics.get_mut(topic.index as usize)?;
        match entry {
            Slots::One { generation, .. } if *generation == topic.generation => {
                *entry = Slots::None;
                None
            }
            Slots::Many { generation, slots } if *generation == topic.generation => {
                slots.swap_remove(place as usize);
                let moved = slots.get(place as usize).copied();
                if slots.is_empty() {
                    *entry = Slots::None;
                } else if slots.capacity() > 64 && slots.len() < slots.capacity() / 4 {
                    slots.shrink_to(slots.len() * 2);
                }
                moved
            }
            _ => None,
        }
    }

    /// The slots that hear `topic`.
    pub(super) fn of(&self, topic: TopicId) -> &[u32] {
        match self.topics.get(topic.index as usize) {
            Some(Slots::One { generation, slot }) if *generation == topic.generation => {
                std::slice::from_ref(slot)
            }
            Some(Slots::Many { generation, slots }) if *generation == topic.generation => slots,
            _ => &[],
        }
    }
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
    fn an_entry_costs_sixteen_bytes() {
        assert_eq!(size_of::<Slots>(), 16);
    }

    #[test]
    fn a_reused_index_does_not_reach_the_subscribers_of_its_predecessor() {
        let mut table = Subscribers::default();
        table.add(TopicId { index: 3, generation: 1 }, 7);
        let reused = TopicId { index: 3, generation: 2 };
        assert!(table.of(reused).is_empty());
        table.add(reused, 8);
        assert_eq!(table.of(reused), [8]);
        assert!(table.of(TopicId { index: 3, generation: 1 }).is_empty());
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
                    let found: BTreeSet<u32> = table.of(topic(index)).iter().copied().collect();
                    prop_assert_eq!(table.of(topic(index)).len(), found.len());
                    prop_assert_eq!(found, expected);
                }
            }
        }
    }
}
