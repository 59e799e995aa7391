//! Encoding: from an event to the bytes of an SSE block, framed for HTTP/1.1 and bare for HTTP/1.0.
//!
//! A block is encoded once per node and shared by every subscriber (invariant 2). It does not know channels, sockets or
//! queues; what a control event says is in [`control`](super::control).

use std::sync::Arc;

use bytes::Bytes;

use super::event::{Event, EventType};
use super::position::Position;

/// How blocks are put on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// HTTP/1.1: as a chunk (RFC 9112, section 7.1).
    Chunked,
    /// HTTP/1.0: as it is; the end of the connection is the end of the stream.
    Bare,
}

impl Framing {
    /// What ends a stream cleanly in this framing: the last chunk, or nothing.
    pub const fn end(self) -> &'static [u8] {
        match self {
            Self::Chunked => b"0\r\n\r\n",
            Self::Bare => b"",
        }
    }
}

/// The bytes of one SSE block, or of several merged ones. Cheap to clone: one pointer.
#[derive(Clone, Debug)]
pub struct Block(Arc<Encoded>);

#[derive(Debug)]
struct Encoded {
    /// One chunk; empty when there is nothing in it, because a chunk of length 0 would end the stream.
    chunked: Bytes,
    /// Where the bare block starts in `chunked`.
    start: usize,
    events: Events,
}

/// Which of the blocks merged here are events, and where in the bare bytes each of them ends.
#[derive(Debug)]
enum Events {
    None,
    One,
    Many(Box<[usize]>),
}

/// The end of a chunk.
const CRLF: &[u8] = b"\r\n";

impl Block {
    /// The block of an event, with its position as `id:` when it has one.
    pub fn event(event: &Event, id: Option<Position>) -> Self {
        Self::encode(event.kind.as_ref(), &event.data, id)
    }

    /// The block of an event from its parts: `id`, `event`, `data`, in this order.
    ///
    /// Data is split at CR, LF and CRLF, each of which a client reads back as LF: the format cannot tell them apart.
    /// Data without bytes still gets one `data` line. A client appends the line's value and an LF to its data
    /// buffer, looks whether the *buffer* is empty, and only then takes the last LF off again; so one empty line fires
    /// an event with empty data, and no line at all would fire nothing (WHATWG HTML, 9.2.6).
    pub fn encode(kind: Option<&EventType>, data: &str, id: Option<Position>) -> Self {
        let id = id.map(|id| id.to_string());
        let fields = [("id: ", id.as_deref()), ("event: ", kind.map(EventType::as_str))];
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let lines = fields.chain(lines(data).map(|line| ("data: ", line)));
        let length = lines.clone().map(|(name, value)| name.len() + value.len() + 1).sum::<usize>() + 1;
        Self::build(length, Events::One, |out| {
            for (name, value) in lines {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(value.as_bytes());
                out.push(b'\n');
            }
            out.push(b'\n');
        })
    }

    /// A comment, which clients skip. Each of its lines becomes one.
    pub fn comment(text: &str) -> Self {
        let lines = lines(text).flat_map(|line| [": ", line, "\n"]);
        Self::from_text(&lines.chain(["\n"]).collect::<String>())
    }

    /// A block that is written out already, with its blank line; it counts as no event.
    pub fn from_text(bare: &str) -> Self {
        Self::build(bare.len(), Events::None, |out| out.extend_from_slice(bare.as_bytes()))
    }

    /// Blocks behind each other as one, in one chunk. It remembers where each event ends.
    pub fn merge(blocks: &[Self]) -> Self {
        if let [block] = blocks {
            return block.clone();
        }
        let length = blocks.iter().map(|block| block.bare_bytes().len()).sum();
        let mut ends = Vec::with_capacity(blocks.iter().map(Self::events).sum());
        let mut at = 0;
        for block in blocks {
            block.for_each_end(|end| ends.push(at + end));
            at += block.bare_bytes().len();
        }
        let events = if ends.is_empty() { Events::None } else { Events::Many(ends.into()) };
        Self::build(length, events, |out| blocks.iter().for_each(|b| out.extend_from_slice(b.bare_bytes())))
    }

    /// Makes the chunk in one allocation; `fill` must append `length` bytes.
    fn build(length: usize, events: Events, fill: impl FnOnce(&mut Vec<u8>)) -> Self {
        if length == 0 {
            return Self(Arc::new(Encoded { chunked: Bytes::new(), start: 0, events }));
        }
        let digits = (length.ilog2() / 4 + 1) as usize;
        let start = digits + CRLF.len();
        let mut out = Vec::with_capacity(start + length + CRLF.len());
        let nibbles = (0..digits).rev().map(|place| (length >> (4 * place)) & 0xf);
        out.extend(nibbles.map(|nibble| b"0123456789abcdef"[nibble]));
        out.extend_from_slice(CRLF);
        fill(&mut out);
        debug_assert_eq!(out.len(), start + length, "the length was not the sum of what was written");
        out.extend_from_slice(CRLF);
        Self(Arc::new(Encoded { chunked: out.into(), start, events }))
    }

    /// What is written to a connection of this framing.
    pub fn bytes(&self, framing: Framing) -> &[u8] {
        match framing {
            Framing::Chunked => &self.0.chunked,
            Framing::Bare => self.bare_bytes(),
        }
    }

    /// The block as an HTTP/1.1 chunk (RFC 9112, section 7.1).
    pub fn chunked(&self) -> &Bytes {
        &self.0.chunked
    }

    /// The block alone, as HTTP/1.0 sends it and as a body is given to a server that frames it itself.
    pub fn bare(&self) -> Bytes {
        self.0.chunked.slice(self.0.start..self.bare_end())
    }

    /// How many events are in it; comments and control events count as none.
    pub fn events(&self) -> usize {
        match &self.0.events {
            Events::None => 0,
            Events::One => 1,
            Events::Many(ends) => ends.len(),
        }
    }

    /// How many of its events are not complete when `written` bytes of it have been written in this framing.
    ///
    /// An event is complete with its blank line: that is when a client fires it. The end of the chunk may still be missing.
    pub fn events_left(&self, framing: Framing, written: usize) -> usize {
        let bare = match framing {
            Framing::Chunked => written.saturating_sub(self.0.start),
            Framing::Bare => written,
        };
        match &self.0.events {
            Events::None => 0,
            Events::One => usize::from(bare < self.bare_bytes().len()),
            Events::Many(ends) => ends.len() - ends.partition_point(|&end| end <= bare),
        }
    }

    fn bare_end(&self) -> usize {
        self.0.chunked.len().saturating_sub(CRLF.len())
    }

    fn bare_bytes(&self) -> &[u8] {
        &self.0.chunked[self.0.start..self.bare_end()]
    }

    fn for_each_end(&self, mut visit: impl FnMut(usize)) {
        match &self.0.events {
            Events::None => {}
            Events::One => visit(self.bare_bytes().len()),
            Events::Many(ends) => ends.iter().copied().for_each(visit),
        }
    }
}

/// The lines of a text: cut at CR, LF and CRLF, always at least one.
fn lines(text: &str) -> impl Iterator<Item = &str> + Clone {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = memchr::memchr2(b'\r', b'\n', text.as_bytes()) else {
            return rest.take();
        };
        let (line, tail) = text.split_at(at);
        rest = Some(tail.strip_prefix("\r\n").unwrap_or_else(|| &tail[1..]));
        Some(line)
    })
}
