//! The durable frame: what the publishing Redis script sends to the nodes, so that position, predecessor and event
//! arrive as one message.
//!
//! # Format, version 1
//! ```text
//! 0x1e "1 " EPOCH " " N " " PREV " " KINDLEN " " KEYLEN " " TRACELEN "\n" KIND KEY TRACE DATA
//! ```
//! - `EPOCH`: lower-case hexadecimal without leading zeros, below 2^44. All other numbers are decimal, without sign and
//!   without leading zeros.
//! - `N`: the event's number, 1 to 2^53 − 1. `PREV`: the number of the event before it on the same channel in the same
//!   epoch, smaller than `N`; `0` says that there was none. When that event is long expired it may be a later number, up to
//!   which the channel had none.
//! - the three lengths count bytes; `0` says that the field is absent. `DATA` is everything that is left, and may be empty.
//! - the four fields stand behind each other with nothing between them. All of it is UTF-8.
//!
//! In Lua 5.1 (numbers need `%.0f`: `tostring` rounds to 14 digits):
//! ```lua
//! local frame = string.format('\0301 %s %.0f %.0f %d %d %d\n', epoch_hex, n, prev, #kind, #key, #trace)
//!   .. kind .. key .. trace .. data
//! ```
//! The first byte, 0x1e (ASCII record separator), followed by a digit, begins no JSON text, so a plain payload is
//! never taken for a frame by accident. Whoever can publish to Redis can forge one; Redis is trusted that far.
//!
//! The frame is parsed in two steps, so that the position of an event that cannot be delivered is still known and does
//! not look like a hole.

use std::fmt::Write as _;

use super::channel::ChannelName;
use super::envelope::{self, EnvelopeError};
use super::event::{Event, EventType, Key};
use super::position::{N_LIMIT, Position};

const MARK: u8 = 0x1e;

/// Room for a header: no number that a script writes is longer than 16 digits.
const HEADER_ROOM: usize = 112;

/// Whether `payload` claims to be a durable frame (of any version); everything else is a plain envelope.
pub fn is_frame(payload: &[u8]) -> bool {
    matches!(payload, [MARK, digit, ..] if digit.is_ascii_digit())
}

/// A frame with its header read and its fields not yet looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's place in the history.
    pub position: Position,
    /// The event before it on the same channel; `None` when it is the first one in this epoch.
    pub previous: Option<Position>,
    kind: &'a [u8],
    key: &'a [u8],
    trace: &'a [u8],
    data: &'a [u8],
}

/// Why a payload is not a durable frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are not those of a frame.
    #[error("not a durable frame")]
    NotAFrame,
    /// A version that this node does not know: a newer node or script shares the Redis.
    #[error("a durable frame of an unknown version")]
    Version,
    /// The header is cut off, or is not six numbers in the form of the format.
    #[error("a durable frame with a malformed header")]
    Header,
    /// The lengths claim more bytes than there are.
    #[error("a durable frame that is shorter than its header says")]
    Truncated,
}

impl<'a> Frame<'a> {
    /// Reads the header and cuts the fields.
    ///
    /// # Errors
    /// When `payload` is not a frame of the format above, byte for byte.
    pub fn parse(payload: &'a [u8]) -> Result<Self, FrameError> {
        if !is_frame(payload) {
            return Err(FrameError::NotAFrame);
        }
        let end = memchr::memchr(b'\n', payload).ok_or(FrameError::Header)?;
        let header = std::str::from_utf8(&payload[1..end]).map_err(|_| FrameError::Header)?;
        let header = Header::parse(header)?;
        let body = &payload[end + 1..];
        let (kind, body) = body.split_at_checked(header.kind_len).ok_or(FrameError::Truncated)?;
        let (key, body) = body.split_at_checked(header.key_len).ok_or(FrameError::Truncated)?;
        let (trace, data) = body.split_at_checked(header.trace_len).ok_or(FrameError::Truncated)?;
        Ok(Self { position: header.position, previous: header.previous, kind, key, trace, data })
    }

    /// The event inside. A broken `traceparent` is ignored; on channel `jobs` a missing key is taken from `data.id`.
    ///
    /// # Errors
    /// When the data is larger than `max_bytes`, something is not UTF-8, or type or key cannot be one.
    pub fn event(&self, channel: &ChannelName, max_bytes: usize) -> Result<Event, EnvelopeError> {
        envelope::check_size(self.data.len(), max_bytes)?;
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).map_err(|_| EnvelopeError::Utf8);
        let (kind, key, data) = (text(self.kind)?, text(self.key)?, text(self.data)?);
        let kind = Some(kind).filter(|k| !k.is_empty()).map(EventType::parse).transpose();
        let key = Some(key).filter(|k| !k.is_empty()).map(Key::parse).transpose();
        Ok(Event {
            kind: kind.map_err(EnvelopeError::Kind)?,
            key: key.map_err(EnvelopeError::Key)?.or_else(|| envelope::implied_key(channel, data)),
            data: data.to_owned(),
            traceparent: std::str::from_utf8(self.trace).ok().and_then(super::event::traceparent),
        })
    }
}

struct Header {
    position: Position,
    previous: Option<Position>,
    kind_len: usize,
    key_len: usize,
    trace_len: usize,
}

impl Header {
    fn parse(text: &str) -> Result<Self, FrameError> {
        let mut words = text.split(' ');
        if words.next() != Some("1") {
            return Err(FrameError::Version);
        }
        let mut number =
            |radix| words.next().and_then(|word| canonical(word, radix)).ok_or(FrameError::Header);
        let (epoch, n, previous) = (number(16)?, number(10)?, number(10)?);
        let mut length = || number(10).and_then(|n| usize::try_from(n).map_err(|_| FrameError::Truncated));
        let (kind_len, key_len, trace_len) = (length()?, length()?, length()?);
        if words.next().is_some() || epoch >= 1 << 44 || n >= N_LIMIT || previous >= n {
            return Err(FrameError::Header);
        }
        let at = |n| Position { epoch, n };
        let previous = (previous > 0).then(|| at(previous));
        Ok(Self { position: at(n), previous, kind_len, key_len, trace_len })
    }
}

/// A number in the one form that the format allows: no sign, no leading zero, no upper case.
fn canonical(word: &str, radix: u32) -> Option<u64> {
    let digit = |b: u8| b.is_ascii_digit() || (radix == 16 && (b'a'..=b'f').contains(&b));
    if !word.bytes().all(digit) || (word.len() > 1 && word.starts_with('0')) {
        return None;
    }
    u64::from_str_radix(word, radix).ok()
}

/// Writes the frame of an event: what the Lua above writes. `previous` is the number before it on its channel.
pub fn encode(position: Position, previous: Option<u64>, event: &Event) -> Vec<u8> {
    let (Position { epoch, n }, previous) = (position, previous.unwrap_or(0));
    let numbers = format!("{}1 {epoch:x} {n} {previous} ", char::from(MARK));
    [numbers.into_bytes(), encode_body(event)].concat()
}

/// The frame behind its three numbers, which only the publishing script knows.
pub fn encode_body(event: &Event) -> Vec<u8> {
    let kind = event.kind.as_ref().map_or("", EventType::as_str);
    let key = event.key.as_ref().map_or("", Key::as_str);
    let trace = event.traceparent.as_deref().unwrap_or("");
    let mut out =
        String::with_capacity(HEADER_ROOM + kind.len() + key.len() + trace.len() + event.data.len());
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{} {} {}", kind.len(), key.len(), trace.len());
    for field in [kind, key, trace, &event.data] {
        out.push_str(field);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::event::FieldError;
    use super::*;
    use proptest::prelude::*;

    fn jobs() -> ChannelName {
        ChannelName::parse("jobs").unwrap()
    }

    fn event() -> Event {
        Event {
            kind: Some(EventType::parse("job_completed").unwrap()),
            key: Some(Key::parse("42").unwrap()),
            data: r#"{"id":"42"}"#.into(),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
        }
    }

    const POSITION: Position = Position { epoch: 0x198_0000_0001, n: 3_600_000_000_000_000 };

    #[test]
    fn the_frame_is_what_its_description_says_byte_for_byte() {
        assert_eq!(
            String::from_utf8(encode(POSITION, Some(17), &event())).unwrap(),
            "\x1e1 19800000001 3600000000000000 17 13 2 55\njob_completed42\
             00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01{\"id\":\"42\"}"
        );
        assert_eq!(encode(Position { epoch: 1, n: 2 }, None, &Event::unnamed("")), b"\x1e1 1 2 0 0 0 0\n");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = encode(POSITION, Some(17), &event());
        let frame = Frame::parse(&bytes).unwrap();
        assert_eq!(frame.position, POSITION);
        assert_eq!(frame.previous, Some(Position { epoch: POSITION.epoch, n: 17 }));
        assert_eq!(frame.event(&jobs(), 100).unwrap(), event());
    }

    #[test]
    fn a_payload_is_a_frame_by_its_first_two_bytes() {
        assert!(is_frame(b"\x1e1 "));
        assert!(is_frame(b"\x1e2"));
        for plain in [&b""[..], b"\x1e", b"\x1e{}", b"{}", b"1"] {
            assert!(!is_frame(plain), "{plain:?}");
            assert_eq!(Frame::parse(plain), Err(FrameError::NotAFrame));
        }
    }

    #[test]
    fn hostile_frames_are_refused() {
        use FrameError as E;
        for (frame, why) in [
            ("\x1e2 1 2 0 0 0 0\n", E::Version),
            ("\x1e10 1 2 0 0 0 0\n", E::Version),
            ("\x1e1", E::Header),
            ("\x1e1\n", E::Header),
            ("\x1e1 1 2 0 0 0 0", E::Header),
            ("\x1e1 1 2 0 0 0\n", E::Header),
            ("\x1e1 1 2 0 0 0 0 0\n", E::Header),
            ("\x1e1 1 2 0 0 0 0 \n", E::Header),
            ("\x1e1  1 2 0 0 0 0\n", E::Header),
            ("\x1e1 1 2 0 0 0 0\r\n", E::Header),
            ("\x1e1 01 2 0 0 0 0\n", E::Header),
            ("\x1e1 A 2 0 0 0 0\n", E::Header),
            ("\x1e1 +1 2 0 0 0 0\n", E::Header),
            ("\x1e1 1 -2 0 0 0 0\n", E::Header),
            ("\x1e1 1 1.7e15 0 0 0 0\n", E::Header),
            ("\x1e1 1 0 0 0 0 0\n", E::Header),
            ("\x1e1 1 2 2 0 0 0\n", E::Header),
            ("\x1e1 1 2 3 0 0 0\n", E::Header),
            ("\x1e1 1 9007199254740992 0 0 0 0\n", E::Header),
            ("\x1e1 100000000000 2 0 0 0 0\n", E::Header),
            ("\x1e1 1 2 0 18446744073709551616 0 0\n", E::Header),
            ("\x1e1 1 2 0 18446744073709551615 1 0\nab", E::Truncated),
            ("\x1e1 1 2 0 1 1 1\nab", E::Truncated),
        ] {
            assert_eq!(Frame::parse(frame.as_bytes()), Err(why), "{frame:?}");
        }
    }

    #[test]
    fn the_position_of_an_event_that_cannot_be_delivered_is_known() {
        use EnvelopeError as E;
        for (frame, why) in [
            (&b"\x1e1 1 9 8 3 0 0\na\nbdata"[..], E::Kind(FieldError::ControlCharacter)),
            (b"\x1e1 1 9 8 0 1 0\n\0data", E::Key(FieldError::ControlCharacter)),
            (b"\x1e1 1 9 8 1 0 0\n\xffdata", E::Utf8),
            (b"\x1e1 1 9 8 0 0 0\n\xff", E::Utf8),
            (b"\x1e1 1 9 8 0 0 0\n12345", E::TooLarge { bytes: 5, max: 4 }),
        ] {
            let frame = Frame::parse(frame).unwrap();
            assert_eq!((frame.position.n, frame.previous.unwrap().n), (9, 8));
            assert_eq!(frame.event(&jobs(), 4), Err(why));
        }
    }

    #[test]
    fn a_field_may_not_be_cut_inside_a_character() {
        let frame = Frame::parse("\x1e1 1 2 0 1 0 0\né".as_bytes()).unwrap();
        assert_eq!(frame.event(&jobs(), 100), Err(EnvelopeError::Utf8));
    }

    #[test]
    fn what_redis_users_leave_out_is_filled_in_as_for_plain_events() {
        let frame = Frame::parse(b"\x1e1 1 2 0 0 0 3\nxyz{\"id\":42}").unwrap();
        let event = frame.event(&jobs(), 100).unwrap();
        assert_eq!((event.kind, event.traceparent), (None, None));
        assert_eq!(event.key.unwrap().as_str(), "42");
        assert_eq!(frame.event(&ChannelName::parse("news").unwrap(), 100).unwrap().key, None);
    }

    proptest! {
        #[test]
        fn any_event_is_read_back(
            (epoch, n, previous) in (0u64..1 << 44, 1..N_LIMIT, 0..N_LIMIT),
            (kind, key, data) in (any::<String>(), any::<String>(), any::<String>()),
            traced: bool,
        ) {
            let traceparent = traced.then(|| event().traceparent.unwrap());
            let (kind, key) = (EventType::parse(&kind).ok(), Key::parse(&key).ok());
            let event = Event { kind, key, data, traceparent };
            let position = Position { epoch, n };
            let previous = Some(previous % n).filter(|&n| n > 0);
            let bytes = encode(position, previous, &event);
            let frame = Frame::parse(&bytes).unwrap();
            prop_assert_eq!(frame.position, position);
            prop_assert_eq!(frame.previous, previous.map(|n| Position { epoch, n }));
            prop_assert_eq!(frame.event(&ChannelName::parse("news").unwrap(), 1 << 20), Ok(event));
        }

        /// The header has one form: what is accepted is what `encode` writes.
        #[test]
        fn a_damaged_frame_is_refused_or_is_another_frame(at in 0usize..40, byte: u8) {
            let mut bytes = encode(POSITION, Some(17), &event());
            bytes[at] = byte;
            let Ok(frame) = Frame::parse(&bytes) else { return Ok(()) };
            if let Ok(event) = frame.event(&ChannelName::parse("news").unwrap(), 1000) {
                let again = encode(frame.position, frame.previous.map(|p| p.n), &event);
                prop_assert!(again == bytes || event.traceparent.is_none());
            }
        }

        #[test]
        fn any_bytes_are_a_frame_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Frame::parse(&bytes);
            let _ = Frame::parse(&[b"\x1e1 ", &bytes[..]].concat());
        }
    }
}
