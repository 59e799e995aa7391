//! From an event to what it says of a job.

use crate::protocol::envelope;
use crate::protocol::event::{Event, EventType, Key, MAX_FIELD_LEN};

use super::Place;

/// What a job is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waiting to start.
    Pending,
    /// Running.
    InProgress,
    /// Ended well.
    Completed,
    /// Ended on request.
    Cancelled,
    /// Failed.
    Error,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::InProgress, Self::Completed, Self::Cancelled, Self::Error];

    /// The name of its count.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }

    /// Whether the job has ended.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled | Self::Error)
    }

    /// Its place in [`Status::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// What a published status word counts as; `None` for a word that the contract does not have.
    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "pending" | "queued" => Self::Pending,
            "in_progress" | "running" | "started" => Self::InProgress,
            "completed" => Self::Completed,
            "cancelled" => Self::Cancelled,
            "error" | "failed" => Self::Error,
            _ => return None,
        })
    }

    /// What an event type says, and the word for it.
    fn of_type(kind: &str) -> Option<(Self, &'static str)> {
        Some(match kind {
            "job_started" | "job_progress" => (Self::InProgress, "in_progress"),
            "job_completed" => (Self::Completed, "completed"),
            "job_failed" => (Self::Error, "failed"),
            "job_cancelled" => (Self::Cancelled, "cancelled"),
            _ => return None,
        })
    }
}

/// What one event says of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobUpdate {
    /// The job.
    pub id: Key,
    /// Where in the stream it was said.
    pub place: Place,
    /// What it is counted as.
    pub status: Status,
    /// The status in the publisher's word, or what the event's type says.
    pub word: Box<str>,
    /// Whether a job that has ended starts again with it.
    pub starts: bool,
    /// The event's type.
    pub kind: Option<EventType>,
    /// The event's data.
    pub data: String,
}

impl JobUpdate {
    /// What `event`, of channel `jobs`, says; `None` when it has no key, or neither its `data.status` nor its type says
    /// how the job is doing.
    ///
    /// `data.status` goes before the type, with two exceptions: a terminal type ends the job whatever its status says, and a
    /// status word that is not in the contract is shown as it was published and counted by the type.
    ///
    /// A job starts (again) by `job_started` and by the words of a beginning: `pending`, `queued`, `started`. `running` and
    /// `in_progress` do not: a progress event that comes late would bring an ended job back to life.
    pub fn from_event(event: &Event, place: Place) -> Option<Self> {
        let id = event.key.clone()?;
        let kind = event.kind.as_ref().map_or("", EventType::as_str);
        let published = envelope::text_member(&event.data, "status").filter(|w| w.len() <= MAX_FIELD_LEN);
        let by_type = Status::of_type(kind);
        let by_word = published.as_deref().map(Status::of_word);
        let (status, own_word) = match (by_word, by_type) {
            (Some(Some(word)), Some((kind, _))) if kind.is_terminal() && !word.is_terminal() => (kind, false),
            (Some(Some(word)), _) => (word, true),
            (Some(None), Some((kind, _))) => (kind, true),
            (None, Some((kind, _))) => (kind, false),
            (_, None) => return None,
        };
        let word = published.as_deref().filter(|word| own_word && !word.is_empty());
        let begins = kind == "job_started" || matches!(word, Some("pending" | "queued" | "started"));
        Some(Self {
            id,
            place,
            status,
            word: word.or(by_type.map(|(_, word)| word)).unwrap_or_default().into(),
            starts: begins && !status.is_terminal(),
            kind: event.kind.clone(),
            data: event.data.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::channel::ChannelName;
    use crate::protocol::envelope::parse_plain;

    fn update(payload: &str) -> Option<JobUpdate> {
        let jobs = ChannelName::parse("jobs").unwrap();
        let event = parse_plain(payload.as_bytes(), &jobs, 1000).unwrap();
        JobUpdate::from_event(&event, Place::default())
    }

    /// Type and status to (counted, shown, starts).
    fn read(kind: &str, status: Option<&str>) -> Option<(&'static str, String, bool)> {
        let data = serde_json::json!({ "id": "42", "status": status });
        let update = update(&serde_json::json!({ "event": kind, "data": data }).to_string())?;
        assert_eq!(update.id.as_str(), "42");
        Some((update.status.as_str(), update.word.into(), update.starts))
    }

    #[test]
    fn every_word_of_the_contract_is_counted_and_shown_as_published() {
        for (word, counted, starts) in [
            ("pending", "pending", true),
            ("queued", "pending", true),
            ("in_progress", "in_progress", false),
            ("running", "in_progress", false),
            ("started", "in_progress", true),
            ("completed", "completed", false),
            ("cancelled", "cancelled", false),
            ("error", "error", false),
            ("failed", "error", false),
        ] {
            assert_eq!(read("", Some(word)), Some((counted, word.into(), starts)), "{word}");
            assert_eq!(read("status", Some(word)), Some((counted, word.into(), starts)), "{word}");
        }
    }

    #[test]
    fn without_a_status_the_type_says_it() {
        for (kind, counted, shown, starts) in [
            ("job_started", "in_progress", "in_progress", true),
            ("job_progress", "in_progress", "in_progress", false),
            ("job_completed", "completed", "completed", false),
            ("job_failed", "error", "failed", false),
            ("job_cancelled", "cancelled", "cancelled", false),
        ] {
            assert_eq!(read(kind, None), Some((counted, shown.into(), starts)), "{kind}");
            assert_eq!(read(kind, Some("")), Some((counted, shown.into(), starts)), "{kind}");
        }
    }

    #[test]
    fn a_status_goes_before_the_type_but_a_terminal_type_ends_the_job() {
        for (kind, status, expected) in [
            ("job_progress", "completed", ("completed", "completed", false)),
            ("job_started", "queued", ("pending", "queued", true)),
            ("job_started", "failed", ("error", "failed", false)),
            ("job_failed", "cancelled", ("cancelled", "cancelled", false)),
            ("job_completed", "running", ("completed", "completed", false)),
            ("job_failed", "queued", ("error", "failed", false)),
        ] {
            let (counted, shown, starts) = expected;
            assert_eq!(read(kind, Some(status)), Some((counted, shown.into(), starts)), "{kind} {status}");
        }
    }

    #[test]
    fn a_word_of_the_publishers_own_is_shown_and_counted_by_the_type() {
        assert_eq!(read("job_progress", Some("uploading")), Some(("in_progress", "uploading".into(), false)));
        assert_eq!(read("job_completed", Some("done")), Some(("completed", "done".into(), false)));
        let long = "x".repeat(MAX_FIELD_LEN + 1);
        assert_eq!(read("job_failed", Some(&long)), Some(("error", "failed".into(), false)));
    }

    #[test]
    fn an_event_that_says_nothing_of_a_jobs_state_is_no_update() {
        for payload in [
            r#"{"event":"job_log","data":{"id":"42"}}"#,
            r#"{"event":"job_log","data":{"id":"42","status":"uploading"}}"#,
            r#"{"event":"job_log","data":{"id":"42","status":7}}"#,
            r#"{"event":"job_completed","data":{}}"#,
            r#"{"event":"job_completed","data":"42"}"#,
            r#"{"event":"job_log","key":"42","data":["completed"]}"#,
            r#"{"event":"Job_Completed","data":{"id":"42"}}"#,
            "completed",
        ] {
            assert_eq!(update(payload), None, "{payload}");
        }
        let bare = update(r#"{"id":42,"status":"running"}"#).unwrap();
        assert_eq!((bare.id.as_str(), bare.kind, bare.status), ("42", None, Status::InProgress));
        let text = update(r#"{"event":"job_completed","key":"42","data":"well"}"#).unwrap();
        assert_eq!((text.status, text.data.as_str()), (Status::Completed, "\"well\""));
    }
}
