//! Any body of `POST /api/events` is a list of publishable events or a short refusal in one line.
#![no_main]

use fanlight::protocol::request::PublishRequest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    match PublishRequest::parse(body, 512) {
        Ok(PublishRequest::One(event)) => assert!(event.event.data.len() <= 512),
        Ok(PublishRequest::Many(events)) => assert!(events.iter().all(|e| e.event.data.len() <= 512)),
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 1000 && !text.contains(['\r', '\n']), "{text}");
        }
    }
});
