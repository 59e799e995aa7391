//! Publishing into the cluster through this node.

use tracing::{Instrument as _, field};

use super::{Node, spans};
use crate::broker::{Acknowledgement, BrokerError, Publication};
use crate::protocol::position::Position;
use crate::protocol::request::PublishEvent;
use crate::trace;

/// Why nothing was published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishRefusal {
    /// The broker could not be reached in time; whether it took the events is not known.
    #[error("the events may not have been published: {0}")]
    Unavailable(String),
    /// The broker refused.
    #[error("the events were not published: {0}")]
    Refused(String),
}

impl PublishRefusal {
    /// What went wrong, in one of few words.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
        }
    }
}

impl From<BrokerError> for PublishRefusal {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Unavailable(_) => Self::Unavailable(error.to_string()),
            BrokerError::Refused(_) => Self::Refused(error.to_string()),
        }
    }
}

impl Node {
    /// Publishes `events` in their order, all or none, and answers their positions.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses.
    pub async fn publish(&self, events: Vec<PublishEvent>) -> Result<Vec<Position>, PublishRefusal> {
        let span = spans::send(&events);
        let traceparent = trace::traceparent(&span);
        let mut batch: Vec<Publication> = events.into_iter().map(Publication::from).collect();
        for publication in &mut batch {
            publication.event.traceparent = traceparent.clone();
        }
        let published = self.append(batch).instrument(span.clone()).await;
        match published.as_deref() {
            Ok([position]) => _ = span.record("messaging.message.id", field::display(position)),
            Ok(_) => {}
            Err(error) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", error.kind());
            }
        }
        published
    }

    async fn append(&self, batch: Vec<Publication>) -> Result<Vec<Position>, PublishRefusal> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let published = self.broker.publish(&batch).await;
        self.tally.publication(published.is_ok());
        match &published {
            Ok(_) => self.publishing.worked(),
            Err(error) => self.publishing.failed(error),
        }
        let acknowledged = published?;
        // A repetition changes nothing, whatever it says this time.
        let appended: Vec<(&Publication, Position)> =
            batch.iter().zip(&acknowledged).filter_map(|(event, at)| Some((event, at.appended()?))).collect();
        self.tally.published(&appended);
        self.jobs.published(&appended).await;
        Ok(acknowledged.into_iter().map(Acknowledgement::position).collect())
    }
}

impl From<PublishEvent> for Publication {
    fn from(event: PublishEvent) -> Self {
        let PublishEvent { channel, event, idempotency_key } = event;
        Self { channel, event, idempotency_key }
    }
}
