//! Reads the histories of many channels in the order of their positions, a bounded page at a time.
//!
//! A page is a range of positions, so what comes later in time comes later in pages, whatever channel it is of. Redis
//! ends it where it is full.

use super::scripts::{ReadAnswer, Scripts};
use crate::broker::replay;
use crate::protocol::channel::ChannelName;
use crate::protocol::durable::Frame;
use crate::protocol::event::Delivery;
use crate::redis::{CommandError, Commands, Invoke as _};

/// How many bytes of events a page holds at most: it stands in Redis' output buffer and in ours at the same time, and
/// must cross a slow link within the response time-out.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How many channels one script call reads; more are several calls, so that Redis does not stop for them.
const CHANNELS: usize = 512;

/// What is wanted and how far it has been read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    commands: &'a Commands,
    scripts: &'a Scripts,
    max_bytes: usize,
    /// Each channel with the number after which it is wanted.
    channels: Vec<(ChannelName, u64)>,
    /// Up to here it has been read.
    low: u64,
    /// Where it ends: at the clock of the first answer, when that is not said before.
    end: Option<u64>,
    done: bool,
}

/// A part of the histories.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The epoch in which it was read.
    pub(super) epoch: u64,
    /// Everything up to here has been read.
    pub(super) up_to: u64,
    /// Up to here events may be missing without a trace.
    pub(super) lost: u64,
    /// The server that this data was last settled on.
    pub(super) server: String,
    /// For each channel, in the order in which they were asked for, the number after which this page is all that
    /// there was; what was cut off from a channel after it had been read is not missing.
    pub(super) floors: Vec<u64>,
    /// The events in the order of their positions.
    pub(super) events: Vec<(u64, Delivery)>,
    /// How many could not be read.
    pub(super) unreadable: u64,
}

impl<'a> Reader<'a> {
    /// Reads `channels`, each after its number, up to `end` or the present.
    pub(super) fn new(
        commands: &'a Commands,
        scripts: &'a Scripts,
        max_bytes: usize,
        channels: Vec<(ChannelName, u64)>,
        end: Option<u64>,
    ) -> Self {
        let low = channels.iter().map(|(_, after)| *after).min().unwrap_or(0);
        Self { commands, scripts, max_bytes, channels, low, end, done: false }
    }

    /// The next page; `None` after the last. There is at least one.
    ///
    /// # Errors
    /// When Redis does not answer, or has begun a new epoch since the page began.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, CommandError> {
        if self.done {
            return Ok(None);
        }
        let (mut page, mut end) = (Page::default(), self.end);
        let mut top = end;
        for chunk in self.chunks() {
            let from = chunk.iter().map(|(channel, after)| (channel, (*after).max(self.low)));
            let call = self.scripts.read(from, top, PAGE_BYTES.saturating_sub(page.bytes()));
            let answer: ReadAnswer = self.commands.invoke(&call).await?;
            if page.epoch != 0 && page.epoch != answer.0 {
                return Err(CommandError::Unavailable("Redis lost its data while it was read".into()));
            }
            // The first answer is one moment for all its channels; the others are read up to that moment.
            if *end.get_or_insert(answer.1) > answer.1 {
                return Err(CommandError::Unavailable("commands reach a Redis that is behind".into()));
            }
            page.add(chunk, self.low, answer, self.max_bytes);
            top = Some(page.up_to);
        }
        page.events.sort_unstable_by_key(|(n, _)| *n);
        (self.low, self.end, self.done) = (page.up_to, end, end <= Some(page.up_to));
        Ok(Some(page))
    }

    /// The channels in parts; one empty part when there are none, because the clock is asked for all the same.
    fn chunks(&self) -> Vec<&[(ChannelName, u64)]> {
        if self.channels.is_empty() { vec![&[]] } else { self.channels.chunks(CHANNELS).collect() }
    }
}

impl Page {
    /// Adds what was found of some channels. Where that ends earlier than what was read of others, those are cut.
    fn add(&mut self, chunk: &[(ChannelName, u64)], low: u64, answer: ReadAnswer, max_bytes: usize) {
        let (epoch, _, lost, server, up_to, found) = answer;
        (self.epoch, self.lost, self.server, self.up_to) = (epoch, lost, server, up_to);
        self.events.retain(|(n, _)| *n <= up_to);
        for ((channel, _), (floor, frames)) in chunk.iter().zip(found) {
            self.floors.push(if floor > low { floor } else { 0 });
            for frame in frames {
                match decode(channel, &frame, max_bytes) {
                    Some(event) => self.events.push(event),
                    None => self.unreadable += 1,
                }
            }
        }
    }

    /// What the events take, roughly.
    fn bytes(&self) -> usize {
        self.events.iter().map(|(_, delivery)| replay::cost(delivery)).sum()
    }
}

fn decode(channel: &ChannelName, frame: &[u8], max_bytes: usize) -> Option<(u64, Delivery)> {
    let frame = Frame::parse(frame).ok()?;
    let event = frame.event(channel, max_bytes).ok()?;
    let delivery = Delivery { channel: channel.clone(), event, position: Some(frame.position) };
    Some((frame.position.n, delivery))
}
