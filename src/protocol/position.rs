//! The position of a durable event: the opaque `id:` that a client gives back to resume.
//!
//! `<epoch>-<n>` in lower-case hexadecimal. `n` rises over all channels of one Redis; the epoch names the life of the
//! data that `n` counts in, so that a Redis that came back empty is noticed. Fixed width, so that texts sort as positions do.

use std::fmt;

/// The longest text that [`Position::parse`] looks at, in bytes (the contract's bound).
pub const MAX_LEN: usize = 64;

/// `n` stays below this so that a Redis script (IEEE doubles) counts exactly.
pub const N_LIMIT: u64 = 1 << 53;

/// `n` counts in steps of 1/2048 ms: a time in milliseconds is shifted by so many bits. It keeps ahead of the clock at two
/// million events a second.
pub const STEP_BITS: u32 = 11;

/// A place in the history of one Redis. Ordered by epoch (a time of birth), then by `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// When the data was born, in Unix milliseconds; below 2^44.
    pub epoch: u64,
    /// The event's number in that life; below [`N_LIMIT`].
    pub n: u64,
}

const EPOCH_DIGITS: usize = 11;
const N_DIGITS: usize = 14;

impl Position {
    /// Reads the text form; `None` for everything that this cluster cannot have written.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, n) = text.split_once('-')?;
        let hex = |digits: &str, width: usize| {
            let canonical = digits.len() == width
                && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            canonical.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        let position = Self { epoch: hex(epoch, EPOCH_DIGITS)?, n: hex(n, N_DIGITS)? };
        (position.n < N_LIMIT).then_some(position)
    }

    /// When the event was published, in Unix milliseconds on the broker's clock: ahead of that clock when it was set back, or
    /// while more than two million events a second are published.
    pub const fn unix_millis(self) -> u64 {
        self.n >> STEP_BITS
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0ew$x}-{:0nw$x}", self.epoch, self.n, ew = EPOCH_DIGITS, nw = N_DIGITS)
    }
}

impl serde::Serialize for Position {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back_and_fits_the_contract(epoch in 0u64..1 << 44, n in 0..N_LIMIT) {
            let position = Position { epoch, n };
            let text = position.to_string();
            prop_assert_eq!(Position::parse(&text), Some(position));
            prop_assert!(text.len() <= MAX_LEN);
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')));
        }

        #[test]
        fn texts_sort_as_positions_do(a in (0u64..1 << 44, 0..N_LIMIT), b in (0u64..1 << 44, 0..N_LIMIT)) {
            let (a, b) = (Position { epoch: a.0, n: a.1 }, Position { epoch: b.0, n: b.1 });
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".*") {
            if let Some(position) = Position::parse(&text) {
                prop_assert_eq!(position.to_string(), text);
            }
        }
    }
}
