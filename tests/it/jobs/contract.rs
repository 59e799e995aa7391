//! What every store of job states promises: one suite, run on both.

use std::sync::Arc;
use std::time::Duration;

use fanlight::jobs::{JobState, JobStore, JobUpdate, Span, Status, Turn};
use fanlight::protocol::event::EventType;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::said::{self, LONG, Moment, counts, get, word};
use crate::support::process::unique;
use crate::support::{RedisServer, eventually, secs};

/// Runs every promise on both stores.
macro_rules! on_both {
    ($($promise:ident)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                super::$promise(|ttl| said::memory(ttl)).await;
            })*
        }
        mod redis {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                let server = RedisServer::start().await;
                super::$promise(|ttl| said::redis(&server, &unique("p"), ttl)).await;
            })*
        }
    };
}

on_both! {
    a_job_is_what_its_last_event_says
    every_job_is_counted_once_by_its_status
    what_has_ended_stays_so_unless_it_starts_again
    an_event_that_is_recorded_late_counts_as_if_it_had_not_been
    any_id_and_any_data_is_kept_as_it_is
    a_job_expires_when_its_last_event_is_too_old
    what_is_too_old_already_is_not_recorded
    the_recorder_and_any_number_of_publishers_come_to_one_state
}

type Start<'a> = &'a dyn Fn(Duration) -> Arc<dyn JobStore>;

async fn a_job_is_what_its_last_event_says(start: impl Fn(Duration) -> Arc<dyn JobStore>) {
    let (store, now) = (start(LONG), Moment::now());
    assert_eq!(get(&store, "42").await, None);
    store.record(&[]).await.unwrap();
    let first = now.durable(1, "42", "job_started", r#"{"id":"42"}"#);
    let data = r#"{"id":"42", "status":"uploading","ü":[1,2]}"#;
    store.record(&[first, now.durable(2, "42", "job_progress", data)]).await.unwrap();
    let expected = JobState {
        status: Status::InProgress,
        word: "uploading".into(),
        kind: EventType::parse("job_progress").ok(),
        data: data.into(),
        position: Some(now.position(2)),
        updated_at: now.millis(),
    };
    assert_eq!(get(&store, "42").await, Some(expected));
    store.record(&[now.plain(2, "42", "", r#"{"status":"error"}"#)]).await.unwrap();
    let plain = get(&store, "42").await.unwrap();
    assert_eq!((plain.kind, plain.position, &*plain.word), (None, None, "error"));
    assert!(plain.updated_at >= now.millis());
}

async fn every_job_is_counted_once_by_its_status(start: impl Fn(Duration) -> Arc<dyn JobStore>) {
    let (store, now) = (start(LONG), Moment::now());
    assert_eq!(counts(&store).await, [0; 5]);
    let statuses = ["pending", "running", "completed", "cancelled", "failed"];
    let every = statuses.iter().enumerate().flat_map(|(i, status)| {
        (0..=i).map(move |job| (format!("{status} {job}"), format!(r#"{{"status":"{status}"}}"#)))
    });
    let updates: Vec<JobUpdate> =
        every.enumerate().map(|(i, (job, data))| now.durable(i as u64, &job, "job_log", &data)).collect();
    store.record(&updates).await.unwrap();
    assert_eq!(counts(&store).await, [1, 2, 3, 4, 5]);
    store.record(&[now.durable(90, "running 0", "job_completed", "{}")]).await.unwrap();
    assert_eq!(counts(&store).await, [1, 1, 4, 4, 5]);
    store.record(&[now.durable(91, "failed 4", "job_started", "{}")]).await.unwrap();
    assert_eq!(counts(&store).await, [1, 2, 4, 4, 4]);
    store.record(&updates).await.unwrap();
    assert_eq!(counts(&store).await, [1, 2, 4, 4, 4]);
}

async fn what_has_ended_stays_so_unless_it_starts_again(start: impl Fn(Duration) -> Arc<dyn JobStore>) {
    let (store, now) = (start(LONG), Moment::now());
    let mut step = 0;
    for (kind, data, expected) in [
        ("job_progress", r#"{"status":"running"}"#, "running"),
        ("job_completed", r#"{"status":"completed"}"#, "completed"),
        ("job_progress", r#"{"status":"running"}"#, "completed"),
        ("job_failed", r#"{"status":"failed"}"#, "completed"),
        ("job_started", r#"{"status":"running"}"#, "running"),
        ("job_failed", r#"{"status":"failed"}"#, "failed"),
        ("job_progress", r#"{"status":"in_progress"}"#, "failed"),
        ("job_log", r#"{"status":"queued"}"#, "queued"),
        ("job_cancelled", "{}", "cancelled"),
    ] {
        step += 1;
        store.record(&[now.durable(step, "durable", kind, data)]).await.unwrap();
        store.record(&[now.plain(7, "plain", kind, data)]).await.unwrap();
        assert_eq!(word(&store, "durable").await, expected, "step {step}");
        assert_eq!(word(&store, "plain").await, expected, "step {step}");
    }
    assert_eq!(counts(&store).await, [0, 0, 0, 2, 0]);
}

async fn an_event_that_is_recorded_late_counts_as_if_it_had_not_been(
    start: impl Fn(Duration) -> Arc<dyn JobStore>,
) {
    let (store, now) = (start(LONG), Moment::now());
    let progress = |i| now.durable(i, "42", "job_progress", &format!(r#"{{"status":"step {i}"}}"#));
    store.record(&[progress(5), progress(3)]).await.unwrap();
    assert_eq!(word(&store, "42").await, "step 5");
    store.record(&[now.plain(4, "42", "job_progress", r#"{"status":"plain"}"#)]).await.unwrap();
    assert_eq!(word(&store, "42").await, "step 5");
    store.record(&[now.plain(5, "42", "job_progress", r#"{"status":"plain"}"#)]).await.unwrap();
    assert_eq!(word(&store, "42").await, "plain");
    store.record(&[progress(5)]).await.unwrap();
    assert_eq!(word(&store, "42").await, "plain");
    // It had ended before what was recorded first.
    store.record(&[now.durable(4, "42", "job_failed", "{}")]).await.unwrap();
    assert_eq!(word(&store, "42").await, "failed");
    store.record(&[now.durable(2, "42", "job_started", "{}"), progress(6)]).await.unwrap();
    assert_eq!(word(&store, "42").await, "failed");
    store.record(&[now.durable(7, "42", "job_started", "{}")]).await.unwrap();
    store.record(&[now.durable(4, "42", "job_failed", "{}"), progress(6)]).await.unwrap();
    assert_eq!(word(&store, "42").await, "in_progress");
    assert_eq!(counts(&store).await, [0, 1, 0, 0, 0]);
}

async fn any_id_and_any_data_is_kept_as_it_is(start: impl Fn(Duration) -> Arc<dyn JobStore>) {
    let (store, now) = (start(LONG), Moment::now());
    let long = "x".repeat(256);
    let ids = ["*", "a b", "../x", "job:1", "{1}", "ü\u{2028}", "\u{7f}\t\"", "0 0 0", long.as_str()];
    let large = format!("{:?}", "d".repeat(256 * 1024));
    for id in ids {
        for (i, data) in ["", "no JSON\r\n\0 %s", "{\"status\": 7}", large.as_str()].into_iter().enumerate() {
            store.record(&[now.durable(i as u64, id, "job_progress", data)]).await.unwrap();
            assert_eq!(get(&store, id).await.unwrap().data, data, "{id:?}");
        }
    }
    assert_eq!(counts(&store).await, [0, ids.len() as u64, 0, 0, 0]);
}

async fn a_job_expires_when_its_last_event_is_too_old(start: impl Fn(Duration) -> Arc<dyn JobStore>) {
    let (store, now) = (start(secs(8)), Moment::now());
    let old = now.before(secs(4));
    let ended = old.durable(1, "short", "job_completed", "{}");
    let renewed = [old.durable(2, "long", "job_started", "{}"), now.durable(3, "long", "job_progress", "{}")];
    store.record(std::slice::from_ref(&ended)).await.unwrap();
    store.record(&renewed).await.unwrap();
    assert_eq!((word(&store, "short").await, counts(&store).await), ("completed".into(), [0, 1, 1, 0, 0]));
    eventually("the older one is gone", secs(20), async || match get(&store, "short").await {
        None => Ok(()),
        // Said again, it lives no longer.
        Some(_) => Err(format!("{:?}", store.record(std::slice::from_ref(&ended)).await)),
    })
    .await;
    assert!(Moment::now().millis() >= old.millis() + 8000);
    assert_eq!(counts(&store).await[2], 0);
    eventually("the other one is gone as well", secs(20), async || match counts(&store).await {
        [0, 0, 0, 0, 0] => Ok(()),
        left => Err(format!("{left:?}")),
    })
    .await;
    assert!(Moment::now().millis() >= now.millis() + 8000);
    // What comes after that is a new job.
    store.record(&[Moment::now().durable(4, "short", "job_progress", "{}")]).await.unwrap();
    assert_eq!((word(&store, "short").await, counts(&store).await), ("in_progress".into(), [0, 1, 0, 0, 0]));
}

async fn what_is_too_old_already_is_not_recorded(start: impl Fn(Duration) -> Arc<dyn JobStore>) {
    let (store, now) = (start(secs(60)), Moment::now());
    let old = now.before(secs(61));
    store.record(&[old.durable(1, "42", "job_completed", "{}")]).await.unwrap();
    assert_eq!((get(&store, "42").await, counts(&store).await), (None, [0; 5]));
    store.record(&[now.durable(1, "42", "job_started", "{}")]).await.unwrap();
    store.record(&[old.durable(2, "42", "job_failed", "{}")]).await.unwrap();
    assert_eq!(word(&store, "42").await, "in_progress");
}

/// What is said of three jobs: which, whether durable, and what.
type Said = (usize, bool, usize);

const KINDS: [&str; 5] = ["job_started", "job_progress", "job_completed", "job_failed", "job_cancelled"];

/// The updates of a stream; what each says is its index.
fn stream(now: Moment, script: &[Said]) -> Vec<JobUpdate> {
    let mut last = 0;
    let update = |(i, &(job, durable, kind)): (usize, &Said)| {
        let (job, data) = (["a", "b", "c"][job], format!(r#"{{"status":"says {i}"}}"#));
        if durable {
            last = i as u64 + 1;
            now.durable(last, job, KINDS[kind], &data)
        } else {
            now.plain(last, job, KINDS[kind], &data)
        }
    };
    script.iter().enumerate().map(update).collect()
}

/// One event after the other, by the rule in its plainest form: the last word and whether it is terminal, for each job.
fn expected(script: &[Said]) -> [Option<(String, usize)>; 3] {
    let mut jobs: [Option<(String, usize)>; 3] = Default::default();
    for (i, &(job, _, kind)) in script.iter().enumerate() {
        let ended = jobs[job].as_ref().is_some_and(|(_, kind)| *kind >= 2);
        if !ended || kind == 0 {
            jobs[job] = Some((format!("says {i}"), kind));
        }
    }
    jobs
}

async fn the_recorder_and_any_number_of_publishers_come_to_one_state(
    start: impl Fn(Duration) -> Arc<dyn JobStore>,
) {
    let said = (0usize..3, any::<bool>(), 0usize..KINDS.len());
    let case = (
        prop::collection::vec(said, 1..20),
        prop::collection::vec((0usize..24, 0usize..20), 0..30),
        1usize..5,
    );
    let mut runner = TestRunner::deterministic();
    for _ in 0..100 {
        let (script, published, batch) = case.new_tree(&mut runner).unwrap().current();
        one_stream(&start, &script, &published, batch).await;
    }
}

/// The recorder records the stream in its order, in batches; publishers record durable events of it at any time.
async fn one_stream(start: Start<'_>, script: &[Said], published: &[(usize, usize)], batch: usize) {
    let store = start(LONG);
    let updates = stream(Moment::now(), script);
    while store.lead(&[], Span::default()).await.unwrap() != Turn::Recorded {}
    let mut after = None;
    for (i, batch) in updates.chunks(batch).enumerate() {
        for (_, what) in published.iter().filter(|(when, _)| *when == i) {
            let update = updates.get(*what).filter(|update| !update.place.is_plain());
            store.record(update.map(std::slice::from_ref).unwrap_or_default()).await.unwrap();
        }
        let up_to = batch.iter().rev().find_map(|update| update.place.position()).max(after);
        assert_eq!(store.lead(batch, Span { after, up_to }).await, Ok(Turn::Recorded));
        after = up_to;
    }
    let mut count = [0; 5];
    for (job, expected) in ["a", "b", "c"].into_iter().zip(expected(script)) {
        let expected_word = expected.as_ref().map_or("gone", |(word, _)| word.as_str());
        assert_eq!(word(&store, job).await, expected_word, "{job} of {script:?} {published:?} by {batch}");
        if let Some((_, kind)) = expected {
            // Started and in progress; completed; failed; cancelled.
            count[[1, 1, 2, 4, 3][kind]] += 1;
        }
    }
    assert_eq!(counts(&store).await, count, "{script:?} {published:?} by {batch}");
}
