//! HTTP/1 as it stands on the wire: heads and body framings, kept to the byte. Strict: what is malformed panics.

/// A response head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Head {
    /// Every byte up to and with the empty line.
    pub(crate) raw: Vec<u8>,
    /// `HTTP/1.1`.
    pub(crate) version: String,
    /// 200.
    pub(crate) status: u16,
    /// Names in lower case, in the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    /// Takes a head from the front of `buffer`, if it is whole.
    pub(crate) fn take(buffer: &mut Vec<u8>) -> Option<Self> {
        let end = find(buffer, b"\r\n\r\n")? + 4;
        let rest = buffer.split_off(end);
        let raw = std::mem::replace(buffer, rest);
        let text = std::str::from_utf8(&raw).expect("a head in ASCII");
        let mut lines = text.trim_end().split("\r\n");
        let mut first = lines.next().unwrap().splitn(3, ' ');
        let version = first.next().unwrap().to_owned();
        let status =
            first.next().and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status in {text:?}"));
        let headers = lines
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Some(Self { raw, version, status, headers })
    }

    /// The value of the header `name` (lower case).
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// How the body's end is known.
    pub(crate) fn framing(&self) -> Framing {
        if self.get("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return Framing::Chunked(Chunks::default());
        }
        match self.get("content-length") {
            Some(length) => Framing::Length(length.parse().expect("a length")),
            None if self.status == 204 || self.status == 304 => Framing::Length(0),
            None => Framing::UntilClose,
        }
    }
}

/// How the end of a body is known.
#[derive(Clone, Debug)]
pub(crate) enum Framing {
    /// By the last chunk.
    Chunked(Chunks),
    /// After so many bytes more.
    Length(usize),
    /// By the end of the connection.
    UntilClose,
}

impl Framing {
    /// The body's bytes in `wire`.
    pub(crate) fn decode(&mut self, wire: &[u8]) -> Vec<u8> {
        match self {
            Self::Chunked(chunks) => chunks.decode(wire),
            Self::Length(left) => {
                let taken = wire.len().min(*left);
                *left -= taken;
                wire[..taken].to_vec()
            }
            Self::UntilClose => wire.to_vec(),
        }
    }

    /// The body has come to its declared end.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Self::Chunked(Chunks { finished: true, .. }) | Self::Length(0))
    }
}

/// A strict decoder of the chunked coding (RFC 9112, section 7.1), without extensions and trailers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    pending: Vec<u8>,
    /// The sizes of the chunks seen so far.
    pub(crate) sizes: Vec<usize>,
    finished: bool,
}

impl Chunks {
    fn decode(&mut self, wire: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(wire);
        let mut body = Vec::new();
        while let Some(line) = find(&self.pending, b"\r\n") {
            assert!(
                !self.finished,
                "bytes after the last chunk: {:?}",
                String::from_utf8_lossy(&self.pending)
            );
            let size = std::str::from_utf8(&self.pending[..line])
                .ok()
                .and_then(|s| usize::from_str_radix(s, 16).ok());
            let size =
                size.unwrap_or_else(|| panic!("no chunk size: {:?}", String::from_utf8_lossy(&self.pending)));
            let end = line + 2 + size;
            if self.pending.len() < end + 2 {
                break;
            }
            assert_eq!(
                &self.pending[end..end + 2],
                b"\r\n",
                "a chunk of {size} bytes does not end with CRLF"
            );
            body.extend_from_slice(&self.pending[line + 2..end]);
            self.pending.drain(..end + 2);
            self.finished = size == 0;
            self.sizes.push(size);
        }
        body
    }
}

/// Where `needle` begins in `haystack`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(haystack, needle)
}

mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_same_however_the_wire_is_cut() {
        let wire = b"5\r\nhello\r\nc\r\n, wide world\r\n0\r\n\r\n";
        for cut in 0..wire.len() {
            let mut chunks = Framing::Chunked(Chunks::default());
            let mut body = chunks.decode(&wire[..cut]);
            body.extend(chunks.decode(&wire[cut..]));
            assert_eq!(body, b"hello, wide world");
            assert!(chunks.is_complete());
        }
    }
}
