//! An HTTP/1 answer, cut anywhere, into its parts: status, payload, end (RFC 9112).
//!
//! Cheap rather than general: payload is handed on as slices of what was read. One reader takes any number of answers of
//! one connection after the other.

use anyhow::{Result, bail};

/// The longest head, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// The head is there.
    Head {
        /// Its status.
        status: u16,
    },
    /// Some of the body, without its framing.
    Payload(&'a [u8]),
    /// The answer is complete.
    End,
}

/// The reader's place in an answer.
#[derive(Debug)]
pub(super) enum ResponseReader {
    /// In the head; what has come of it.
    Head(Vec<u8>),
    /// In a chunked body.
    Chunked(Chunk),
    /// This many bytes of the body are still to come.
    Length(u64),
    /// The body lasts until the connection ends.
    UntilClosed,
}

/// The place in a chunked body (RFC 9112, section 7.1).
#[derive(Clone, Copy, Debug)]
pub(super) enum Chunk {
    /// In the hexadecimal size.
    Size(u64),
    /// Behind the size, in extensions or before the LF.
    SizeEnd(u64),
    /// This many bytes of the chunk are still to come.
    Data(u64),
    /// In the CRLF behind a chunk.
    DataEnd,
    /// Behind the last chunk; how many bytes of the present trailer line have come, CR excluded.
    Trailer(usize),
}

impl Default for ResponseReader {
    fn default() -> Self {
        Self::Head(Vec::new())
    }
}

impl ResponseReader {
    /// Takes the next bytes and calls `on` for every part that they hold.
    ///
    /// # Errors
    /// When it is not HTTP/1, or `on` fails.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        on: &mut impl FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            bytes = match self {
                Self::Head(_) => self.take_head(bytes, on)?,
                Self::Length(left) => {
                    let (payload, rest) = split(bytes, *left);
                    *left -= payload.len() as u64;
                    let ended = *left == 0;
                    on(Part::Payload(payload))?;
                    self.end_if(ended, on)?;
                    rest
                }
                Self::UntilClosed => {
                    on(Part::Payload(bytes))?;
                    &[]
                }
                Self::Chunked(chunk) => {
                    let (rest, ended) = chunk.take(bytes, on)?;
                    self.end_if(ended, on)?;
                    rest
                }
            };
        }
        Ok(())
    }

    fn end_if(&mut self, ended: bool, on: &mut impl FnMut(Part<'_>) -> Result<()>) -> Result<()> {
        if ended {
            *self = Self::default();
            on(Part::End)?;
        }
        Ok(())
    }

    fn take_head<'a>(
        &mut self,
        bytes: &'a [u8],
        on: &mut impl FnMut(Part<'_>) -> Result<()>,
    ) -> Result<&'a [u8]> {
        let Self::Head(head) = self else {
            return Ok(bytes);
        };
        let before = head.len();
        head.extend_from_slice(bytes);
        let from = before.saturating_sub(3);
        let Some(end) = memchr::memmem::find(&head[from..], b"\r\n\r\n").map(|at| from + at + 4) else {
            if head.len() > MAX_HEAD {
                bail!("the head of the answer is longer than {MAX_HEAD} bytes");
            }
            return Ok(&[]);
        };
        head.truncate(end);
        let (status, body) = read_head(head)?;
        *self = body;
        on(Part::Head { status })?;
        self.end_if(matches!(self, Self::Length(0)), on)?;
        Ok(&bytes[end - before..])
    }
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len()))
}

impl Chunk {
    /// Takes what belongs to one state; whether the body has ended comes second.
    fn take<'a>(
        &mut self,
        bytes: &'a [u8],
        on: &mut impl FnMut(Part<'_>) -> Result<()>,
    ) -> Result<(&'a [u8], bool)> {
        let (first, rest) = (bytes[0], &bytes[1..]);
        *self = match *self {
            Self::Size(size) => match (first as char).to_digit(16) {
                Some(_) if size >> 56 != 0 => bail!("a chunk of an impossible size"),
                Some(digit) => Self::Size(size << 4 | u64::from(digit)),
                None => Self::SizeEnd(size),
            },
            Self::SizeEnd(size) if first == b'\n' && size == 0 => Self::Trailer(0),
            Self::SizeEnd(size) if first == b'\n' => Self::Data(size),
            Self::SizeEnd(size) => Self::SizeEnd(size),
            Self::Data(left) => {
                let (payload, rest) = split(bytes, left);
                on(Part::Payload(payload))?;
                let left = left - payload.len() as u64;
                *self = if left == 0 { Self::DataEnd } else { Self::Data(left) };
                return Ok((rest, false));
            }
            Self::DataEnd if first == b'\n' => Self::Size(0),
            Self::DataEnd if first == b'\r' => Self::DataEnd,
            Self::DataEnd => bail!("a chunk is longer than its size"),
            Self::Trailer(0) if first == b'\n' => return Ok((rest, true)),
            Self::Trailer(_) if first == b'\n' => Self::Trailer(0),
            Self::Trailer(length) if first == b'\r' => Self::Trailer(length),
            Self::Trailer(length) => Self::Trailer(length + 1),
        };
        // A size that is followed by its LF at once (no CR) is taken too.
        if let (Self::SizeEnd(size), b'\n') = (*self, first) {
            *self = if size == 0 { Self::Trailer(0) } else { Self::Data(size) };
        }
        Ok((rest, false))
    }
}

/// The status, and how the body is framed (RFC 9112, section 6.3).
fn read_head(head: &[u8]) -> Result<(u16, ResponseReader)> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let status = lines.next().unwrap_or_default();
    let Some(status) = status.strip_prefix("HTTP/1.").and_then(|s| s.get(2..5)).and_then(|s| s.parse().ok())
    else {
        bail!("the answer is not HTTP/1: {:?}", status.chars().take(40).collect::<String>());
    };
    let fields: Vec<_> = lines.filter_map(|line| line.split_once(':')).collect();
    let field =
        |name: &str| fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim());
    let chunked =
        field("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked"));
    let length = field("content-length").and_then(|value| value.parse().ok());
    let body = match (status, chunked, length) {
        (100..200 | 204 | 304, ..) => ResponseReader::Length(0),
        (_, true, _) => ResponseReader::Chunked(Chunk::Size(0)),
        (_, false, Some(length)) => ResponseReader::Length(length),
        (_, false, None) => ResponseReader::UntilClosed,
    };
    Ok((status, body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Statuses and ends as text, payload as it comes.
    fn parts(chunks: &[&[u8]]) -> Result<String> {
        let mut seen = Vec::new();
        let mut reader = ResponseReader::default();
        for chunk in chunks {
            reader.feed(chunk, &mut |part| {
                match part {
                    Part::Head { status } => seen.extend_from_slice(format!("<{status}>").as_bytes()),
                    Part::Payload(payload) => seen.extend_from_slice(payload),
                    Part::End => seen.extend_from_slice(b"</>"),
                }
                Ok(())
            })?;
        }
        Ok(String::from_utf8_lossy(&seen).into_owned())
    }

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
    const LENGTH: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\nok";
    const EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";

    #[test]
    fn every_framing_is_taken_off() {
        assert_eq!(parts(&[CHUNKED.as_bytes()]).unwrap(), "<200>abc0123456789</>");
        let one_after_the_other = format!("{LENGTH}{EMPTY}{LENGTH}{CHUNKED}");
        assert_eq!(
            parts(&[one_after_the_other.as_bytes()]).unwrap(),
            "<202>ok</><204></><202>ok</><200>abc0123456789</>"
        );
        assert_eq!(parts(&[b"HTTP/1.0 200 OK\r\n\r\ndata: x\n\n"]).unwrap(), "<200>data: x\n\n");
    }

    #[test]
    fn what_is_not_http_is_an_error() {
        assert!(parts(&[b"220 smtp ready\r\n\r\n"]).is_err());
        assert!(parts(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n"]).is_err());
        assert!(parts(&[&[b'x'; MAX_HEAD + 1]]).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(cuts in proptest::collection::vec(0usize..300, 0..10)) {
            let text = format!("{LENGTH}{CHUNKED}{EMPTY}{CHUNKED}");
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let edges: Vec<_> = std::iter::once(0).chain(cuts).chain([bytes.len()]).collect();
            let chunks: Vec<&[u8]> = edges.windows(2).map(|edge| &bytes[edge[0]..edge[1]]).collect();
            prop_assert_eq!(parts(&chunks).unwrap(), parts(&[bytes]).unwrap());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parts(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &body]);
            let _ = parts(&[&body]);
        }
    }
}
