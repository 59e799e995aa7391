//! Reads the histories of many channels in the order of their positions, a bounded page at a time.
//!
//! A page is a range of positions, so what comes later in time comes later in pages, whatever channel it is of. When
//! a range holds too much it is halved and asked for again; when it held little the next one is twice as wide.

use super::scripts::{ReadAnswer, Scripts};
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
    /// How wide the next range is.
    width: u64,
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
        Self { commands, scripts, max_bytes, channels, low, end, width: u64::MAX, done: false }
    }

    /// The next page; `None` after the last. There is at least one.
    ///
    /// # Errors
    /// When Redis does not answer, or has begun a new epoch since the first page.
    pub(super) async fn next(&mut self) -> Result<Option<Page>, CommandError> {
        while !self.done {
            let top = self.end.map(|end| end.min(self.low.saturating_add(self.width)));
            if let Some(page) = self.read_range(top).await? {
                self.low = page.up_to;
                self.done = self.end.is_none_or(|end| page.up_to >= end);
                self.width = self.width.saturating_mul(2);
                return Ok(Some(page));
            }
            let high = top.or(self.end).unwrap_or(u64::MAX);
            self.width = (high - self.low).div_ceil(2);
        }
        Ok(None)
    }

    /// Everything up to `top`, or up to the present as it is at the first answer; `None` when it is too much.
    async fn read_range(&mut self, top: Option<u64>) -> Result<Option<Page>, CommandError> {
        let mut page = Page { up_to: top.unwrap_or(0), ..Page::default() };
        let (mut top, mut end) = (top, self.end);
        let mut budget = PAGE_BYTES;
        // One position is one event at most: it is taken whatever its size.
        if top.is_some_and(|top| top - self.low <= 1) {
            budget = usize::MAX >> 16;
        }
        for chunk in self.chunks() {
            let from = chunk.iter().map(|(channel, after)| (channel, (*after).max(self.low)));
            let answer: ReadAnswer = self.commands.invoke(&self.scripts.read(from, top, budget)).await?;
            if page.epoch != 0 && page.epoch != answer.0 {
                return Err(CommandError::Unavailable("Redis lost its data while it was read".into()));
            }
            // The first answer is one moment for all its channels; the others are read up to that moment.
            page.up_to = *top.get_or_insert(answer.1);
            end = end.or(top);
            if end > Some(answer.1) {
                return Err(CommandError::Unavailable("commands reach a Redis that is behind".into()));
            }
            if answer.4 {
                self.end = end;
                return Ok(None);
            }
            budget = budget.saturating_sub(page.add(chunk, self.low, answer, self.max_bytes));
        }
        self.end = end;
        page.events.sort_unstable_by_key(|(n, _)| *n);
        Ok(Some(page))
    }

    /// The channels in parts; one empty part when there are none, because the clock is asked for all the same.
    fn chunks(&self) -> Vec<&[(ChannelName, u64)]> {
        if self.channels.is_empty() { vec![&[]] } else { self.channels.chunks(CHANNELS).collect() }
    }
}

impl Page {
    /// Adds what was found; returns how many bytes that was.
    fn add(&mut self, chunk: &[(ChannelName, u64)], low: u64, answer: ReadAnswer, max_bytes: usize) -> usize {
        let (epoch, _, lost, server, _, found) = answer;
        (self.epoch, self.lost, self.server) = (epoch, lost, server);
        let mut bytes = 0;
        for ((channel, _), (floor, frames)) in chunk.iter().zip(found) {
            self.floors.push(if floor > low { floor } else { 0 });
            for frame in frames {
                bytes += frame.len();
                match decode(channel, &frame, max_bytes) {
                    Some((n, delivery)) => self.events.push((n, delivery)),
                    None => self.unreadable += 1,
                }
            }
        }
        bytes
    }
}

fn decode(channel: &ChannelName, frame: &[u8], max_bytes: usize) -> Option<(u64, Delivery)> {
    let frame = Frame::parse(frame).ok()?;
    let event = frame.event(channel, max_bytes).ok()?;
    let delivery = Delivery { channel: channel.clone(), event, position: Some(frame.position) };
    Some((frame.position.n, delivery))
}
