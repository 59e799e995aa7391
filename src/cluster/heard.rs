//! Counting broadcasts once, although every node hears them.
//!
//! An event reaches all nodes that have a subscriber of its channel, and nothing in it says which of them should count it. For the
//! configured channels Redis therefore remembers who has counted last, and when. A node whose news are all older than that leaves them
//! to the other one, which hears the same events; when nobody else has counted since its first news, it counts them, and is the one
//! who counts from then on. So an event is never counted twice. Events that one node leaves to another that dies at that moment are
//! not counted: that is at most what the dead one heard in its last second.
//!
//! Channels of families are as a rule heard by one node, and are counted by each that hears them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Tick};
use crate::protocol::channel::ChannelName;

/// What this node has heard on the configured channels.
#[derive(Debug)]
pub struct Heard {
    clock: Clock,
    lines: Mutex<HashMap<ChannelName, Line>>,
}

/// One channel.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    /// Events ever.
    heard: u64,
    /// How many of them were told in a heartbeat that was answered.
    told: u64,
    /// When the first of the others came.
    since: Option<Tick>,
}

/// What a heartbeat tells of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) channel: ChannelName,
    pub(super) heard: u64,
    pub(super) told: u64,
    /// How long ago the first event came that is not told yet.
    pub(super) age: Duration,
    since: Tick,
}

impl Heard {
    /// Nothing was heard yet on these channels.
    pub fn new(channels: impl IntoIterator<Item = ChannelName>, clock: Clock) -> Self {
        let lines = channels.into_iter().map(|channel| (channel, Line::default())).collect();
        Self { clock, lines: Mutex::new(lines) }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<ChannelName, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An event was heard. `false` when the channel is not one of those that are counted here.
    pub fn note(&self, channel: &ChannelName) -> bool {
        let now = self.clock.now();
        let mut lines = self.lines();
        let Some(line) = lines.get_mut(channel) else { return false };
        line.heard += 1;
        line.since.get_or_insert(now);
        true
    }

    /// Events ever heard on all of these channels.
    pub(super) fn total(&self) -> u64 {
        self.lines().values().map(|line| line.heard).sum()
    }

    /// Takes what is to be told.
    pub(super) fn untold(&self) -> Untold<'_> {
        let now = self.clock.now();
        let news = |(channel, line): (&ChannelName, &mut Line)| {
            let since = line.since.take()?;
            let (heard, told, age) = (line.heard, line.told, now.since(since));
            Some(News { channel: channel.clone(), heard, told, age, since })
        };
        Untold { news: self.lines().iter_mut().filter_map(news).collect(), heard: self }
    }
}

/// News on their way. Dropped before they are [`told`](Self::told) they are news again.
#[derive(Debug)]
pub(super) struct Untold<'a> {
    heard: &'a Heard,
    pub(super) news: Vec<News>,
}

impl Untold<'_> {
    /// They have arrived.
    pub(super) fn told(mut self) {
        let mut lines = self.heard.lines();
        for news in self.news.drain(..) {
            if let Some(line) = lines.get_mut(&news.channel) {
                line.told = news.heard;
            }
        }
    }
}

impl Drop for Untold<'_> {
    fn drop(&mut self) {
        let mut lines = self.heard.lines();
        for news in &self.news {
            if let Some(line) = lines.get_mut(&news.channel) {
                line.since = Some(news.since);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_told_once_and_again_when_they_did_not_arrive() {
        let (clock, jobs) = (Clock::held(), ChannelName::parse("jobs").unwrap());
        let heard = Heard::new([jobs.clone()], clock.clone());
        assert!(!heard.note(&ChannelName::parse("other").unwrap()));
        assert!(heard.untold().news.is_empty());
        assert!(heard.note(&jobs) && heard.note(&jobs));
        clock.advance(Duration::from_secs(1));
        let lost = heard.untold();
        assert_eq!((lost.news[0].heard, lost.news[0].told, lost.news[0].age), (2, 0, Duration::from_secs(1)));
        heard.note(&jobs);
        drop(lost);
        clock.advance(Duration::from_secs(1));
        let again = heard.untold();
        assert_eq!(
            (again.news[0].heard, again.news[0].told, again.news[0].age),
            (3, 0, Duration::from_secs(2))
        );
        heard.note(&jobs);
        again.told();
        assert_eq!((heard.untold().news[0].told, heard.total()), (3, 4));
    }
}
