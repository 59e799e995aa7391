//! Who is connected anywhere in the cluster, and ending connections wherever they are.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::mpsc;
use uuid::{NoContext, Timestamp, Uuid};

use super::Node;
use super::peers::PeersUnreachable;
use crate::broker::Recipient;
use crate::hub::{Listed, Matching, Selection};
use crate::protocol::close::CloseReason;
use crate::protocol::peer::{Answer, Ask, ConnectionRow, Filter, MAX_ROWS, Page, PeerMessage};

/// Messages of other nodes that may wait for an answer; more are dropped, and whoever asked gets a partial answer.
pub(super) const PEER_QUEUE: usize = 256;

/// A page of the cluster's connections.
#[derive(Clone, Debug)]
pub struct ConnectionPage {
    /// In the order of their ids.
    pub rows: Vec<ConnectionRow>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Uuid>,
    /// Not every node has answered.
    pub partial: bool,
}

/// What a kick did.
#[derive(Clone, Copy, Debug)]
pub struct Kicked {
    /// Connections that were closed.
    pub count: usize,
    /// Not every node has answered.
    pub partial: bool,
}

impl Node {
    /// A page of the connections of the whole cluster.
    ///
    /// # Errors
    /// When the other nodes cannot be asked.
    pub async fn connections(&self, mut page: Page) -> Result<ConnectionPage, PeersUnreachable> {
        page.limit = page.limit.clamp(1, MAX_ROWS);
        let limit = page.limit;
        let said = self.peers.ask(Ask::Connections(page)).await?;
        let mut rows: Vec<ConnectionRow> = Vec::new();
        let mut more = false;
        for answer in said.answers {
            if let Answer::Connections { rows: part } = answer {
                more |= part.len() >= limit;
                rows.extend(part);
            }
        }
        rows.sort_by_key(|row| row.id);
        more |= rows.len() > limit;
        rows.truncate(limit);
        let next = if more { rows.last().map(|row| row.id) } else { None };
        Ok(ConnectionPage { rows, next, partial: said.partial })
    }

    /// Ends connections with `bye` `kicked`, on whatever node they are.
    ///
    /// # Errors
    /// When the other nodes cannot be told.
    pub async fn kick(&self, filter: Filter) -> Result<Kicked, PeersUnreachable> {
        let (id, by) = (filter.id, filter.names());
        let said = self.peers.ask(Ask::Kick(filter)).await?;
        let count = |answer: &Answer| if let Answer::Kicked { count } = answer { *count } else { 0 };
        let kicked = Kicked { count: said.answers.iter().map(count).sum(), partial: said.partial };
        let Kicked { count, partial } = kicked;
        tracing::info!(connection = id.map(tracing::field::display), by, count, partial, "streams kicked");
        Ok(kicked)
    }

    /// Answers what other nodes ask, until the broker's end of the queue is gone.
    pub(super) async fn answer_peers(self: Arc<Self>, mut words: mpsc::Receiver<Vec<u8>>) {
        while let Some(words) = words.recv().await {
            match serde_json::from_slice(&words) {
                Ok(PeerMessage::Ask { question, reply_to, ask }) => {
                    let answer = PeerMessage::Answer { question, answer: self.answer(ask).await };
                    if let Err(error) = self.peers.tell(&Recipient::Mailbox(reply_to), &answer).await {
                        tracing::warn!(%error, "cannot answer another node");
                    }
                }
                Ok(PeerMessage::Answer { question, answer }) => self.peers.answered(question, answer),
                Ok(PeerMessage::Nudge { tag }) => {
                    if self.admission.tag().is_some_and(|own| own.to_string() == tag) {
                        self.admission.nudged();
                    }
                }
                Err(error) => {
                    // Newer nodes may send one for each stream.
                    tracing::debug!(%error, "a message between nodes that this version does not know")
                }
            }
        }
    }

    async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Drain { node } => {
                let drain = (node == self.id()).then(|| self.order_drain());
                Answer::Draining { drain }
            }
            Ask::Connections(page) => Answer::Connections { rows: self.own_rows(page).await },
            // No node asks for this; whoever did must say whom he means.
            Ask::Kick(filter) if filter == Filter::default() => Answer::Kicked { count: 0 },
            Ask::Kick(filter) => match self.matching(filter) {
                Some(matching) => {
                    let count = self.hub.close_matching(matching, CloseReason::Kicked).await;
                    tracing::debug!(count, "streams of this node kicked");
                    Answer::Kicked { count }
                }
                None => Answer::Kicked { count: 0 },
            },
        }
    }

    async fn own_rows(&self, page: Page) -> Vec<ConnectionRow> {
        let Page { filter, after, limit } = page;
        let limit = limit.clamp(1, MAX_ROWS);
        let Some(matching) = self.matching(filter) else { return Vec::new() };
        let mut listed = self.hub.list(Selection { matching, after, limit }).await;
        listed.sort_by_key(|row| row.id);
        listed.truncate(limit);
        listed.into_iter().map(|row| self.row(row)).collect()
    }

    /// `None` when nobody on this node can match.
    fn matching(&self, filter: Filter) -> Option<Matching> {
        let Filter { id, ip, session, channel } = filter;
        let topic = match channel {
            Some(channel) => Some(self.interest.find(&channel, None).0?),
            None => None,
        };
        Some(Matching { id, ip, session, topic })
    }

    fn row(&self, listed: Listed) -> ConnectionRow {
        let opened = opened_at(listed.id);
        let active = opened.saturating_add(listed.age_ms.saturating_sub(listed.idle_ms));
        ConnectionRow {
            id: listed.id,
            node: self.id().to_owned(),
            ip: listed.about.ip,
            session: listed.about.session,
            user_agent: listed.about.user_agent.map(|agent| (*agent).into()),
            channels: self.interest.names(&listed.topics),
            created_at: timestamp(opened),
            last_activity_at: timestamp(active),
            duration_ms: listed.age_ms,
            messages_sent: listed.events_sent,
            bytes_sent: listed.bytes_sent,
            queued: listed.queued,
        }
    }
}

/// An id for a connection that opens now, in milliseconds of Unix time. The id carries that time (RFC 9562, section 5.7), so
/// that every listing of the connection says the same one: reckoned back from its age it would move with the age's rounding.
pub(super) fn fresh_id(now: u64) -> Uuid {
    let nanos = Duration::from_millis(now % 1000).subsec_nanos();
    Uuid::new_v7(Timestamp::from_unix(NoContext, now / 1000, nanos))
}

/// When the connection of this id opened, in milliseconds of Unix time.
fn opened_at(id: Uuid) -> u64 {
    let (seconds, nanos) = id.get_timestamp().map_or((0, 0), |at| at.to_unix());
    seconds * 1000 + u64::from(nanos) / 1_000_000
}

/// RFC 3339 with milliseconds.
fn timestamp(unix_millis: u64) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_when_its_connection_opened_and_is_no_other_ones() {
        for at in [0, 999, 1_763_736_071_123, (1 << 48) - 1] {
            let (one, other) = (fresh_id(at), fresh_id(at));
            assert_eq!((opened_at(one), opened_at(other)), (at, at));
            assert_ne!(one, other);
        }
    }
}
