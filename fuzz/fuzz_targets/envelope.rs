//! Whatever is `PUBLISH`ed on Redis is an event that reaches a client whole, or a refusal.
#![no_main]

use fanlight::protocol::channel::ChannelName;
use fanlight::protocol::envelope::parse_plain;
use fanlight::protocol::event::EventType;
use fanlight::protocol::sse::{Block, Framing};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../src/protocol/whatwg.rs"]
mod whatwg;

const MAX: usize = 512;

fuzz_target!(|payload: &[u8]| {
    for channel in ["jobs", "news"] {
        let channel = ChannelName::parse(channel).expect("a channel name");
        let Ok(event) = parse_plain(payload, &channel, MAX) else { continue };
        assert!(event.data.len() <= MAX);
        assert!(event.traceparent.as_ref().is_none_or(|trace| trace.len() == 55));
        let read = whatwg::interpret(Block::event(&event, None).bytes(Framing::Bare));
        assert_eq!(read.fired.len(), 1);
        assert_eq!(read.fired[0].data, whatwg::as_read(&event.data));
        assert_eq!(read.fired[0].kind, event.kind.as_ref().map_or("message", EventType::as_str));
        assert_eq!(read.fired[0].id, "", "a plain event must not move a client's position");
    }
});
