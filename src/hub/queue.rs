//! What waits for one socket.

use std::collections::VecDeque;
use std::io::{IoSlice, Write};
use std::rc::Rc;

use mio::net::TcpStream;

use crate::protocol::sse::{Block, Framing};

/// Blocks handed to the kernel in one call; the most that Linux takes is 1024, more than 64 gains nothing.
pub(super) const MAX_SLICES: usize = 64;

/// Blocks waiting for one socket. Holds references to shared bytes; empty and one-block queues allocate nothing.
#[derive(Default)]
pub(super) struct Queue {
    head: Option<Rc<Block>>,
    #[expect(clippy::box_collection, reason = "keeps the idle connection small")]
    rest: Option<Box<VecDeque<Rc<Block>>>>,
    /// Bytes of `head` that are out.
    offset: u32,
    /// Events of all blocks, those of `head` that are out included.
    events: u32,
    /// Bytes waiting.
    pub(super) bytes: usize,
}

impl Queue {
    pub(super) const fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    #[inline]
    pub(super) fn push(&mut self, block: Rc<Block>, framing: Framing) {
        let bytes = block.bytes(framing).len();
        if bytes == 0 {
            return;
        }
        self.bytes += bytes;
        self.events += block.events() as u32;
        if self.head.is_none() {
            self.head = Some(block);
        } else {
            self.rest.get_or_insert_default().push_back(block);
        }
    }

    #[inline]
    pub(super) fn events(&self, framing: Framing) -> usize {
        let Some(head) = &self.head else { return 0 };
        let out = head.events() - head.events_left(framing, self.offset as usize);
        self.events as usize - out
    }

    #[inline]
    pub(super) fn write(&self, stream: &mut TcpStream, framing: Framing) -> std::io::Result<usize> {
        let Some(head) = &self.head else { return Ok(0) };
        let first = &head.bytes(framing)[self.offset as usize..];
        let Some(rest) = &self.rest else { return stream.write(first) };
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        slices[0] = IoSlice::new(first);
        let mut used = 1;
        for (slice, block) in slices[1..].iter_mut().zip(rest.iter()) {
            *slice = IoSlice::new(block.bytes(framing));
            used += 1;
        }
        stream.write_vectored(&slices[..used])
    }

    /// Takes `written` bytes off; returns how many events went out with them.
    #[inline]
    pub(super) fn advance(&mut self, written: usize, framing: Framing) -> u64 {
        let before = self.events(framing);
        self.bytes -= written;
        let mut offset = self.offset as usize + written;
        while let Some(head) = &self.head {
            let len = head.bytes(framing).len();
            if offset < len {
                break;
            }
            offset -= len;
            self.events -= head.events() as u32;
            self.head = self.rest.as_mut().and_then(|rest| rest.pop_front());
        }
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
        self.offset = u32::try_from(offset).unwrap_or(u32::MAX);
        (before - self.events(framing)) as u64
    }

    /// Drops every block of which nothing is out yet.
    pub(super) fn drop_untouched(&mut self, framing: Framing) {
        self.rest = None;
        match &self.head {
            Some(head) if self.offset > 0 => {
                self.events = head.events() as u32;
                self.bytes = head.bytes(framing).len() - self.offset as usize;
            }
            _ => *self = Self::default(),
        }
    }
}
