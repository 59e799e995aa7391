//! The stream of one job: where it stands, then its events under names of their own, closed after the terminal one.

use uuid::Uuid;

use super::Node;
use super::resume::Release;
use super::subscribe::Greeting;
use crate::hub::ConnectionKey;
use crate::jobs::{JobState, JobUpdate, Place, Status};
use crate::protocol::channel::ChannelName;
use crate::protocol::close::GapReason;
use crate::protocol::event::{Delivery, Event, EventType, Key};
use crate::protocol::position::Position;
use crate::protocol::sse::Block;

/// An event as the stream of its job shows it.
pub(super) struct View {
    pub(super) block: Block,
    /// Nothing comes after it.
    pub(super) last: bool,
}

impl View {
    /// What `event`, of channel `jobs`, is on its job's stream. An event that says nothing of the status is progress.
    pub(super) fn of(event: &Event, position: Option<Position>) -> Self {
        let status = JobUpdate::from_event(event, Place::default()).map(|update| update.status);
        Self::new(status.unwrap_or(Status::InProgress), &event.data, position)
    }

    fn new(status: Status, data: &str, position: Option<Position>) -> Self {
        let name = match status {
            Status::Pending | Status::InProgress => "progress",
            Status::Completed => "completed",
            Status::Cancelled | Status::Error => "failed",
        };
        let block = Block::encode(EventType::parse(name).ok().as_ref(), data, position);
        Self { block, last: status.is_terminal() }
    }
}

impl Node {
    /// Whether a client at `last_event_id` has had the terminal event of this job: then there is nothing to stream.
    /// Without an answer of the store it is not known, and the stream opens.
    pub async fn has_seen_the_end(&self, job: &Key, last_event_id: &str) -> bool {
        let Some(position) = Position::parse(last_event_id) else { return false };
        match self.jobs.state_or_end(job).await {
            Ok(Some(state)) => {
                state.status.is_terminal() && state.position.is_some_and(|end| end <= position)
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// Gives a parked connection its job's past, and lets it go live, or ends it when the past was all.
    pub(super) async fn open_job(
        &self,
        id: Uuid,
        key: ConnectionKey,
        greeting: &Greeting,
        job: &Key,
        last_event_id: Option<&str>,
    ) {
        let release = match last_event_id.map(Position::parse) {
            Some(Some(position)) => self.missed_of_job(id, greeting, job, position).await,
            Some(None) => {
                self.state_of_job(id, greeting, job, Some(GapReason::UnknownPosition), Some(false)).await
            }
            None => self.state_of_job(id, greeting, job, None, None).await,
        };
        self.hub.release(key, release.blocks, release.replayed_to, release.last).await;
    }

    /// What the job did after `after`; where that is not known, a gap and where the job stands.
    async fn missed_of_job(&self, id: Uuid, greeting: &Greeting, job: &Key, after: Position) -> Release {
        let jobs = ChannelName::jobs();
        let Ok(replay) = self.missed(&greeting.channels, after).await else {
            return self
                .state_of_job(id, greeting, job, Some(GapReason::BrokerInterrupted), Some(false))
                .await;
        };
        if let Some(reason) = replay.history.gap(&jobs, after) {
            return self.state_of_job(id, greeting, job, Some(reason), Some(false)).await;
        }
        let of_job = |(delivery, _): &(&Delivery, &Block)| delivery.event.key.as_ref() == Some(job);
        let mut release = Release::new(vec![self.hello(id, greeting, Some(true))]);
        release.replayed_to = replay.history.up_to.n;
        for (delivery, _) in replay.after(&greeting.channels, after).filter(of_job) {
            let view = View::of(&delivery.event, delivery.position);
            release.last = view.last;
            release.blocks.push(view.block);
            if view.last {
                break;
            }
        }
        release
    }

    async fn state_of_job(
        &self,
        id: Uuid,
        greeting: &Greeting,
        job: &Key,
        gap: Option<GapReason>,
        recovered: Option<bool>,
    ) -> Release {
        let mut release = Release::new(vec![self.hello(id, greeting, recovered)]);
        release.blocks.extend(gap.map(|reason| self.gap(id, &ChannelName::jobs(), reason)));
        match self.jobs.state_or_end(job).await {
            Ok(Some(JobState { status, data, position, .. })) => {
                let view = View::new(status, &data, position);
                release.blocks.push(view.block);
                release.replayed_to = position.map_or(0, |position| position.n);
                release.last = view.last;
            }
            Ok(None) => {}
            Err(reason) => {
                tracing::debug!(connection = %id, reason, "a job's stream opens without the state of the job");
                release.blocks.push(self.gap(id, &ChannelName::jobs(), GapReason::BrokerInterrupted));
            }
        }
        release
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::sse::Framing;

    fn shown(kind: &str, data: &str) -> (String, bool) {
        let event =
            Event { kind: EventType::parse(kind).ok(), key: Key::parse("42").ok(), ..Event::unnamed(data) };
        let view = View::of(&event, None);
        (String::from_utf8(view.block.bytes(Framing::Bare).to_vec()).unwrap(), view.last)
    }

    #[test]
    fn events_have_the_names_of_a_jobs_own_stream() {
        for (kind, data, name, last) in [
            ("job_started", "{}", "progress", false),
            ("job_progress", r#"{"status":"running"}"#, "progress", false),
            ("job_completed", "{}", "completed", true),
            ("job_failed", "{}", "failed", true),
            ("job_cancelled", "{}", "failed", true),
            ("note", r#"{"status":"completed"}"#, "completed", true),
            ("note", "{}", "progress", false),
        ] {
            assert_eq!(shown(kind, data), (format!("event: {name}\ndata: {data}\n\n"), last), "{kind}");
        }
    }
}
