//! A position that a client sends has one text, which fits into a header; everything else is not ours.
#![no_main]

use fanlight::protocol::position::{MAX_LEN, Position};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(position) = Position::parse(text) {
        assert_eq!(position.to_string(), text);
        assert!(text.len() <= MAX_LEN);
    }
});
