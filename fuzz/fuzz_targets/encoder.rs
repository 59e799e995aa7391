//! Whatever is encoded, alone or merged, is what an independent client reads back, in both framings.
#![no_main]

use fanlight::protocol::event::EventType;
use fanlight::protocol::position::{N_LIMIT, Position};
use fanlight::protocol::sse::{Block, Framing};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/protocol/whatwg.rs"]
mod whatwg;

type Input = Vec<(Option<String>, String, Option<(u64, u64)>, bool)>;

fuzz_target!(|input: Input| {
    let (mut blocks, mut expected, mut last_id) = (Vec::new(), Vec::new(), String::new());
    for (kind, data, id, comment) in input {
        if comment {
            blocks.push(Block::comment(&data));
            continue;
        }
        let kind = kind.and_then(|kind| EventType::parse(&kind).ok());
        let id = id.map(|(epoch, n)| Position { epoch: epoch % (1 << 44), n: n % N_LIMIT });
        blocks.push(Block::encode(kind.as_ref(), &data, id));
        last_id = id.map_or(last_id, |id| id.to_string());
        let kind = kind.map_or("message".to_owned(), |kind| kind.to_string());
        expected.push(whatwg::Fired { kind, data: whatwg::as_read(&data), id: last_id.clone() });
    }
    let merged = Block::merge(&blocks);
    let read = whatwg::interpret(merged.bytes(Framing::Bare));
    assert_eq!(read.fired, expected);
    assert!(read.unknown.is_empty() && read.retries.is_empty());
    assert_eq!(merged.events(), expected.len());
    assert_eq!(merged.events_left(Framing::Bare, merged.bytes(Framing::Bare).len()), 0);
    assert_eq!(merged.events_left(Framing::Chunked, merged.bytes(Framing::Chunked).len()), 0);
    let wire = [merged.bytes(Framing::Chunked), Framing::Chunked.end()].concat();
    assert_eq!(whatwg::dechunk(&wire), Some((merged.bare().to_vec(), true)));
});
