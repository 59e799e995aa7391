//! The command line's decoder makes of any stream, cut anywhere, what the independent client makes of it in one piece.
#![no_main]

use fanlight::protocol::sse_decoder::SseDecoder;
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/protocol/whatwg.rs"]
mod whatwg;

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let (mut decoder, mut events) = (SseDecoder::new(1 << 20), Vec::new());
    for piece in &pieces {
        decoder.feed(piece, &mut events).expect("below the limit");
    }
    let read = whatwg::interpret(&pieces.concat());
    let seen = |kind: &str, data: &str| (kind.to_owned(), data.to_owned());
    let ours: Vec<_> = events.iter().map(|event| seen(&event.kind, &event.data)).collect();
    let theirs: Vec<_> = read.fired.iter().map(|event| seen(&event.kind, &event.data)).collect();
    assert_eq!(ours, theirs);
    for (event, fired) in events.iter().zip(&read.fired) {
        assert!(event.id.as_ref().is_none_or(|id| *id == fired.id));
    }
    assert_eq!(decoder.retry().map(|retry| retry.as_millis()), read.retries.last().map(|&ms| u128::from(ms)));
});
