//! Who is connected: what can be asked of a shard without disturbing its fanout.
//!
//! A shard answers with the first rows of a selection by id, so a listing of any length comes in pages, each of which costs
//! one look at every connection and as many rows as were asked for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::TopicId;
use super::connection::Connection;
use super::wheel::{GRANULARITY, WheelTick};

/// Who a connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// The client's address.
    pub ip: IpAddr,
    /// The token that the client chose.
    pub session: Option<Box<str>>,
    /// What the client says it is; shared, since most say the same.
    pub user_agent: Option<Arc<str>>,
}

/// Which connections are meant; what is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matching {
    /// This one.
    pub id: Option<Uuid>,
    /// Those of this address.
    pub ip: Option<IpAddr>,
    /// Those of this session.
    pub session: Option<Box<str>>,
    /// Those that hear this topic.
    pub topic: Option<TopicId>,
}

/// A page of connections, in the order of their ids.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Which.
    pub matching: Matching,
    /// Only ids after this one.
    pub after: Option<Uuid>,
    /// How many at most.
    pub limit: usize,
}

/// A connection as it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub about: About,
    /// What it hears.
    pub topics: Box<[TopicId]>,
    /// How long it has been open, in milliseconds.
    pub age_ms: u64,
    /// How long ago the last event was queued for it, in milliseconds; its age when there was none.
    pub idle_ms: u64,
    /// Events that the kernel has taken.
    pub events_sent: u64,
    /// Bytes that the kernel has taken.
    pub bytes_sent: u64,
    /// Events waiting.
    pub queued: usize,
}

impl Matching {
    pub(super) fn takes(&self, connection: &Connection) -> bool {
        let about = connection.membership.about();
        self.id.is_none_or(|id| id == connection.id)
            && self.ip.is_none_or(|ip| ip == about.ip)
            && self.session.as_ref().is_none_or(|session| about.session.as_ref() == Some(session))
            && self.topic.is_none_or(|topic| connection.membership.topics().contains(&topic))
    }
}

impl Selection {
    /// The first connections of the selection.
    pub(super) fn take<'a>(
        &self,
        connections: impl Iterator<Item = &'a Connection>,
        now: WheelTick,
    ) -> Vec<Listed> {
        let mut first: BTreeMap<Uuid, &Connection> = BTreeMap::new();
        for connection in connections {
            let in_page = self.after.is_none_or(|after| connection.id > after);
            if in_page && self.matching.takes(connection) {
                first.insert(connection.id, connection);
                if first.len() > self.limit {
                    first.pop_last();
                }
            }
        }
        first.into_values().map(|connection| Listed::of(connection, now)).collect()
    }
}

impl Listed {
    fn of(connection: &Connection, now: WheelTick) -> Self {
        let millis = |since: WheelTick| u64::from(now.saturating_sub(since)) * GRANULARITY.as_millis() as u64;
        Self {
            id: connection.id,
            about: connection.membership.about().clone(),
            topics: connection.membership.topics().into(),
            age_ms: millis(connection.opened),
            idle_ms: millis(connection.last_event),
            events_sent: connection.events_sent,
            bytes_sent: connection.bytes_sent,
            queued: connection.waiting_events(),
        }
    }
}
