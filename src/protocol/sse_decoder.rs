//! Decoding: from the bytes of an event stream, cut anywhere, to events (WHATWG HTML, 9.2.5 and 9.2.6).
//!
//! For the client side: the command line. It does not connect, wait or reconnect.

use std::time::Duration;

/// UTF-8's byte order mark, which may open a stream and means nothing.
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// An event as a browser would fire it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerEvent {
    /// The type; `message` when the stream gives none.
    pub kind: String,
    /// The data, lines joined by LF.
    pub data: String,
    /// The id that came with this very event, if one did.
    pub id: Option<String>,
}

/// The stream cannot be read on: a line, or the data of one event, is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {max} bytes")]
pub struct EventTooLarge {
    /// The limit.
    pub max: usize,
}

/// An incremental decoder. It holds at most one line and one event, each of at most `max` bytes.
#[derive(Debug)]
pub struct SseDecoder {
    max: usize,
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    at_start: bool,
    kind: String,
    data: String,
    id: Option<String>,
    last_id: String,
    retry: Option<Duration>,
}

impl SseDecoder {
    /// A decoder at the start of a stream, for lines and events of at most `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            after_cr: false,
            at_start: true,
            kind: String::new(),
            data: String::new(),
            id: None,
            last_id: String::new(),
            retry: None,
        }
    }

    /// The id to resume from: that of the last complete block which had one; empty when none had.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The reconnection time that the stream asked for, if it did.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes the next bytes and appends the events that they complete to `events`.
    ///
    /// # Errors
    /// When a line or an event is larger than the limit; the decoder is of no use after that.
    pub fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<ServerEvent>) -> Result<(), EventTooLarge> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', bytes) else {
                return self.hold(bytes);
            };
            self.hold(&bytes[..end])?;
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.take_line(&line, events)?;
            self.line = line; // keeps its capacity
            self.line.clear();
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), EventTooLarge> {
        if self.line.len() + bytes.len() > self.max {
            return Err(EventTooLarge { max: self.max });
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], events: &mut Vec<ServerEvent>) -> Result<(), EventTooLarge> {
        let first = std::mem::take(&mut self.at_start);
        let line = if first { line.strip_prefix(BOM).unwrap_or(line) } else { line };
        if line.is_empty() {
            events.extend(self.dispatch());
            return Ok(());
        }
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = String::from_utf8_lossy(value.strip_prefix(b" ").unwrap_or(value));
        match &line[..colon] {
            b"data" => self.take_data(&value)?,
            b"event" => self.kind = value.into_owned(),
            b"id" if !value.contains('\0') => self.id = Some(value.into_owned()),
            b"retry" => self.retry = milliseconds(&value).or(self.retry),
            _ => {}
        }
        Ok(())
    }

    fn take_data(&mut self, value: &str) -> Result<(), EventTooLarge> {
        if self.data.len() + value.len() > self.max {
            return Err(EventTooLarge { max: self.max });
        }
        self.data.push_str(value);
        self.data.push('\n');
        Ok(())
    }

    fn dispatch(&mut self) -> Option<ServerEvent> {
        let id = self.id.take();
        if let Some(id) = &id {
            self.last_id.clone_from(id);
        }
        let kind = std::mem::take(&mut self.kind);
        let mut data = std::mem::take(&mut self.data);
        data.pop()?; // the LF behind the last line; without a line there is no event
        let kind = if kind.is_empty() { "message".to_owned() } else { kind };
        Some(ServerEvent { kind, data, id })
    }
}

/// ASCII digits only; anything else is ignored, as is a number beyond all time.
fn milliseconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]]) -> (Vec<ServerEvent>, SseDecoder) {
        let mut decoder = SseDecoder::new(1 << 16);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk, &mut events).unwrap();
        }
        (events, decoder)
    }

    fn event(kind: &str, data: &str, id: Option<&str>) -> ServerEvent {
        ServerEvent { kind: kind.into(), data: data.into(), id: id.map(Into::into) }
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        let (events, _) = decode(&[b"data: YHOO\ndata: +2\ndata: 10\n\n"]);
        assert_eq!(events, [event("message", "YHOO\n+2\n10", None)]);
        let (events, decoder) = decode(&[
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
        ]);
        assert_eq!(
            events,
            [
                event("message", "first event", Some("1")),
                event("message", "second event", Some("")),
                event("message", " third event", None)
            ]
        );
        assert_eq!(decoder.last_id(), "");
        let (events, _) = decode(&[b"data\n\ndata\ndata\n\ndata:"]);
        assert_eq!(events, [event("message", "", None), event("message", "\n", None)]);
        let (events, _) = decode(&[b"data:test\n\ndata: test\n\n"]);
        assert_eq!(events[0], events[1]);
    }

    /// One of the streams that the browser's parser is held to as well; see its README for the members.
    #[derive(serde::Deserialize)]
    struct Fixture {
        name: String,
        stream: Option<String>,
        bytes: Option<String>,
        events: Vec<Fired>,
        #[serde(default)]
        positions: Vec<String>,
        #[serde(default)]
        retry: Vec<u64>,
    }

    #[derive(serde::Deserialize)]
    struct Fired {
        r#type: String,
        data: String,
        id: Option<String>,
    }

    fn from_hex(digits: &str) -> Vec<u8> {
        let pairs = (0..digits.len()).step_by(2);
        pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_fixtures_that_are_shared_with_the_browser_are_read_as_they_say() {
        let fixtures: Vec<Fixture> =
            serde_json::from_str(include_str!("../../client/fixtures/sse/decode.json")).unwrap();
        for Fixture { name, stream, bytes, events, positions, retry } in fixtures {
            let bytes = stream.map_or_else(|| from_hex(&bytes.unwrap()), String::into_bytes);
            let expected: Vec<_> =
                events.iter().map(|e| event(&e.r#type, &e.data, e.id.as_deref())).collect();
            let bytewise: Vec<_> = bytes.chunks(1).collect();
            for chunks in [&[&bytes[..]][..], &bytewise] {
                let (events, decoder) = decode(chunks);
                assert_eq!(events, expected, "{name}");
                assert_eq!(decoder.last_id(), positions.last().map_or("", String::as_str), "{name}");
                assert_eq!(decoder.retry(), retry.last().copied().map(Duration::from_millis), "{name}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_and_every_kind_of_line_end_are_taken() {
        let (events, decoder) =
            decode(&[b"\xEF", b"\xBB\xBFevent: a\r", b"\ndata: 1\rdata: 2\nid: 7\r\n\r\n"]);
        assert_eq!(events, [event("a", "1\n2", Some("7"))]);
        assert_eq!(decoder.last_id(), "7");
    }

    #[test]
    fn an_id_without_data_moves_the_position_and_fires_nothing() {
        let (events, decoder) = decode(&[b"event: x\nid: 9\n\ndata: 1\n\n"]);
        assert_eq!(events, [event("message", "1", None)]);
        assert_eq!(decoder.last_id(), "9");
    }

    #[test]
    fn an_id_counts_only_once_its_block_is_complete() {
        let (events, decoder) = decode(&[b"data: 1\nid: 1\n\ndata: 2\nid: 2\n"]);
        assert_eq!((events.len(), decoder.last_id()), (1, "1"));
    }

    #[test]
    fn only_digits_are_a_retry_and_nul_voids_an_id() {
        let retry = |text: &str| decode(&[text.as_bytes()]).1.retry();
        assert_eq!(retry("retry: 1500\n"), Some(Duration::from_millis(1500)));
        for bad in
            ["retry: -1\n", "retry: 1s\n", "retry\n", "retry: 99999999999999999999999\n", "retry: +1\n"]
        {
            assert_eq!(retry(bad), None, "{bad}");
        }
        assert_eq!(decode(&[b"id: 1\n\nid: a\0b\n\n"]).1.last_id(), "1");
    }

    #[test]
    fn what_grows_without_end_is_an_error_and_not_memory() {
        let mut decoder = SseDecoder::new(100);
        let endless_line = [b'x'; 60];
        assert_eq!(decoder.feed(&endless_line, &mut Vec::new()), Ok(()));
        assert_eq!(decoder.feed(&endless_line, &mut Vec::new()), Err(EventTooLarge { max: 100 }));
        let mut decoder = SseDecoder::new(100);
        let endless_event = b"data: 0123456789\n".repeat(20);
        assert!(decoder.feed(&endless_event, &mut Vec::new()).is_err());
        let mut decoder = SseDecoder::new(100);
        let mut events = Vec::new();
        decoder.feed(&b"data: 0123456789\n\n".repeat(20), &mut events).unwrap();
        assert_eq!(events.len(), 20, "many small events are not one large one");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            text in "(\u{feff})?((data|event|id|retry|x)?(:)?( )?[a-c0-9\u{e9}]{0,3}(\n|\r|\r\n)){0,12}",
            cuts in proptest::collection::vec(0usize..200, 0..8),
        ) {
            let bytes = text.as_bytes();
            let (whole, at_once) = decode(&[bytes]);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let edges: Vec<_> = std::iter::once(0).chain(cuts).chain([bytes.len()]).collect();
            let chunks: Vec<&[u8]> = edges.windows(2).map(|edge| &bytes[edge[0]..edge[1]]).collect();
            let (pieces, in_pieces) = decode(&chunks);
            prop_assert_eq!(whole, pieces);
            prop_assert_eq!(at_once.last_id(), in_pieces.last_id());
            prop_assert_eq!(at_once.retry(), in_pieces.retry());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = SseDecoder::new(64).feed(&bytes, &mut Vec::new());
        }
    }
}
