//! Control events: what the server itself tells a client, byte for byte as the contract has it.
//!
//! They are no events of any channel: they carry no `id:`, so that a client's position stays what it was (only the first
//! block of a client without one gives it its first, and one behind the gaps that a resuming client is told moves it past
//! them), and a [`Block`] counts them as none. All text in them goes through JSON, which has no line breaks.

use serde::Serialize;

use super::channel::ChannelName;
use super::close::{CloseReason, GapReason};
use super::position::Position;
use super::sse::Block;

/// The first block of a stream.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a> {
    /// When to reconnect, in milliseconds; jittered per connection by the caller.
    pub retry_ms: u64,
    /// Whether there is an `event: connected` line; without it the block fires `message`, as the jobs streams promise.
    pub named: bool,
    /// The connection's id.
    pub connection_id: &'a str,
    /// The node's id.
    pub node: &'a str,
    /// The channels that the stream carries.
    pub channels: &'a [ChannelName],
    /// Whether everything after the client's position is delivered; `None` when it came without a position.
    pub recovered: Option<bool>,
    /// Where a client without a position begins; from here on it misses nothing when it comes back.
    pub position: Option<Position>,
}

impl Hello<'_> {
    /// The block.
    pub fn block(&self) -> Block {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Data<'a> {
            r#type: &'static str,
            connection_id: &'a str,
            node: &'a str,
            channels: &'a [ChannelName],
            #[serde(skip_serializing_if = "Option::is_none")]
            recovered: Option<bool>,
        }
        let Self { connection_id, node, channels, recovered, .. } = *self;
        let data = Data { r#type: "hello", connection_id, node, channels, recovered };
        block_at(Some(self.retry_ms), self.named.then_some("connected"), &data, self.position)
    }
}

/// The last block of a stream: why it ends, and when to come back if at all.
pub fn bye(reason: CloseReason, retry_ms: u64) -> Block {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        reason: &'static str,
        reconnect: bool,
        retry_ms: u64,
    }
    let data = Data { reason: reason.name(), reconnect: reason.reconnect(), retry_ms };
    block(Some(retry_ms), Some("bye"), &data)
}

/// Events of `channel` may be missing: the client fetches its state again.
pub fn gap(channel: &ChannelName, reason: GapReason) -> Block {
    #[derive(Serialize)]
    struct Data<'a> {
        channel: &'a ChannelName,
        reason: &'static str,
    }
    block(None, Some("gap"), &Data { channel, reason: reason.name() })
}

/// No event, only where the client stands from here on: after gaps, so that it is not told the same ones at each return.
pub fn position(position: Position) -> Block {
    Block::from_text(&format!("id: {position}\n\n"))
}

/// A refusal inside a 200 answer (`onLimit=soft`), with the refusal's code.
pub fn limit(code: &str, retry_ms: u64) -> Block {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        code: &'a str,
        retry_ms: u64,
    }
    block(Some(retry_ms), Some("limit"), &Data { code, retry_ms })
}

fn block(retry_ms: Option<u64>, name: Option<&str>, data: &impl Serialize) -> Block {
    block_at(retry_ms, name, data, None)
}

fn block_at(
    retry_ms: Option<u64>,
    name: Option<&str>,
    data: &impl Serialize,
    position: Option<Position>,
) -> Block {
    // Strings, numbers and lists of them cannot fail to serialise.
    let data = serde_json::to_string(data).unwrap_or_default();
    let retry = retry_ms.map(|ms| format!("retry: {ms}\n")).unwrap_or_default();
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    let id = position.map(|position| format!("id: {position}\n")).unwrap_or_default();
    Block::from_text(&format!("{retry}{name}data: {data}\n{id}\n"))
}

#[cfg(test)]
mod tests {
    use super::super::whatwg::interpret;
    use super::*;
    use proptest::prelude::*;

    fn text(block: &Block) -> String {
        String::from_utf8(block.bare().to_vec()).unwrap()
    }

    fn channel(name: &str) -> ChannelName {
        ChannelName::parse(name).unwrap()
    }

    #[test]
    fn hello_is_the_contracts_first_block() {
        let channels = [channel("jobs")];
        let hello = Hello {
            retry_ms: 3217,
            named: true,
            connection_id: "c-1",
            node: "n\n\"1",
            channels: &channels,
            recovered: Some(true),
            position: None,
        };
        assert_eq!(
            text(&hello.block()),
            "retry: 3217\nevent: connected\ndata: {\"type\":\"hello\",\"connectionId\":\"c-1\",\"node\":\"n\\n\\\"1\",\
             \"channels\":[\"jobs\"],\"recovered\":true}\n\n"
        );
        assert_eq!(
            text(&Hello { named: false, node: "n", recovered: None, ..hello }.block()),
            "retry: 3217\ndata: {\"type\":\"hello\",\"connectionId\":\"c-1\",\"node\":\"n\",\"channels\":[\"jobs\"]}\n\n"
        );
        let first = Hello { position: Some(Position { epoch: 1, n: 2 }), ..hello };
        assert!(text(&first.block()).ends_with("\"recovered\":true}\nid: 00000000001-00000000000002\n\n"));
    }

    #[test]
    fn bye_says_the_same_time_in_its_retry_line_and_its_data() {
        assert_eq!(
            text(&bye(CloseReason::ServerShutdown, 4100)),
            "retry: 4100\nevent: bye\ndata: {\"reason\":\"server_shutdown\",\"reconnect\":true,\"retryMs\":4100}\n\n"
        );
        assert_eq!(
            text(&bye(CloseReason::Kicked, 1)),
            "retry: 1\nevent: bye\ndata: {\"reason\":\"kicked\",\"reconnect\":false,\"retryMs\":1}\n\n"
        );
    }

    #[test]
    fn gap_and_limit_are_the_contracts() {
        assert_eq!(
            text(&gap(&channel("a:b"), GapReason::BrokerInterrupted)),
            "event: gap\ndata: {\"channel\":\"a:b\",\"reason\":\"broker_interrupted\"}\n\n"
        );
        assert_eq!(
            text(&limit("ip_limit", 15000)),
            "retry: 15000\nevent: limit\ndata: {\"code\":\"ip_limit\",\"retryMs\":15000}\n\n"
        );
    }

    #[test]
    fn control_blocks_count_as_no_event() {
        for block in [gap(&channel("a"), GapReason::HistoryLost), bye(CloseReason::MaxAge, 1), limit("c", 1)]
        {
            assert_eq!(block.events(), 0);
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_a_control_event(node in any::<String>(), code in any::<String>(), n: u64) {
            let hello =
                Hello { retry_ms: n, named: true, connection_id: &node, node: &node, channels: &[], recovered: None, position: None };
            for (block, member, value) in [(hello.block(), "node", &node), (limit(&code, n), "code", &code)] {
                let read = interpret(&block.bare());
                prop_assert_eq!((read.fired.len(), &read.retries, read.unknown.len()), (1, &vec![n], 0));
                let data: serde_json::Value = serde_json::from_str(&read.fired[0].data).unwrap();
                prop_assert_eq!(data[member].as_str(), Some(value.as_str()));
                prop_assert_eq!(&read.fired[0].id, "");
            }
        }
    }
}
