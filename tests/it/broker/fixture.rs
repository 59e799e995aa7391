//! A broker, a node's interest in channels, and what it heard.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fanlight::broker::{
    self, Acknowledgement, Broker, Config, History, HistoryRequest, Interest, InterestChanges, Notice,
    Publication,
};
use fanlight::clock::Clock;
use fanlight::protocol::channel::ChannelName;
use fanlight::protocol::close::GapReason;
use fanlight::protocol::event::{Delivery, Event};
use fanlight::protocol::position::Position;
use fanlight::redis::{Commands, Config as RedisConfig};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use crate::support::{RedisServer, eventually, secs};

/// Long enough for anything that comes at all.
const LONG: Duration = secs(20);

/// What a node wants, as the node's own interest does it, but without linger.
#[derive(Default)]
pub(crate) struct Wants {
    state: Mutex<WantsState>,
    changed: Notify,
}

#[derive(Default)]
struct WantsState {
    wanted: BTreeSet<ChannelName>,
    /// Wanted and not handed out yet.
    to_subscribe: BTreeSet<ChannelName>,
    /// Handed out and not wanted any more.
    to_unsubscribe: BTreeSet<ChannelName>,
    confirmed: HashSet<ChannelName>,
}

impl Wants {
    pub(crate) fn add(&self, channels: impl IntoIterator<Item = ChannelName>) {
        let mut state = self.state.lock().unwrap();
        for channel in channels {
            if state.wanted.insert(channel.clone()) && !state.to_unsubscribe.remove(&channel) {
                state.to_subscribe.insert(channel);
            }
        }
        self.changed.notify_one();
    }

    pub(crate) fn remove(&self, channel: &ChannelName) {
        let mut state = self.state.lock().unwrap();
        if state.wanted.remove(channel) && !state.to_subscribe.remove(channel) {
            state.to_unsubscribe.insert(channel.clone());
        }
        self.changed.notify_one();
    }

    pub(crate) fn unconfirmed(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.wanted.len() - state.confirmed.len()
    }
}

impl Interest for Wants {
    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn take_changes(&self, max: usize) -> InterestChanges {
        let mut state = self.state.lock().unwrap();
        let subscribe: Vec<_> = std::iter::from_fn(|| state.to_subscribe.pop_first()).take(max).collect();
        let left = max - subscribe.len();
        let unsubscribe: Vec<_> =
            std::iter::from_fn(|| state.to_unsubscribe.pop_first()).take(left).collect();
        for channel in &unsubscribe {
            state.confirmed.remove(channel);
        }
        InterestChanges { subscribe, unsubscribe }
    }

    fn confirmed(&self, channels: &[ChannelName]) {
        let mut state = self.state.lock().unwrap();
        for channel in channels {
            assert!(!state.to_subscribe.contains(channel), "{channel} was confirmed and never handed out");
            if state.wanted.contains(channel) {
                state.confirmed.insert(channel.clone());
            }
        }
    }

    fn reset(&self) {
        let mut state = self.state.lock().unwrap();
        state.to_subscribe = state.wanted.clone();
        state.to_unsubscribe.clear();
        state.confirmed.clear();
    }

    fn for_each_wanted(&self, visit: &mut dyn FnMut(&ChannelName)) {
        self.state.lock().unwrap().wanted.iter().for_each(visit);
    }
}

/// A node's broker.
pub(crate) struct Fixture {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) wants: Arc<Wants>,
    notices: mpsc::Receiver<Notice>,
    last: Option<Position>,
    /// Ends the broker's task when it is dropped.
    pub(crate) owner: Option<broker::redis::Owner>,
}

impl Fixture {
    pub(crate) fn memory(config: Config) -> Self {
        let wants = Arc::new(Wants::default());
        let (broker, notices) = broker::memory::start(config, Clock::system(), wants.clone());
        Self { broker, wants, notices, last: None, owner: None }
    }

    pub(crate) fn redis(server: &RedisServer, config: Config) -> Self {
        Self::redis_at(&server.url(), server.prefix(), config)
    }

    pub(crate) fn redis_at(url: &str, prefix: &str, config: Config) -> Self {
        let commands = Commands::new(RedisConfig::new(url, prefix).unwrap()).unwrap();
        let wants = Arc::new(Wants::default());
        let (broker, notices, owner) = broker::redis::start(config, commands, Clock::system(), wants.clone());
        Self { broker, wants, notices, last: None, owner: Some(owner) }
    }

    /// Wants these channels and waits until they are subscribed.
    pub(crate) async fn subscribe(&self, names: &[&str]) {
        self.wants.add(names.iter().map(|name| channel(name)));
        self.confirmed().await;
    }

    /// Waits until everything wanted is subscribed.
    pub(crate) async fn confirmed(&self) {
        eventually("everything is subscribed", LONG, async || match self.wants.unconfirmed() {
            0 if self.broker.status().borrow().subscribed => Ok(()),
            left => Err(format!("{left} to go; {:?}", self.broker.status().borrow().clone())),
        })
        .await;
    }

    /// Publishes one event and returns its position.
    pub(crate) async fn publish(&self, name: &str, data: &str) -> Position {
        self.publish_all(&[publication(name, data)]).await[0]
    }

    /// Publishes events and returns their positions.
    pub(crate) async fn publish_all(&self, batch: &[Publication]) -> Vec<Position> {
        positions(self.broker.publish(batch).await.unwrap())
    }

    /// The next notice; positions must not go back.
    pub(crate) async fn next(&mut self) -> Notice {
        let notice = loop {
            match timeout(LONG, self.notices.recv()).await.expect("no notice came").unwrap() {
                Notice::Passed(position) => self.passed(position),
                notice => break notice,
            }
        };
        if let Notice::Event(Delivery { position: Some(position), .. }) = &notice {
            assert!(Some(*position) > self.last, "{position} came after {:?}", self.last);
            self.last = Some(*position);
        }
        notice
    }

    /// What is said to have passed has come, and nothing of before comes later.
    fn passed(&mut self, position: Position) {
        self.last = self.last.max(Some(position));
    }

    /// The next notice, which must be an event.
    pub(crate) async fn event(&mut self) -> Delivery {
        match self.next().await {
            Notice::Event(delivery) => delivery,
            other => panic!("expected an event, found {other:?}"),
        }
    }

    /// The next notice, which must be a gap; the names of its channels.
    pub(crate) async fn gap(&mut self) -> (Vec<String>, GapReason) {
        match self.next().await {
            Notice::Gap { channels, reason } => {
                let mut names: Vec<String> = channels.iter().map(ToString::to_string).collect();
                names.sort();
                (names, reason)
            }
            other => panic!("expected a gap, found {other:?}"),
        }
    }

    /// The gap that comes beside the event with this position, whichever is first.
    pub(crate) async fn gap_after(&mut self, position: Position) -> (Vec<String>, GapReason) {
        match self.next().await {
            Notice::Event(delivery) => {
                assert_eq!(delivery.position, Some(position));
                self.gap().await
            }
            Notice::Gap { channels, reason } => {
                assert_eq!(self.event().await.position, Some(position));
                (channels.iter().map(ToString::to_string).collect(), reason)
            }
            other => panic!("expected an event or a gap, found {other:?}"),
        }
    }

    /// What has come and was not asked for yet.
    pub(crate) fn pending(&mut self) -> Vec<Notice> {
        let notices = std::iter::from_fn(|| self.notices.try_recv().ok());
        notices.filter(|notice| !matches!(notice, Notice::Passed(_))).collect()
    }

    /// Publishes to `name`, which must be subscribed, and collects everything up to that.
    pub(crate) async fn drain(&mut self, name: &str) -> Vec<Notice> {
        let end = self.publish(name, "the end").await;
        let mut found = Vec::new();
        loop {
            match self.next().await {
                Notice::Event(delivery) if delivery.position == Some(end) => return found,
                notice => found.push(notice),
            }
        }
    }

    pub(crate) async fn history(&self, requests: &[(&str, Position)]) -> History {
        let requests: Vec<HistoryRequest> = requests
            .iter()
            .map(|(name, after)| HistoryRequest { channel: channel(name), after: *after })
            .collect();
        self.broker.history(&requests).await.unwrap()
    }

    /// What one channel had after a position, and its gap.
    pub(crate) async fn since(&self, name: &str, after: Position) -> (Vec<String>, Option<GapReason>) {
        let history = self.history(&[(name, after)]).await;
        let gap = history.gap(&channel(name), after);
        (history.events.into_iter().map(|delivery| delivery.event.data).collect(), gap)
    }
}

pub(crate) fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).unwrap()
}

pub(crate) fn publication(name: &str, data: &str) -> Publication {
    Publication { channel: channel(name), event: Event::unnamed(data), idempotency_key: None }
}

/// What the publisher is answered.
pub(crate) fn positions(acknowledged: Vec<Acknowledgement>) -> Vec<Position> {
    acknowledged.into_iter().map(Acknowledgement::position).collect()
}

/// Channel and data of the events among notices.
pub(crate) fn events(notices: &[Notice]) -> Vec<(String, String)> {
    let event = |notice: &Notice| match notice {
        Notice::Event(delivery) => Some((delivery.channel.to_string(), delivery.event.data.clone())),
        Notice::Gap { .. } | Notice::Passed(_) | Notice::Peer(_) => None,
    };
    notices.iter().filter_map(event).collect()
}
