//! Encoding: from an event to the bytes of an SSE block, framed for HTTP/1.1 and bare for HTTP/1.0.

use std::ops::Range;

use bytes::Bytes;

/// The bytes of one SSE block (or several), encoded once and shared by every subscriber.
///
/// Held as one HTTP/1.1 chunk; the bare block is a slice of it.
#[derive(Clone, Debug)]
pub struct Block {
    chunked: Bytes,
    bare: Range<usize>,
}

impl Block {
    /// The block as an HTTP/1.1 chunk (RFC 9112, section 7.1).
    pub fn chunked(&self) -> &Bytes {
        &self.chunked
    }

    /// The block alone, for HTTP/1.0.
    pub fn bare(&self) -> Bytes {
        self.chunked.slice(self.bare.clone())
    }
}
