//! The number in every event that is published, and how it is found again in what arrives.
//!
//! The data is `{"t":…,"pad":"xxx","id":N}`. The number stands last, so that an event counts only when its data is
//! complete, and its surroundings are such that nothing else has to be parsed to find it.

use memchr::memmem::Finder;

/// What stands before the number.
const MARKER: &[u8] = b",\"id\":";

/// JSON numbers that every reader takes exactly have at most 16 digits.
const MAX_DIGITS: usize = 16;

/// A marker, its digits and the closing brace.
const MAX_LEN: usize = MARKER.len() + MAX_DIGITS + 1;

/// The data of event `id`, of about `size` bytes; `unix_millis` is for whoever looks at the stream.
pub(super) fn data(id: u64, unix_millis: u64, size: usize) -> String {
    let head = format!("{{\"t\":{unix_millis},\"pad\":\"");
    let tail = format!("\",\"id\":{id}}}");
    let pad = size.saturating_sub(head.len() + tail.len());
    let mut data = String::with_capacity(head.len() + pad + tail.len());
    data.push_str(&head);
    data.extend(std::iter::repeat_n('x', pad));
    data.push_str(&tail);
    data
}

enum Found {
    Number(u64, usize),
    /// It may become one with more bytes.
    Begun,
    Nothing,
}

/// Reads a number behind a marker at the very start of `bytes`.
fn read(bytes: &[u8]) -> Found {
    let start = bytes.len().min(MARKER.len());
    if bytes[..start] != MARKER[..start] {
        return Found::Nothing;
    }
    let mut number = 0;
    for (digits, byte) in bytes[start..].iter().enumerate() {
        match byte {
            b'0'..=b'9' if digits < MAX_DIGITS => number = number * 10 + u64::from(byte - b'0'),
            b'}' if digits > 0 => return Found::Number(number, start + digits + 1),
            _ => return Found::Nothing,
        }
    }
    Found::Begun
}

/// Finds the numbers; one for all connections.
#[derive(Debug)]
pub(super) struct Scanner {
    finder: Finder<'static>,
}

/// The beginning of a marker at the end of what one connection has sent so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Carry {
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl Carry {
    fn get(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn set(&mut self, bytes: &[u8]) {
        self.bytes[..bytes.len()].copy_from_slice(bytes);
        self.len = bytes.len() as u8; // at most MAX_LEN
    }
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self { finder: Finder::new(MARKER) }
    }

    /// Calls `on` for every number in the next bytes of a connection.
    pub(super) fn scan(&self, carry: &mut Carry, payload: &[u8], on: &mut impl FnMut(u64)) {
        let mut rest = Self::finish(carry, payload, on);
        while let Some(at) = self.finder.find(rest) {
            match read(&rest[at..]) {
                Found::Number(number, len) => {
                    on(number);
                    rest = &rest[at + len..];
                }
                Found::Begun => return carry.set(&rest[at..]),
                Found::Nothing => rest = &rest[at + 1..],
            }
        }
        let tail = &rest[rest.len().saturating_sub(MARKER.len() - 1)..];
        if let Some(at) = memchr::memchr(MARKER[0], tail)
            && MARKER.starts_with(&tail[at..])
        {
            carry.set(&tail[at..]);
        }
    }

    /// Completes what was carried over, and gives what is left of the payload.
    fn finish<'a>(carry: &mut Carry, payload: &'a [u8], on: &mut impl FnMut(u64)) -> &'a [u8] {
        let before = carry.get().len();
        if before == 0 {
            return payload;
        }
        let added = payload.len().min(MAX_LEN - before);
        let mut joined = [0; MAX_LEN];
        joined[..before].copy_from_slice(carry.get());
        joined[before..before + added].copy_from_slice(&payload[..added]);
        carry.set(&[]);
        match read(&joined[..before + added]) {
            Found::Number(number, len) => {
                on(number);
                &payload[len - before..]
            }
            Found::Begun => {
                carry.set(&joined[..before + added]);
                &[]
            }
            // A marker has one comma, at its start: nothing else in what was carried can begin one.
            Found::Nothing => payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(chunks: &[&[u8]]) -> Vec<u64> {
        let (scanner, mut carry, mut found) = (Scanner::new(), Carry::default(), Vec::new());
        for chunk in chunks {
            scanner.scan(&mut carry, chunk, &mut |number| found.push(number));
        }
        found
    }

    #[test]
    fn data_is_json_of_the_size_asked_for_with_the_number_in_it() {
        let data = data(7, 1_700_000_000_000, 190);
        assert_eq!(data.len(), 190);
        let json: serde_json::Value = serde_json::from_str(&data).unwrap();
        assert_eq!(json["id"], 7);
        assert_eq!(numbers(&[data.as_bytes()]), [7]);
        assert_eq!(numbers(&[super::data(9_007_199_254_740_991, 1, 0).as_bytes()]), [9_007_199_254_740_991]);
    }

    #[test]
    fn nothing_else_on_a_stream_is_taken_for_a_number() {
        let other = br#"data: {"type":"hello","connectionId":"5"} ,"id":"7"} ,"id":} ,"id":12345678901234567} ,"id":7,"#;
        assert!(numbers(&[other]).is_empty());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            ids in proptest::collection::vec(0u64..1 << 53, 0..6),
            noise in "[,\"id:0-9}]{0,20}x",
            cuts in proptest::collection::vec(0usize..400, 0..20),
        ) {
            let text: String = ids.iter().map(|id| format!("{noise}data: {}\n\n", data(*id, 0, 40))).collect();
            let bytes = text.as_bytes();
            let whole = numbers(&[bytes]);
            prop_assert!(ids.iter().all(|id| whole.contains(id)));
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let edges: Vec<_> = std::iter::once(0).chain(cuts).chain([bytes.len()]).collect();
            let chunks: Vec<&[u8]> = edges.windows(2).map(|edge| &bytes[edge[0]..edge[1]]).collect();
            prop_assert_eq!(numbers(&chunks), whole);
        }
    }
}
