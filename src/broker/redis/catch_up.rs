//! Fills what was missed from history, and finds out what cannot be filled.

use tokio::sync::mpsc;

use super::course::Course;
use super::reader::{Page, Reader};
use super::scripts::{NewsAnswer, Scripts};
use crate::broker::Notice;
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::redis::{Commands, Invoke as _, Subscriber};

/// How many channels one script call asks about.
const CHANNELS: usize = 512;

/// Why a connection ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It cannot be used any more; for people.
    Broken(String),
    /// Nobody takes the notices.
    NodeGone,
}

impl<E: ToString> From<E> for End {
    fn from(error: E) -> Self {
        Self::Broken(error.to_string())
    }
}

/// What a round of catching up came to.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// How many events were yielded.
    pub(super) events: usize,
    /// Channels that have had no durable event, as far as Redis remembers.
    pub(super) without_history: Vec<ChannelName>,
    /// Redis does not remember back to where the round began.
    pub(super) forgotten: bool,
    /// Events that could not be read.
    pub(super) unreadable: u64,
}

/// Where to read and where to yield.
#[derive(Clone, Copy, Debug)]
pub(super) struct CatchUp<'a> {
    pub(super) subscriber: &'a Subscriber,
    /// For what is large: the subscriber's connection is cut when more waits to be sent than Redis allows subscribers.
    pub(super) commands: &'a Commands,
    pub(super) scripts: &'a Scripts,
    pub(super) notices: &'a mpsc::Sender<Notice>,
    pub(super) max_bytes: usize,
}

impl CatchUp<'_> {
    /// Yields everything that `channels` had since `course`, up to the present of this call, in the order of
    /// positions, and moves `course` there. The present is asked for over the subscriber's connection, where it is
    /// that of the messages.
    pub(super) async fn round(&self, course: &mut Course, channels: &[ChannelName]) -> Result<Round, End> {
        let mut round = Round::default();
        let (mut news, mut end) = (Vec::new(), None);
        for chunk in parts(channels) {
            let (epoch, n, floor, _, last): NewsAnswer =
                self.subscriber.invoke(&self.scripts.news(chunk)).await?;
            if epoch != course.at.epoch {
                return Err(End::Broken("Redis lost its data".into()));
            }
            // The first answer is the present: what comes later on any of the channels arrives as a message.
            end.get_or_insert(n);
            round.forgotten |= course.at.n < floor;
            for (channel, last) in chunk.iter().zip(last) {
                if last == 0 {
                    round.without_history.push(channel.clone());
                } else if last > course.at.n {
                    news.push(channel.clone());
                }
            }
        }
        if !news.is_empty() {
            let from = news.iter().map(|channel| (channel.clone(), course.at.n)).collect();
            let mut reader = Reader::new(self.commands, self.scripts, self.max_bytes, from, end);
            while let Some(page) = reader.next().await? {
                self.hand_over(course, &news, page, &mut round).await?;
            }
        }
        course.reach(end.unwrap_or(0));
        Ok(round)
    }

    /// Yields a page of the histories of `news`.
    async fn hand_over(
        &self,
        course: &mut Course,
        news: &[ChannelName],
        page: Page,
        round: &mut Round,
    ) -> Result<(), End> {
        if page.epoch != course.at.epoch {
            return Err(End::Broken("Redis lost its data".into()));
        }
        // After a flush nobody may have settled yet.
        if !page.server.is_empty() && page.server != course.server {
            return Err(End::Broken("commands reach another Redis than the subscription".into()));
        }
        let trimmed = news.iter().zip(&page.floors).filter(|(_, floor)| **floor > course.at.n);
        let trimmed = trimmed.map(|(channel, _)| channel.clone()).collect();
        self.tell(trimmed, GapReason::HistoryTrimmed).await?;
        round.unreadable += page.unreadable;
        for (n, delivery) in page.events {
            // In this order: who is cancelled while he waits has not yielded it.
            let channel = delivery.channel.clone();
            self.yield_one(Notice::Event(delivery)).await?;
            course.pass(&channel, n);
            round.events += 1;
        }
        course.reach(page.up_to);
        Ok(())
    }

    /// Tells that events of these channels may be missing.
    pub(super) async fn tell(&self, channels: Vec<ChannelName>, reason: GapReason) -> Result<(), End> {
        if channels.is_empty() {
            return Ok(());
        }
        tracing::warn!(channels = channels.len(), reason = reason.name(), "events may be missing");
        self.yield_one(Notice::Gap { channels, reason }).await
    }

    /// Hands a notice to the node, and waits while it does not take any.
    pub(super) async fn yield_one(&self, notice: Notice) -> Result<(), End> {
        self.notices.send(notice).await.map_err(|_| End::NodeGone)
    }
}

fn parts(channels: &[ChannelName]) -> Vec<&[ChannelName]> {
    if channels.is_empty() { vec![&[]] } else { channels.chunks(CHANNELS).collect() }
}
