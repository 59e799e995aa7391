//! From the broker to the hub: each event is encoded once, here.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{Instrument as _, Span};

use super::interest::Interest;
use super::job_stream::View;
use super::passed::Passed;
use super::spans;
use super::tally::Tally;
use crate::broker::Notice;
use crate::clock::Clock;
use crate::hub::{Born, Broadcast, Hub, TopicId};
use crate::jobs::Backlog;
use crate::protocol::channel::{ChannelName, JOBS};
use crate::protocol::close::GapReason;
use crate::protocol::control;
use crate::protocol::event::Delivery;
use crate::protocol::position::Position;
use crate::protocol::sse::Block;

/// Takes what the broker yields and broadcasts it.
pub(super) struct Pump {
    hub: Arc<Hub>,
    interest: Arc<Interest>,
    tally: Arc<Tally>,
    passed: Arc<Passed>,
    tracing: Tracing,
    peers: mpsc::Sender<Vec<u8>>,
    jobs: Arc<Backlog>,
}

/// What the spans of events need.
pub(super) struct Tracing {
    pub(super) clock: Clock,
    /// They point at the publisher's span and are not its children.
    pub(super) link: bool,
}

impl Pump {
    pub(super) fn new(
        hub: Arc<Hub>,
        interest: Arc<Interest>,
        tally: Arc<Tally>,
        passed: Arc<Passed>,
        tracing: Tracing,
        peers: mpsc::Sender<Vec<u8>>,
        jobs: Arc<Backlog>,
    ) -> Self {
        Self { hub, interest, tally, passed, tracing, peers, jobs }
    }

    /// Runs until the broker ends.
    pub(super) async fn run(self, mut notices: mpsc::Receiver<Notice>) {
        loop {
            tokio::select! {
                notice = notices.recv() => match notice {
                    Some(Notice::Event(delivery)) => {
                        let span = self.span(&delivery);
                        self.event(delivery).instrument(span).await;
                    }
                    Some(Notice::Passed(position)) => self.passed.note(position),
                    Some(Notice::Gap { channels, reason }) => self.interrupted(&channels, reason).await,
                    // Full means that more is asked than can be answered; events do not wait for that.
                    Some(Notice::Peer(words)) => drop(self.peers.try_send(words)),
                    None => return,
                },
                channels = self.interest.take_owed_gaps() => {
                    self.gap(&channels, GapReason::BrokerInterrupted).await;
                }
            }
        }
    }

    fn span(&self, delivery: &Delivery) -> Span {
        let itself = u32::from(delivery.channel.as_str() == JOBS);
        let subscribers = || self.interest.holders(&delivery.channel).saturating_sub(itself);
        spans::process(delivery, subscribers, || self.tracing.clock.unix_millis(), self.tracing.link)
    }

    async fn event(&self, delivery: Delivery) {
        let of_jobs = delivery.channel.as_str() == JOBS;
        if of_jobs {
            // Before anybody is looked for: a stream of one job that is not found yet finds its end there.
            self.jobs.push(delivery.clone());
        }
        let key = delivery.event.key.as_ref().filter(|_| of_jobs);
        let (whole, keyed) = self.interest.find(&delivery.channel, key);
        let n = delivery.position.map_or(0, |position| position.n);
        let born = Some(self.born(delivery.position));
        if whole.is_some() || keyed.is_some() {
            self.tally.received(delivery.event.data.len());
        }
        if let Some(topic) = whole {
            self.tally.broadcast(&delivery.channel);
            let block = Block::event(&delivery.event, delivery.position);
            self.hub.broadcast(Broadcast { topic, block, n, last: false, born }).await;
        }
        if let Some(topic) = keyed {
            let View { block, last } = View::of(&delivery.event, delivery.position);
            self.hub.broadcast(Broadcast { topic, block, n, last, born }).await;
        }
        if let Some(position) = delivery.position {
            self.passed.note(position);
        }
    }

    /// Since when the event is on its way. A position says it by Redis' clock, in milliseconds.
    fn born(&self, position: Option<Position>) -> Born {
        let clock = &self.tracing.clock;
        let now = clock.micros();
        let Some(position) = position else { return Born::Arrived(now) };
        let age_ms = clock.unix_millis().saturating_sub(position.unix_millis());
        Born::Published(now.saturating_sub(age_ms.saturating_mul(1000)))
    }

    async fn interrupted(&self, channels: &[ChannelName], reason: GapReason) {
        if channels.iter().any(|channel| channel.as_str() == JOBS) {
            self.jobs.interrupted();
        }
        self.gap(channels, reason).await;
    }

    async fn gap(&self, channels: &[ChannelName], reason: GapReason) {
        for channel in channels {
            // Only jobs have streams of one key; looking for them takes a look at the whole table.
            let topics = if channel.as_str() == JOBS {
                self.interest.all_of(channel)
            } else {
                self.interest.find(channel, None).0.into_iter().collect()
            };
            self.tally.gap(reason);
            for topic in topics {
                self.tell(topic, control::gap(channel, reason)).await;
            }
        }
    }

    async fn tell(&self, topic: TopicId, block: Block) {
        self.hub.broadcast(Broadcast { topic, block, n: 0, last: false, born: None }).await;
    }
}
