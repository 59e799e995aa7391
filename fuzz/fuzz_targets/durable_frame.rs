//! Any message that claims to be a durable frame is refused, or is read as the one thing that it can mean.
#![no_main]

use fanlight::protocol::channel::ChannelName;
use fanlight::protocol::durable::{Frame, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let channel = ChannelName::parse("news").expect("a channel name");
    for payload in [bytes.to_vec(), [b"\x1e1 ", bytes].concat()] {
        let Ok(frame) = Frame::parse(&payload) else { continue };
        assert!(frame.previous.is_none_or(|previous| previous < frame.position));
        let Ok(event) = frame.event(&channel, 512) else { continue };
        let again = encode(frame.position, frame.previous.map(|previous| previous.n), &event);
        let frame = Frame::parse(&again).expect("our own frame");
        assert_eq!(frame.event(&channel, 512), Ok(event));
        // Only a traceparent may be read differently from how it was written: corrected or dropped.
        assert!(again.len() <= payload.len());
    }
});
