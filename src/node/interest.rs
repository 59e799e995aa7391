//! Who listens to what on this node, and what the broker is asked for because of it.
//!
//! Shared by handshakes (which hold), shards (which give back) and the broker (which reconciles its subscriptions). The
//! table itself is in [`topics`](super::topics).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::topics::{Topic, Topics};
use crate::broker::{self, InterestChanges};
use crate::clock::Clock;
use crate::hub::TopicId;
use crate::protocol::channel::ChannelName;
use crate::protocol::event::Key;

/// How long a channel without listeners stays subscribed: longer than a page takes to reload, which would otherwise cost
/// an `UNSUBSCRIBE` and a `SUBSCRIBE`.
const LINGER: Duration = Duration::from_secs(5);

/// How many topics are looked at under one lock when the channels are ranked.
const AUDIENCE_PART: usize = 4096;

/// How often ended lingers are looked for.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// The node's interest in channels and keys.
pub struct Interest {
    topics: Mutex<Topics>,
    clock: Clock,
    changed: Notify,
    confirmed: Notify,
    gaps_owed: Notify,
    /// Somebody has waited for a confirmation in vain, and none has come since.
    unanswered: AtomicBool,
}

/// What one connection listens to; given back when dropped.
pub struct Listening {
    interest: Arc<Interest>,
    topics: Box<[TopicId]>,
}

impl Interest {
    /// Nobody listens to anything yet.
    pub fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            topics: Mutex::default(),
            clock,
            changed: Notify::new(),
            confirmed: Notify::new(),
            gaps_owed: Notify::new(),
            unanswered: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts listening; `topics` must not name one twice.
    pub(super) fn listen(self: &Arc<Self>, topics: &[Topic]) -> Listening {
        let mut table = self.lock();
        let ids = topics.iter().map(|topic| table.hold(topic)).collect();
        let changes = table.has_changes();
        drop(table);
        if changes {
            self.changed.notify_one();
        }
        Listening { interest: Arc::clone(self), topics: ids }
    }

    /// The numbers of a channel and of one key on it, as far as somebody listens.
    pub(super) fn find(
        &self,
        channel: &ChannelName,
        key: Option<&Key>,
    ) -> (Option<TopicId>, Option<TopicId>) {
        let table = self.lock();
        (table.find(channel, None), key.and_then(|key| table.find(channel, Some(key))))
    }

    /// The numbers of a channel and of every key on it, as far as somebody listens.
    pub(super) fn all_of(&self, channel: &ChannelName) -> Vec<TopicId> {
        self.lock().all_of(channel)
    }

    /// How many hear all of this channel; of `jobs` the node itself is one.
    pub(super) fn holders(&self, channel: &ChannelName) -> u32 {
        self.lock().holders(channel)
    }

    /// The names of topics, those of one key as `channel key`; topics that are gone are left out.
    pub(super) fn names(&self, topics: &[TopicId]) -> Vec<String> {
        let table = self.lock();
        topics.iter().filter_map(|topic| table.name(*topic)).collect()
    }

    /// How many streams hear each of `configured`, and the `top` other channels that most hear. What the node hears for
    /// itself, `own`, is no stream.
    pub(super) fn audience(
        &self,
        configured: &[ChannelName],
        top: usize,
        own: &Listening,
    ) -> Vec<(ChannelName, u64)> {
        let own = self.names(&own.topics);
        let is_own = |channel: &ChannelName| own.iter().any(|name| name == channel.as_str());
        let streams = |channel: &ChannelName, holders: u32| holders.saturating_sub(is_own(channel).into());
        let mut most: BTreeSet<(u32, ChannelName)> = BTreeSet::new();
        let mut from = 0;
        // A part at a time: deliveries wait for the lock, and there may be a hundred thousand channels.
        while let Some(held) = self.lock().held(from, AUDIENCE_PART) {
            from += AUDIENCE_PART;
            for (holders, channel) in held {
                let holders = streams(&channel, holders);
                let enters = most.len() < top || most.first().is_some_and(|(least, _)| holders > *least);
                if enters && !configured.contains(&channel) {
                    most.insert((holders, channel));
                    if most.len() > top {
                        most.pop_first();
                    }
                }
            }
        }
        let table = self.lock();
        let plain = configured.iter().map(|channel| (table.holders(channel), channel.clone()));
        let plain = plain.map(|(holders, channel)| (streams(&channel, holders), channel));
        let most = plain.chain(most.into_iter().rev().filter(|(holders, _)| *holders > 0));
        most.map(|(holders, channel)| (channel, holders.into())).collect()
    }

    /// Waits until gaps are owed, and takes the channels.
    pub(super) async fn take_owed_gaps(&self) -> Vec<ChannelName> {
        loop {
            let owed = self.gaps_owed.notified();
            let channels = self.lock().take_owed_gaps();
            if !channels.is_empty() {
                return channels;
            }
            owed.await;
        }
    }

    /// Ends lingers for as long as it is polled. Whether a channel is still unwanted is looked at under the lock.
    pub(super) async fn expire(self: Arc<Self>) {
        let mut timer = tokio::time::interval(EXPIRE_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            if self.lock().end_lingers(self.clock.now()) {
                self.changed.notify_one();
            }
        }
    }
}

impl Listening {
    /// The topics, in the order they were asked for.
    pub(super) fn topics(&self) -> &[TopicId] {
        &self.topics
    }

    /// Waits until the broker delivers all of it; `false` when it does not within `limit`. While the broker answers nobody
    /// only the first wave waits: the handshakes behind them would wait for their turn and then as long again.
    pub(super) async fn confirmed(&self, limit: Duration) -> bool {
        let unanswered = &self.interest.unanswered;
        let limit = if unanswered.load(Ordering::Relaxed) { Duration::ZERO } else { limit };
        let all = async {
            loop {
                let confirmed = self.interest.confirmed.notified();
                if self.interest.lock().all_applied(&self.topics) {
                    return;
                }
                confirmed.await;
            }
        };
        let all_confirmed = tokio::time::timeout(limit, all).await.is_ok();
        if !all_confirmed && !limit.is_zero() {
            unanswered.store(true, Ordering::Relaxed);
        }
        all_confirmed
    }

    /// The connection goes on although not everything is confirmed: the channels concerned are told a gap as soon as
    /// they are.
    pub(super) fn owe_gap(&self) {
        self.interest.lock().owe_gap(&self.topics);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let until = self.interest.clock.now().after(LINGER);
        let mut table = self.interest.lock();
        for topic in &self.topics {
            table.give_back(topic.index, until);
        }
    }
}

impl broker::Interest for Interest {
    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn take_changes(&self, max: usize) -> InterestChanges {
        self.lock().take_changes(max)
    }

    fn confirmed(&self, channels: &[ChannelName]) {
        self.unanswered.store(false, Ordering::Relaxed);
        if self.lock().confirm(channels) {
            self.gaps_owed.notify_one();
        }
        self.confirmed.notify_waiters();
    }

    fn reset(&self) {
        self.lock().reset();
        self.changed.notify_one();
    }

    fn for_each_wanted(&self, visit: &mut dyn FnMut(&ChannelName)) {
        self.lock().for_each_wanted(visit);
    }
}
