//! What nodes say to each other: JSON, so that nodes of different versions understand the parts that both know.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::channel::ChannelName;

/// The most rows in one answer: a page that stays below a megabyte.
pub const MAX_ROWS: usize = 1000;

/// A message from one node to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum PeerMessage {
    /// A question to every node; each answers into the asker's mailbox.
    Ask {
        /// Tells the answers apart.
        question: Uuid,
        /// The asker's mailbox.
        reply_to: String,
        /// What is asked.
        ask: Ask,
    },
    /// An answer.
    Answer {
        /// Which question.
        question: Uuid,
        /// What was asked for.
        answer: Answer,
    },
    /// Some of the connections of the node with this tag are to be replaced: it should look at its lease now.
    Nudge {
        /// The node's tag in the leases.
        tag: String,
    },
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub enum Ask {
    /// Which of your connections are these?
    Connections(Page),
    /// Close these of your connections.
    Kick(Filter),
    /// Drain, if this is your name.
    Drain {
        /// The name of a node, as the statistics tell it.
        node: String,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "camelCase")]
pub enum Answer {
    /// The first rows of the page that are this node's.
    Connections {
        /// In the order of their ids.
        rows: Vec<ConnectionRow>,
    },
    /// What was closed.
    Kicked {
        /// How many.
        count: usize,
    },
    /// Who drains now.
    Draining {
        /// What is ended; `None` by whoever was not meant.
        drain: Option<Drain>,
    },
}

/// A drain that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Which node.
    pub node: String,
    /// Over how many milliseconds the closings are spread.
    pub over_ms: u64,
    /// Streams that are open.
    pub connections: usize,
}

/// Which connections; an empty filter means all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// This one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Those of this address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Those of this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<Box<str>>,
    /// Those that hear all of this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
}

impl Filter {
    /// What it filters by, without saying whom: a session is its owner's.
    pub fn names(&self) -> String {
        let Self { id, ip, session, channel } = self;
        let by = [
            ("id", id.is_some()),
            ("ip", ip.is_some()),
            ("session", session.is_some()),
            ("channel", channel.is_some()),
        ];
        by.into_iter().filter_map(|(name, given)| given.then_some(name)).collect::<Vec<_>>().join(",")
    }
}

/// A page of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Which connections.
    pub filter: Filter,
    /// Only ids after this one.
    pub after: Option<Uuid>,
    /// How many at most; not more than [`MAX_ROWS`].
    pub limit: usize,
}

/// A connection, as the contract lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRow {
    /// Its id.
    pub id: Uuid,
    /// The node that holds it.
    pub node: String,
    /// The client's address.
    pub ip: IpAddr,
    /// The client's session.
    pub session: Option<Box<str>>,
    /// What the client says it is.
    pub user_agent: Option<Box<str>>,
    /// What it hears.
    pub channels: Vec<String>,
    /// When it opened: RFC 3339, by the node's clock.
    pub created_at: String,
    /// When the last event was queued for it.
    pub last_activity_at: String,
    /// How long it has been open, in milliseconds.
    pub duration_ms: u64,
    /// Events that the kernel has taken.
    pub messages_sent: u64,
    /// Bytes that the kernel has taken.
    pub bytes_sent: u64,
    /// Events waiting.
    pub queued: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_back_as_they_were_written() {
        let filter = Filter { ip: Some([127, 0, 0, 1].into()), ..Filter::default() };
        let question = Uuid::nil();
        let messages = [
            PeerMessage::Ask { question, reply_to: "m".into(), ask: Ask::Kick(filter.clone()) },
            PeerMessage::Ask {
                question,
                reply_to: "m".into(),
                ask: Ask::Connections(Page { filter, after: None, limit: 5 }),
            },
            PeerMessage::Answer { question, answer: Answer::Kicked { count: 3 } },
        ];
        for message in messages {
            let text = serde_json::to_vec(&message).unwrap();
            assert_eq!(serde_json::from_slice::<PeerMessage>(&text).unwrap(), message);
        }
    }
}
