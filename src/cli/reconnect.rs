//! When to come back: what a browser's `EventSource` does (WHATWG HTML, 9.2.3), and what the contract adds to it.
//!
//! Pure: it neither waits nor connects.

use std::time::Duration;

/// Before the stream has said anything: a browser takes some seconds.
const DEFAULT_RETRY: Duration = Duration::from_secs(3);

/// Whatever a server asks for: one that is broken must not be asked a thousand times a second.
const MIN_RETRY: Duration = Duration::from_millis(100);

/// However often it failed, and whatever a server asks for.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// From here on failures do not lengthen the wait any more: 2^5 times the retry.
const MAX_DOUBLINGS: u32 = 5;

/// How an attempt or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The stream was open and ended or broke.
    Closed,
    /// A `bye`.
    Bye {
        /// Its reason.
        reason: String,
        /// Whether it is worth coming back.
        reconnect: bool,
    },
    /// The node could not be reached, for the reason given.
    Unreachable(String),
    /// Another answer than a stream.
    Refused {
        /// The status.
        status: u16,
        /// `Retry-After`, where there was one.
        retry_after: Option<Duration>,
        /// The node's words.
        words: String,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Try again after this.
    Wait(Duration),
    /// There is nothing more to come: the job is done.
    Done,
    /// It is of no use to try again.
    GiveUp(String),
}

/// Decides after every end.
#[derive(Debug, Default)]
pub(super) struct Reconnect {
    retry: Option<Duration>,
    /// It has worked once: what fails later is an outage to be waited for, and not a wrong address.
    was_open: bool,
    failures: u32,
}

impl Reconnect {
    /// The stream is open.
    pub(super) fn opened(&mut self) {
        self.was_open = true;
        self.failures = 0;
    }

    /// The stream said `retry:`.
    pub(super) fn set_retry(&mut self, retry: Duration) {
        self.retry = Some(retry.clamp(MIN_RETRY, MAX_WAIT));
    }

    /// What to do after `end`; `jitter` from 0 to 1 spreads those who were cut off together.
    pub(super) fn after(&mut self, end: End, jitter: f64) -> Next {
        match end {
            // The stream's own retry is jittered already.
            End::Closed | End::Bye { reconnect: true, .. } => Next::Wait(self.retry.unwrap_or(DEFAULT_RETRY)),
            End::Bye { reason, reconnect: false } => {
                Next::GiveUp(format!("the node closed the stream for good: {reason}"))
            }
            End::Refused { status: 204, .. } => Next::Done,
            End::Refused { status: 429 | 500.., retry_after, .. } => {
                let wait = self.backoff(jitter);
                Next::Wait(retry_after.map_or(wait, |after| after.min(MAX_WAIT)))
            }
            End::Refused { words, .. } => Next::GiveUp(words),
            End::Unreachable(_) if self.was_open => Next::Wait(self.backoff(jitter)),
            End::Unreachable(reason) => Next::GiveUp(reason),
        }
    }

    fn backoff(&mut self, jitter: f64) -> Duration {
        let doublings = self.failures.min(MAX_DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        let wait = self.retry.unwrap_or(DEFAULT_RETRY) * (1 << doublings);
        wait.min(MAX_WAIT).mul_f64(0.75 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, retry_after: Option<u64>) -> End {
        End::Refused { status, retry_after: retry_after.map(Duration::from_secs), words: "no".into() }
    }

    #[test]
    fn a_stream_that_ends_is_opened_again_after_its_own_retry() {
        let mut reconnect = Reconnect::default();
        assert_eq!(reconnect.after(End::Closed, 0.5), Next::Wait(DEFAULT_RETRY));
        reconnect.set_retry(Duration::from_millis(1500));
        let bye = End::Bye { reason: "server_shutdown".into(), reconnect: true };
        assert_eq!(reconnect.after(bye, 0.5), Next::Wait(Duration::from_millis(1500)));
        reconnect.set_retry(Duration::ZERO);
        assert_eq!(reconnect.after(End::Closed, 0.5), Next::Wait(MIN_RETRY));
        reconnect.set_retry(Duration::MAX);
        assert_eq!(reconnect.after(End::Closed, 0.5), Next::Wait(MAX_WAIT));
    }

    #[test]
    fn a_bye_for_good_and_no_content_end_it() {
        let mut reconnect = Reconnect::default();
        let bye = End::Bye { reason: "kicked".into(), reconnect: false };
        assert!(matches!(reconnect.after(bye, 0.0), Next::GiveUp(why) if why.contains("kicked")));
        assert_eq!(reconnect.after(refused(204, None), 0.0), Next::Done);
    }

    #[test]
    fn a_refusal_that_passes_is_waited_for_and_any_other_is_not() {
        let mut reconnect = Reconnect::default();
        assert_eq!(reconnect.after(refused(429, Some(7)), 0.5), Next::Wait(Duration::from_secs(7)));
        assert_eq!(reconnect.after(refused(503, Some(u64::MAX)), 0.5), Next::Wait(MAX_WAIT));
        assert!(matches!(reconnect.after(refused(502, None), 0.5), Next::Wait(_)));
        for status in [400, 401, 403, 404, 406] {
            assert_eq!(reconnect.after(refused(status, Some(7)), 0.5), Next::GiveUp("no".into()));
        }
    }

    #[test]
    fn an_outage_is_waited_for_only_by_those_who_were_connected() {
        let mut reconnect = Reconnect::default();
        let gone = || End::Unreachable("gone".into());
        assert_eq!(reconnect.after(gone(), 0.5), Next::GiveUp("gone".into()));
        reconnect.opened();
        let waits: Vec<_> = (0..8).map(|_| reconnect.after(gone(), 0.5)).collect();
        assert_eq!(waits[0], Next::Wait(DEFAULT_RETRY));
        assert_eq!(waits[1], Next::Wait(2 * DEFAULT_RETRY));
        assert_eq!(waits[7], Next::Wait(32 * DEFAULT_RETRY));
        reconnect.opened();
        assert_eq!(
            reconnect.after(gone(), 0.5),
            Next::Wait(DEFAULT_RETRY),
            "an open stream ends the backoff"
        );
    }
}
