//! Judging: from what was seen to what is wrong.

use std::time::Duration;

use super::advice::Between;
use super::exam::{End, Seen};

/// A first block that takes longer was kept by somebody: a node sends it at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// So many times the slowest heartbeat of a node as it comes (25 s, jittered) and nobody came: somebody keeps them.
const HEARTBEAT_IS_DUE: Duration = Duration::from_secs(40);

/// Something that stands in the way of streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What it is.
    pub(super) kind: Kind,
    /// What was seen, in a sentence.
    pub(super) words: String,
    /// What to change, one line per proxy; the likely one first.
    pub(super) settings: Vec<String>,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes are kept until there are more.
    Buffering,
    /// The answer is compressed, so that it waits in the compressor.
    Compression,
    /// The stream is cut after some silence, or at some age.
    IdleCutOff,
    /// The stream is cut at some age, whatever flows.
    AgeLimit,
    /// `Cache-Control` was changed.
    Headers,
}

impl Kind {
    /// Its name in JSON.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Buffering => "buffering",
            Self::Compression => "compression",
            Self::IdleCutOff => "idle_cut_off",
            Self::AgeLimit => "age_limit",
            Self::Headers => "headers",
        }
    }
}

/// Everything that is wrong; empty when nothing stands in the way.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let proxy = Between::guess(&seen.between);
    let found = [buffering(seen), compression(seen), cut(seen), headers(seen)];
    let finding = |(kind, words)| Finding { kind, words, settings: proxy.settings(kind) };
    found.into_iter().flatten().map(finding).collect()
}

fn buffering(seen: &Seen) -> Option<(Kind, String)> {
    let words = match seen.first_block {
        None if seen.end.is_some() => return None,
        None => {
            "the first block, which a node sends at once, did not come: somebody keeps it back".to_owned()
        }
        Some(after) if after > AT_ONCE => format!(
            "the first block, which a node sends at once, came after {}: somebody kept it back",
            seconds(after)
        ),
        Some(_) if seen.end.is_none() && seen.signs_of_life == 0 && seen.watched > HEARTBEAT_IS_DUE => {
            format!(
                "no heartbeat in {}: somebody keeps them back, or FANLIGHT_HEARTBEAT is longer than that",
                seconds(seen.watched)
            )
        }
        Some(_) => return None,
    };
    Some((Kind::Buffering, words))
}

fn compression(seen: &Seen) -> Option<(Kind, String)> {
    let coding = seen.compression.as_ref()?;
    Some((
        Kind::Compression,
        format!("streams are compressed on the way ({coding}): events wait in the compressor"),
    ))
}

fn cut(seen: &Seen) -> Option<(Kind, String)> {
    let Some(End::Cut { age, silence }) = seen.end else { return None };
    if silence <= seen.longest_silence {
        let words =
            format!("the stream was cut {} after its request although bytes were flowing", seconds(age));
        return Some((Kind::AgeLimit, words));
    }
    let words = format!(
        "the stream was cut after {} without a byte: the time-out must be longer than FANLIGHT_HEARTBEAT, best twice as long",
        seconds(silence)
    );
    Some((Kind::IdleCutOff, words))
}

fn headers(seen: &Seen) -> Option<(Kind, String)> {
    let kept = seen.first_block.is_none() || seen.cache_control.contains("no-transform");
    (!kept).then(|| {
        (
            Kind::Headers,
            "Cache-Control does not arrive as the node sends it (no-cache, no-transform)".to_owned(),
        )
    })
}

/// `3.0 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn good() -> Seen {
        Seen {
            first_block: Some(SECOND / 100),
            cache_control: "no-cache, no-transform".into(),
            signs_of_life: 3,
            longest_silence: 25 * SECOND,
            watched: 80 * SECOND,
            ..Seen::default()
        }
    }

    fn kinds(seen: &Seen) -> Vec<Kind> {
        judge(seen).iter().map(|finding| finding.kind).collect()
    }

    #[test]
    fn a_stream_that_lives_is_not_ill() {
        assert_eq!(kinds(&good()), []);
        assert_eq!(kinds(&Seen { end: Some(End::ByTheNode), ..good() }), []);
    }

    #[test]
    fn a_cut_in_silence_is_told_from_one_while_bytes_flow() {
        let cut = |silence| Some(End::Cut { age: 60 * SECOND, silence });
        assert_eq!(kinds(&Seen { end: cut(30 * SECOND), ..good() }), [Kind::IdleCutOff]);
        assert_eq!(kinds(&Seen { end: cut(10 * SECOND), ..good() }), [Kind::AgeLimit]);
    }

    #[test]
    fn what_comes_late_or_not_at_all_is_kept_back() {
        assert_eq!(kinds(&Seen { first_block: Some(10 * SECOND), ..good() }), [Kind::Buffering]);
        assert_eq!(kinds(&Seen { first_block: None, ..good() }), [Kind::Buffering]);
        assert_eq!(kinds(&Seen { signs_of_life: 0, ..good() }), [Kind::Buffering]);
        // Too short a look to say.
        assert_eq!(kinds(&Seen { signs_of_life: 0, watched: 30 * SECOND, ..good() }), []);
    }

    #[test]
    fn every_finding_says_what_to_change() {
        let seen = Seen {
            compression: Some("gzip".into()),
            cache_control: String::new(),
            between: "nginx".into(),
            ..good()
        };
        let findings = judge(&seen);
        assert_eq!(kinds(&seen), [Kind::Compression, Kind::Headers]);
        assert!(findings.iter().all(|finding| finding.settings[0].starts_with("nginx: ")), "{findings:?}");
    }
}
