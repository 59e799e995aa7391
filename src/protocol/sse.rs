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

#[cfg(test)]
mod tests {
    use super::super::position::N_LIMIT;
    use super::super::whatwg::{Fired, as_read, dechunk, interpret};
    use super::*;
    use proptest::prelude::*;

    fn text(block: &Block) -> &str {
        std::str::from_utf8(block.bytes(Framing::Bare)).unwrap()
    }

    fn unnamed(data: &str) -> Block {
        Block::encode(None, data, None)
    }

    #[test]
    fn an_event_is_written_id_first_then_type_then_data() {
        let kind = EventType::parse("job_completed").unwrap();
        let block = Block::encode(Some(&kind), r#"{"id":"42"}"#, Some(Position { epoch: 1, n: 255 }));
        let bare = "id: 00000000001-000000000000ff\nevent: job_completed\ndata: {\"id\":\"42\"}\n\n";
        assert_eq!(text(&block), bare);
        assert_eq!(block.chunked(), &format!("{:x}\r\n{bare}\r\n", bare.len()));
        assert_eq!(block.bare(), bare);
        assert_eq!(block.events(), 1);
    }

    /// One of the events that the browser's parser reads back; see the fixtures' README for the members.
    #[derive(serde::Deserialize)]
    struct Fixture {
        name: String,
        id: Option<String>,
        event: Option<String>,
        data: String,
        block: String,
    }

    #[test]
    fn the_fixtures_that_are_shared_with_the_browser_are_what_is_written() {
        let fixtures: Vec<Fixture> =
            serde_json::from_str(include_str!("../../client/fixtures/sse/encode.json")).unwrap();
        for Fixture { name, id, event, data, block } in fixtures {
            let id = id.map(|id| Position::parse(&id).unwrap());
            let kind = event.map(|kind| EventType::parse(&kind).unwrap());
            assert_eq!(text(&Block::encode(kind.as_ref(), &data, id)), block, "{name}");
        }
    }

    #[test]
    fn data_is_cut_at_each_of_the_three_line_ends() {
        for (data, bare) in [
            ("", "data: \n\n"),
            (" a: b", "data:  a: b\n\n"),
            ("a\rb\nc\r\nd", "data: a\ndata: b\ndata: c\ndata: d\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("a\r\r\nb", "data: a\ndata: \ndata: b\n\n"),
            ("\r\n", "data: \ndata: \n\n"),
            ("a\n", "data: a\ndata: \n\n"),
            ("a\0\u{2028}\u{feff}b", "data: a\0\u{2028}\u{feff}b\n\n"),
        ] {
            assert_eq!(text(&unnamed(data)), bare, "{data:?}");
        }
    }

    #[test]
    fn the_chunk_size_is_hexadecimal_without_leading_zeros_at_every_width() {
        for length in [1, 15, 16, 255, 256, 4095, 4096, 65_535, 65_536] {
            let bare = "x".repeat(length);
            assert_eq!(Block::from_text(&bare).chunked(), &format!("{length:x}\r\n{bare}\r\n"));
        }
    }

    #[test]
    fn an_empty_block_writes_nothing_because_an_empty_chunk_would_end_the_stream() {
        for block in [
            Block::from_text(""),
            Block::merge(&[]),
            Block::merge(&[Block::from_text(""), Block::merge(&[])]),
        ] {
            assert_eq!(block.bytes(Framing::Chunked), b"");
            assert_eq!(block.bytes(Framing::Bare), b"");
            assert_eq!((block.bare(), block.events()), (Bytes::new(), 0));
        }
    }

    #[test]
    fn a_comment_stays_a_comment_whatever_is_in_it() {
        assert_eq!(text(&Block::comment("ping")), ": ping\n\n");
        assert_eq!(text(&Block::comment("a\r\ndata: b")), ": a\n: data: b\n\n");
        assert_eq!(Block::comment("ping").events(), 0);
    }

    #[test]
    fn a_stream_in_chunks_ends_with_the_last_chunk_and_a_bare_one_with_nothing() {
        let wire = [unnamed("a").bytes(Framing::Chunked), Framing::Chunked.end()].concat();
        assert_eq!(dechunk(&wire), Some((b"data: a\n\n".to_vec(), true)));
        assert_eq!(Framing::Bare.end(), b"");
    }

    #[test]
    fn merged_blocks_are_one_chunk_that_knows_how_many_events_are_left() {
        let merged = Block::merge(&[unnamed("a"), Block::comment("ping"), unnamed("b")]);
        let bare = "data: a\n\n: ping\n\ndata: b\n\n";
        assert_eq!(merged.chunked(), &format!("1a\r\n{bare}\r\n"));
        assert_eq!(merged.events(), 2);
        for (framing, start) in [(Framing::Bare, 0), (Framing::Chunked, 4)] {
            let left = |bare: usize| merged.events_left(framing, start + bare);
            assert_eq!([left(0), left(8), left(9), left(25), left(26)], [2, 2, 1, 1, 0], "{framing:?}");
        }
        assert_eq!(merged.events_left(Framing::Chunked, 0), 2);
    }

    #[test]
    fn a_handle_is_one_pointer() {
        assert_eq!(size_of::<Block>(), size_of::<usize>());
        assert_eq!(size_of::<Option<Block>>(), size_of::<usize>());
    }

    /// Texts in which everything that could matter to a parser is frequent.
    fn data() -> impl Strategy<Value = String> {
        const SPICE: [&str; 16] = [
            "\r",
            "\n",
            "\r\n",
            "\0",
            "\u{feff}",
            "\u{2028}",
            "\u{85}",
            "\u{c}",
            "🦀",
            ":",
            " ",
            "data: ",
            "id: x",
            "event:",
            "retry: 1",
            "{\"a\":1}",
        ];
        let spicy =
            prop::collection::vec(prop::sample::select(&SPICE[..]), 0..12).prop_map(|parts| parts.concat());
        prop_oneof![
            spicy,
            any::<String>(),
            (any::<String>(), any::<String>()).prop_map(|(a, b)| a + "\r" + &b)
        ]
    }

    fn kind() -> impl Strategy<Value = Option<EventType>> {
        let text = any::<String>().prop_map(|text| text.replace(['\r', '\n', '\0'], ""));
        prop::option::of(text.prop_filter_map("a type", |text| EventType::parse(&text).ok()))
    }

    fn id() -> impl Strategy<Value = Option<Position>> {
        prop::option::of((0u64..1 << 44, 0..N_LIMIT).prop_map(|(epoch, n)| Position { epoch, n }))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_what_a_client_fires(kind in kind(), data in data(), id in id()) {
            let block = Block::encode(kind.as_ref(), &data, id);
            let read = interpret(block.bytes(Framing::Bare));
            let expected = Fired {
                kind: kind.map_or("message".into(), |kind| kind.to_string()),
                data: as_read(&data),
                id: id.map(|id| id.to_string()).unwrap_or_default(),
            };
            prop_assert_eq!(read.fired, [expected]);
            prop_assert!(read.unknown.is_empty() && read.retries.is_empty() && read.comments.is_empty());
            prop_assert_eq!(dechunk(block.chunked()), Some((block.bare().to_vec(), false)));
        }

        #[test]
        fn a_comment_fires_nothing(text in data()) {
            let read = interpret(Block::comment(&text).bytes(Framing::Bare));
            prop_assert!(read.fired.is_empty() && read.unknown.is_empty() && read.retries.is_empty());
            let lines: Vec<_> = as_read(&text).split('\n').map(|line| format!(" {line}")).collect();
            prop_assert_eq!(read.comments, lines);
        }

        /// However blocks are merged and wherever the writing stops, the count is that of the client.
        #[test]
        fn the_events_left_are_those_that_a_client_has_not_fired(
            groups in prop::collection::vec(prop::collection::vec((data(), any::<bool>()), 0..4), 0..3),
        ) {
            let block = |(data, event): &(String, bool)| if *event { unnamed(data) } else { Block::comment(data) };
            let merged = groups.iter().map(|group| Block::merge(&group.iter().map(block).collect::<Vec<_>>()));
            let merged = Block::merge(&merged.collect::<Vec<_>>());
            let bare: String = groups.concat().iter().map(|part| text(&block(part)).to_owned()).collect();
            prop_assert_eq!(text(&merged), &bare);
            for framing in [Framing::Bare, Framing::Chunked] {
                let wire = merged.bytes(framing);
                for written in 0..=wire.len() {
                    let content = match framing {
                        Framing::Bare => wire[..written].to_vec(),
                        Framing::Chunked => dechunk(&wire[..written]).unwrap().0,
                    };
                    let fired = interpret(&content).fired.len();
                    prop_assert_eq!(merged.events_left(framing, written), merged.events() - fired);
                }
            }
        }
    }
}
