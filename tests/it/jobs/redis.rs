//! What only the store in Redis promises: one recorder in the cluster, exact counts whatever Redis does, nothing left behind.

use std::sync::Arc;

use fanlight::jobs::{JobStore, Span, Turn};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::said::{self, LONG, Moment, counts, get, word};
use crate::support::process::unique;
use crate::support::{RedisServer, eventually, secs};

fn store(server: &RedisServer) -> Arc<dyn JobStore> {
    said::redis(server, server.prefix(), LONG)
}

#[tokio::test]
async fn only_one_of_two_nodes_records_and_the_other_takes_over_where_it_stopped() {
    let server = RedisServer::start().await;
    let (first, second, now) = (store(&server), store(&server), Moment::now());
    let lease = server.key("@jobs:recorder");
    let update = |i| [now.durable(i, "42", "job_progress", &format!(r#"{{"status":"step {i}"}}"#))];
    let span = |after, up_to| Span {
        after: Some(now.position(after)).filter(|_| after > 0),
        up_to: Some(now.position(up_to)).filter(|_| up_to > 0),
    };
    assert_eq!(first.lead(&update(1), span(0, 1)).await, Ok(Turn::Begin { up_to: None }));
    assert_eq!(get(&first, "42").await, None, "who begins has recorded nothing");
    assert_eq!(first.lead(&update(2), span(0, 2)).await, Ok(Turn::Recorded));
    assert!(server.cli(&["PTTL", &lease]).await.parse::<i64>().unwrap() > 0, "it ends by itself");
    // Except on a machine that is too slow for this test.
    server.cli(&["PERSIST", &lease]).await;
    assert_eq!(second.lead(&update(3), span(0, 3)).await, Ok(Turn::Other));
    assert_eq!(word(&second, "42").await, "step 2");

    server.cli(&["DEL", &lease]).await;
    let begin = Ok(Turn::Begin { up_to: Some(now.position(2)) });
    assert_eq!(second.lead(&[], span(0, 0)).await, begin);
    assert_eq!(second.lead(&update(9), span(1, 9)).await, begin, "it does not know what was recorded");
    assert_eq!(first.lead(&update(9), span(2, 9)).await, Ok(Turn::Other));
    assert_eq!(second.lead(&[], span(2, 8)).await, Ok(Turn::Recorded));
    assert_eq!(second.lead(&[], span(8, 8)).await, Ok(Turn::Recorded));
    assert_eq!(word(&second, "42").await, "step 2");
}

#[tokio::test]
async fn the_office_of_a_recorder_that_is_gone_ends() {
    let server = RedisServer::start().await;
    let (first, second) = (store(&server), store(&server));
    first.lead(&[], Span::default()).await.unwrap();
    drop(first);
    eventually("the other begins", secs(20), async || {
        match second.lead(&[], Span::default()).await.unwrap() {
            Turn::Begin { .. } => Ok(()),
            turn => Err(format!("{turn:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_job_whose_state_redis_has_evicted_is_not_counted_twice() {
    let server = RedisServer::start().await;
    let (store, now) = (store(&server), Moment::now());
    store.record(&[now.durable(1, "42", "job_completed", "{}")]).await.unwrap();
    server.cli(&["DEL", &server.key("@job:3432")]).await;
    store.record(&[now.durable(2, "42", "job_progress", "{}")]).await.unwrap();
    assert_eq!(counts(&store).await, [0, 1, 0, 0, 0]);
}

#[tokio::test]
async fn when_all_jobs_have_expired_no_key_of_theirs_is_left() {
    let server = RedisServer::start().await;
    let (store, now) = (said::redis(&server, server.prefix(), secs(2)), Moment::now());
    let kinds = ["job_started", "job_completed", "job_failed", "job_cancelled"];
    for i in 0..400u64 {
        let kind = kinds[i as usize % kinds.len()];
        store.record(&[now.durable(i, &i.to_string(), kind, "{}")]).await.unwrap();
    }
    eventually("no key is left", secs(30), async || match server.cli(&["KEYS", "*"]).await {
        keys if keys.is_empty() => Ok(()),
        keys => Err(format!("{} keys, the first is {:?}", keys.lines().count(), keys.lines().next())),
    })
    .await;
}

#[tokio::test]
async fn a_set_that_is_still_written_to_loses_its_expired_jobs() {
    let server = RedisServer::start().await;
    let store = said::redis(&server, server.prefix(), secs(1));
    let set = server.key("@jobs:by:completed");
    let before = Moment::now();
    let many: Vec<_> =
        (0..100).map(|i| before.durable(i, &format!("old {i}"), "job_completed", "{}")).collect();
    store.record(&many).await.unwrap();
    let mut i = 0;
    eventually("only the last ones are left", secs(20), async || {
        i += 1;
        store.record(&[Moment::now().durable(0, &format!("new {i}"), "job_completed", "{}")]).await.unwrap();
        let old =
            server.cli(&["ZRANGE", &set, "0", "-1"]).await.lines().filter(|id| id.starts_with("old")).count();
        if old == 0 { Ok(()) } else { Err(old) }
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_is_away_or_forgets_its_scripts_is_an_error_or_nothing_at_all() {
    let mut server = RedisServer::start().await;
    let (store, now) = (store(&server), Moment::now());
    let update = [now.durable(1, "42", "job_completed", "{}")];
    store.record(&update).await.unwrap();
    server.cli(&["SCRIPT", "FLUSH"]).await;
    store.record(&update).await.unwrap();
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0]);
    server.kill();
    assert!(store.record(&update).await.is_err());
    assert!(store.counts().await.is_err());
    assert!(store.get(&said::id("42")).await.is_err());
    server.restart().await;
    eventually("it goes on", secs(20), async || store.record(&update).await).await;
    assert_eq!(counts(&store).await, [0, 0, 1, 0, 0]);
}

/// The rule stands in Rust and in Lua: whatever they are told, in whatever order, they must say the same.
#[tokio::test]
async fn the_script_and_the_memory_store_judge_alike() {
    let server = RedisServer::start().await;
    let says = prop::sample::select(vec![
        ("job_started", "{}"),
        ("job_log", r#"{"status":"queued"}"#),
        ("job_progress", "{}"),
        ("job_completed", "{}"),
        ("job_failed", "{}"),
        ("job_cancelled", "{}"),
    ]);
    let update = (0u64..8, any::<bool>(), says);
    let case = prop::collection::vec(prop::collection::vec(update, 0..6), 1..5);
    let mut runner = TestRunner::deterministic();
    for _ in 0..300 {
        let batches = case.new_tree(&mut runner).unwrap().current();
        let now = Moment::now();
        let (memory, redis) = (said::memory(LONG), said::redis(&server, &unique("p"), LONG));
        for batch in &batches {
            let update = |(i, durable, (kind, data)): &(u64, bool, (&str, &str))| match durable {
                true => now.durable(*i, "42", kind, data),
                false => now.plain(*i, "42", kind, data),
            };
            let updates: Vec<_> = batch.iter().map(update).collect();
            memory.record(&updates).await.unwrap();
            redis.record(&updates).await.unwrap();
        }
        let said = async |store| {
            (get(store, "42").await.map(|job| (job.status, job.kind, job.position)), counts(store).await)
        };
        assert_eq!(said(&memory).await, said(&redis).await, "{batches:?}");
    }
}
