//! From a broadcast to the queues of its subscribers.

use std::rc::Rc;

use slab::Slab;

use super::Shard;
use crate::hub::connection::{Cause, Connection, Phase};
use crate::hub::{Broadcast, Config, TopicId};
use crate::protocol::close::CloseReason;
use crate::protocol::sse::Block;

impl Shard {
    /// Appends a run of broadcasts to one topic to its subscribers' queues.
    pub(super) fn broadcast(&mut self, run: &mut Vec<Broadcast>) {
        let Some(first) = run.first() else { return };
        let (topic, last) = (first.topic, run.last().is_some_and(|b| b.last));
        self.counters.broadcasts += run.len() as u64;
        let single: Vec<(u64, Rc<Block>)> = if run.len() == 1 {
            vec![]
        } else {
            run.iter().map(|b| (b.n, Rc::new(b.block.clone()))).collect()
        };
        let merged = Rc::new(merge(run));
        let numbers = run.iter().map(|b| b.n).filter(|n| *n != 0);
        let (lowest, highest) = (numbers.clone().min().unwrap_or(0), numbers.max().unwrap_or(0));
        let mut full = Vec::new();
        let connections = &self.connections;
        let slots = self.subscribers.of(topic, |slot| hears(connections, slot, topic));
        for slot in slots {
            let Some(connection) = self.connections.get_mut(*slot as usize) else { continue };
            // A connection whose replay reaches into the run takes its blocks one by one.
            let whole = single.is_empty()
                || (matches!(connection.phase, Phase::Live)
                    && (lowest == 0 || lowest > connection.replayed_to));
            let taken = if whole {
                connection.offer(highest, &merged)
            } else {
                single.iter().all(|(n, block)| connection.offer(*n, block))
            };
            if merged.events() > 0 {
                connection.last_event = self.now;
            }
            if !connection.dirty && !connection.blocked && !connection.is_catching_up() {
                connection.dirty = true;
                self.dirty.push_back(*slot);
            }
            if !taken || connection.is_over(self.config.buffer_events, self.config.buffer_bytes) {
                full.push(*slot);
            }
        }
        if !slots.is_empty() {
            // Whoever hears it stands among those to be flushed, here or further ahead, unless its socket is full.
            let turns = self.flushed + self.dirty.len() as u64;
            run.iter().filter_map(|b| b.born).for_each(|born| self.on_the_way.begin(born, turns));
        }
        run.clear();
        self.settle(topic, &full, last);
    }

    /// After a broadcast: connections over their limit get one chance to write before they are judged.
    pub(super) fn settle(&mut self, topic: TopicId, full: &[u32], last: bool) {
        for slot in full {
            if self.connections.get(*slot as usize).is_some_and(|c| !c.blocked) {
                self.flush(*slot);
            }
            self.judge(*slot);
        }
        if last {
            let connections = &self.connections;
            for slot in self.subscribers.of(topic, |slot| hears(connections, slot, topic)).to_vec() {
                let later = self.connections.get_mut(slot as usize).is_some_and(Connection::completes_later);
                if !later {
                    self.finish(slot, Cause::Complete, None, true);
                }
            }
        }
    }

    /// Ends a connection whose queue is over its limits after it was flushed.
    pub(super) fn judge(&mut self, slot: u32) {
        let Config { buffer_events, buffer_bytes, .. } = self.config;
        if self.connections.get(slot as usize).is_some_and(|c| c.is_over(buffer_events, buffer_bytes)) {
            self.end(slot, CloseReason::SlowConsumer);
        }
    }
}

fn hears(connections: &Slab<Connection>, slot: u32, topic: TopicId) -> bool {
    connections.get(slot as usize).is_some_and(|c| c.membership.topics().contains(&topic))
}

fn merge(run: &[Broadcast]) -> Block {
    match run {
        [one] => one.block.clone(),
        many => Block::merge(&many.iter().map(|b| b.block.clone()).collect::<Vec<_>>()),
    }
}
