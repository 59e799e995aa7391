//! What nodes show of jobs: events from every source, on every node, whatever happens to the one that records.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::wait::check;
use crate::support::{End, Node, Persistence, RedisServer, Request, eventually, secs, stays};

const LONG: Duration = secs(30);

/// The state of a job on one node; `null` when it is not known.
async fn job(node: &Node, id: &str) -> Value {
    let answer = node.get(&format!("/api/jobs/{id}")).await;
    match answer.status() {
        200 => answer.json(),
        404 => Value::Null,
        status => panic!("{status} {}", answer.text()),
    }
}

async fn status(node: &Node, id: &str) -> Value {
    job(node, id).await["status"].clone()
}

/// The counts on one node.
async fn counts(node: &Node) -> Value {
    node.get("/health").await.json()["jobs"].clone()
}

fn counted(pending: u64, in_progress: u64, completed: u64, cancelled: u64, error: u64) -> Value {
    json!({
        "total": pending + in_progress + completed + cancelled + error, "pending": pending,
        "in_progress": in_progress, "completed": completed, "cancelled": cancelled, "error": error,
    })
}

/// Waits until every node counts `expected`.
async fn all_count(nodes: &[Node], expected: &Value) {
    eventually("every node has the same counts", LONG, async || {
        let found = join_all(nodes.iter().map(counts)).await;
        check(found.iter().all(|counts| counts == expected), json!(found))
    })
    .await;
}

async fn fcall(redis: &RedisServer, kind: &str, id: &str) {
    let function = format!("{}_publish", redis.prefix().trim_end_matches(':').replace('-', "_"));
    let data = json!({ "id": id }).to_string();
    redis.cli(&["FCALL", &function, "1", "jobs", kind, &data]).await;
}

async fn plain(redis: &RedisServer, kind: &str, id: &str) {
    redis.publish("jobs", &json!({ "event": kind, "data": { "id": id } }).to_string()).await;
}

/// Which node records; it says so in its log.
async fn recorder(nodes: &[Node]) -> usize {
    eventually("one of the nodes records", LONG, async || {
        let records = |node: &Node| {
            let log = node.log();
            let last = log.lines().rfind(|line| line.contains("records the jobs of the cluster from now on"));
            last.is_some_and(|line| line.contains("this node"))
        };
        nodes.iter().position(records).ok_or("none")
    })
    .await
}

#[tokio::test]
async fn a_job_is_shown_as_it_was_last_published() {
    let node = Node::builder().start().await;
    assert_eq!(counts(&node).await, counted(0, 0, 0, 0, 0));
    let data = json!({ "id": "a/b ü", "status": "running", "progress": 7 });
    let position = node.publish("jobs", "job_progress", &data).await;
    let answer = node.get("/api/jobs/a%2Fb%20%C3%BC").await;
    assert_eq!(answer.head.get("cache-control"), Some("no-store"));
    let mut found = answer.json();
    let updated = found.as_object_mut().unwrap().remove("updatedAt").unwrap();
    assert!(updated.as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{updated}");
    let expected = json!({
        "id": "a/b ü", "status": "running", "terminal": false, "event": "job_progress", "data": data,
        "position": position,
    });
    assert_eq!(found, expected);
    node.publish("jobs", "job_failed", &json!({ "id": "a/b ü" })).await;
    let found = job(&node, "a%2Fb%20%C3%BC").await;
    assert_eq!((&found["status"], &found["terminal"]), (&json!("failed"), &json!(true)));
    let head = node.send(&Request::new("HEAD", "/api/jobs/a%2Fb%20%C3%BC")).await;
    assert_eq!((head.status(), head.text()), (200, String::new()));
    // The stream of all jobs is no job; one of that name is reached by writing it differently.
    node.publish("jobs", "job_completed", &json!({ "id": "stream" })).await;
    assert_eq!(status(&node, "%73tream").await, "completed");
}

#[tokio::test]
async fn what_is_no_job_or_may_not_be_read_is_refused() {
    let node = Node::builder().start().await;
    for (path, status, code) in [
        ("/api/jobs/unknown", 404, "not_found"),
        ("/api/jobs/", 404, "not_found"),
        ("/api/jobs/a/b", 404, "not_found"),
        ("/api/jobs/a%0Ab", 400, "bad_request"),
        ("/api/jobs/%00", 400, "bad_request"),
        ("/api/jobs/%FF", 400, "bad_request"),
        (&format!("/api/jobs/{}", "x".repeat(257)), 400, "bad_request"),
    ] {
        let answer = node.get(path).await;
        assert_eq!((answer.status(), answer.code().as_str()), (status, code), "{path}");
    }
    let answer = node.send(&Request::new("DELETE", "/api/jobs/42")).await;
    assert_eq!((answer.status(), answer.code().as_str()), (405, "method_not_allowed"));
    let closed = Node::builder().set("FANLIGHT_CHANNELS", "news").start().await;
    let answer = closed.get("/api/jobs/42").await;
    assert_eq!((answer.status(), answer.code().as_str()), (403, "forbidden"));
}

#[tokio::test]
async fn events_from_every_source_show_on_every_node() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    for (id, reader) in [("x", &nodes[1]), ("y", &nodes[0])] {
        let publisher = &nodes[usize::from(id == "y")];
        publisher.publish("jobs", "job_started", &json!({ "id": id })).await;
        assert_eq!(status(reader, id).await, "in_progress", "at once, on whatever node");
    }
    plain(&redis, "job_started", "plain").await;
    plain(&redis, "job_cancelled", "plain").await;
    redis.publish("jobs", r#"{"id":7,"status":"queued"}"#).await;
    redis.publish("jobs", r#"{"event":"job_log","data":{"id":"nothing of a state"}}"#).await;
    fcall(&redis, "job_started", "function").await;
    fcall(&redis, "job_failed", "function").await;
    fcall(&redis, "job_progress", "function").await;
    nodes[0].publish("jobs", "job_completed", &json!({ "id": "x" })).await;
    all_count(&nodes, &counted(1, 1, 1, 1, 1)).await;
    for node in &nodes {
        assert_eq!(status(node, "plain").await, "cancelled");
        assert_eq!(status(node, "7").await, "queued");
        assert_eq!(status(node, "function").await, "failed");
        assert_eq!(job(node, "plain").await["position"], Value::Null);
        assert!(job(node, "function").await["position"].is_string());
    }
    assert_eq!(job(&nodes[0], "function").await, job(&nodes[1], "function").await);
}

#[tokio::test]
async fn when_the_recorder_is_killed_another_takes_over_and_misses_nothing() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 3, &[]).await;
    let mut completed = 0;
    while nodes.len() > 1 {
        let recorder = recorder(&nodes).await;
        redis.has_subscribers("jobs", nodes.len() as u64, LONG).await;
        for i in 0..50 {
            for (source, kinds) in
                [("p", ["job_started", "job_completed"]), ("f", ["job_progress", "job_completed"])]
            {
                let id = format!("{source}{i}-{}", nodes.len());
                for kind in kinds {
                    match source {
                        "p" => plain(&redis, kind, &id).await,
                        _ => fcall(&redis, kind, &id).await,
                    }
                }
                // Of an ended job: it changes nothing, neither now nor when it is recorded again.
                plain(&redis, "job_progress", &id).await;
                completed += 1;
            }
            if i == 25 {
                nodes.remove(recorder).kill();
            }
        }
        all_count(&nodes, &counted(0, 0, completed, 0, 0)).await;
    }
}

#[tokio::test]
async fn a_recorder_that_ends_leaves_its_office_to_the_others_at_once() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 2, &[]).await;
    let mut recorder = nodes.remove(recorder(&nodes).await);
    let office = redis.key("@jobs:recorder");
    let holder = redis.cli(&["GET", &office]).await;
    assert!(holder.len() > 30, "{holder:?}");
    recorder.terminate();
    recorder.exit(LONG).await;
    assert_ne!(redis.cli(&["GET", &office]).await, holder);
    plain(&redis, "job_completed", "later").await;
    all_count(&nodes, &counted(0, 0, 1, 0, 0)).await;
}

#[tokio::test]
async fn the_stream_of_a_job_whose_end_was_heard_and_is_not_recorded_yet_ends() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 2, &[]).await;
    // Nobody records until its office has expired, some seconds from now.
    nodes.remove(recorder(&nodes).await).kill();
    let [node] = &nodes[..] else { panic!("one of two is left") };
    redis.has_subscribers("jobs", 1, LONG).await;
    let mut all = node.subscribe("/api/jobs/stream").await;
    for (id, kind, name) in [("plain", "job_failed", "failed"), ("durable", "job_completed", "completed")] {
        match id {
            "plain" => plain(&redis, kind, id).await,
            _ => fcall(&redis, kind, id).await,
        }
        all.expect(kind).await;
        let mut late = node.subscribe(&format!("/api/jobs/{id}/stream")).await;
        let (blocks, end) = late.rest(secs(5)).await;
        assert_eq!((blocks.last().map(|block| block.name()), end), (Some(name), End::Clean), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_opens_as_its_job_ends_has_a_first_block_and_the_end() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    for i in 0..300 {
        let node = &nodes[i % 2];
        let id = format!("j{i}");
        let open = async {
            // A little later each time: somewhere on its way the event meets the stream.
            tokio::time::sleep(Duration::from_micros(100 * (i as u64 % 40))).await;
            node.subscribe(&format!("/api/jobs/{id}/stream")).await.rest(LONG).await
        };
        let end = async {
            if i % 3 == 0 {
                fcall(&redis, "job_completed", &id).await
            } else {
                plain(&redis, "job_completed", &id).await
            }
        };
        let ((blocks, end), ()) = tokio::join!(open, end);
        let names: Vec<_> = blocks.iter().map(|block| block.name()).collect();
        assert_eq!((&names[..], end), (&["completed"][..], End::Clean), "{id}");
    }
}

#[tokio::test]
async fn whoever_publishes_a_jobs_event_counts_it_at_once() {
    let redis = RedisServer::start().await;
    for node in [Node::builder().start().await, Node::start(&redis, &[]).await] {
        for n in 1..=3 {
            assert_eq!(counts(&node).await, counted(0, n - 1, 0, 0, 0));
            node.publish("jobs", "job_started", &json!({ "id": n })).await;
        }
        assert_eq!(counts(&node).await, counted(0, 3, 0, 0, 0));
    }
}

#[tokio::test]
async fn a_recorder_that_was_paused_brings_nothing_back() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 2, &[]).await;
    let mut paused = nodes.remove(recorder(&nodes).await);
    for id in ["plain", "again"] {
        plain(&redis, "job_started", id).await;
    }
    all_count(&nodes, &counted(0, 2, 0, 0, 0)).await;
    paused.pause();
    plain(&redis, "job_completed", "plain").await;
    fcall(&redis, "job_failed", "again").await;
    plain(&redis, "job_started", "again").await;
    // Only now is somebody else the recorder.
    all_count(&nodes, &counted(0, 1, 1, 0, 0)).await;
    fcall(&redis, "job_completed", "again").await;
    all_count(&nodes, &counted(0, 0, 2, 0, 0)).await;
    paused.resume();
    paused.ready(LONG).await;
    stays("what has ended stays so", secs(2), async || {
        let found = counts(&paused).await;
        check(found == counted(0, 0, 2, 0, 0), found)
    })
    .await;
}

#[tokio::test]
async fn what_was_published_while_no_node_ran_is_recorded_by_the_first_that_comes() {
    let redis = RedisServer::start().await;
    let mut first = Node::start(&redis, &[]).await;
    fcall(&redis, "job_started", "1").await;
    eventually("it is recorded", LONG, async || check(status(&first, "1").await == "in_progress", "not yet"))
        .await;
    first.kill();
    fcall(&redis, "job_completed", "1").await;
    fcall(&redis, "job_started", "2").await;
    let second = [Node::start(&redis, &[]).await];
    all_count(&second, &counted(0, 1, 1, 0, 0)).await;
}

/// Publishes under one idempotency key; returns the position.
async fn publish_once(node: &Node, event: &str, data: &Value) -> String {
    let body = json!({ "channel": "jobs", "event": event, "data": data, "idempotencyKey": "once" });
    let answer = node.send(&Request::post("/api/events", &body)).await;
    assert_eq!(answer.status(), 202, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_repeated_idempotency_key_changes_no_job_whatever_it_says() {
    let redis = RedisServer::start().await;
    for node in [Node::builder().start().await, Node::start(&redis, &[]).await] {
        let first = publish_once(&node, "job_started", &json!({ "id": "a" })).await;
        node.publish("jobs", "job_progress", &json!({ "id": "a", "progress": 2 })).await;
        let state = job(&node, "a").await;
        for id in ["a", "b"] {
            assert_eq!(publish_once(&node, "job_completed", &json!({ "id": id })).await, first);
            assert_eq!((job(&node, "a").await, job(&node, "b").await), (state.clone(), Value::Null));
        }
        assert_eq!(counts(&node).await, counted(0, 1, 0, 0, 0));
    }
}

#[tokio::test]
async fn what_was_appended_and_never_recorded_is_recorded_although_the_publisher_says_otherwise_when_it_repeats()
 {
    let redis = RedisServer::start().await;
    // It loads the function. Then nobody is there to record what is appended, as if a node died in between.
    Node::start(&redis, &[]).await.kill();
    let function = format!("{}_publish", redis.prefix().trim_end_matches(':').replace('-', "_"));
    let first =
        redis.cli(&["FCALL", &function, "1", "jobs", "job_started", r#"{"id":"a"}"#, "", "once"]).await;
    let node = Node::start(&redis, &[]).await;
    assert_eq!(publish_once(&node, "job_completed", &json!({ "id": "b" })).await, first.trim());
    let nodes = [node];
    all_count(&nodes, &counted(0, 1, 0, 0, 0)).await;
    assert_eq!(
        (status(&nodes[0], "a").await, job(&nodes[0], "b").await),
        (json!("in_progress"), Value::Null)
    );
}

#[tokio::test]
async fn a_job_expires_with_the_history() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[("FANLIGHT_HISTORY_TTL", "2s")]).await;
    nodes[0].publish("jobs", "job_completed", &json!({ "id": "durable" })).await;
    plain(&redis, "job_started", "plain").await;
    all_count(&nodes, &counted(0, 0, 0, 0, 0)).await;
    for node in &nodes {
        assert_eq!((job(node, "durable").await, job(node, "plain").await), (Value::Null, Value::Null));
    }
}

#[tokio::test]
async fn without_redis_a_job_is_unavailable_and_the_counts_are_the_last_known() {
    let mut redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    node.publish("jobs", "job_completed", &json!({ "id": "42" })).await;
    let nodes = [node];
    all_count(&nodes, &counted(0, 0, 1, 0, 0)).await;
    let [node] = nodes;
    redis.pause();
    let asked = Instant::now();
    let answer = node.get("/api/jobs/42").await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "broker_unavailable"));
    assert!(
        asked.elapsed() < secs(3),
        "within a second, and what a busy machine adds: {:?}",
        asked.elapsed()
    );
    eventually("the health says that the counts are old", LONG, async || {
        let health = node.get("/health").await.json();
        assert_eq!(health["jobs"], counted(0, 0, 1, 0, 0));
        let told = health["reasons"].to_string().contains("states of the jobs");
        check(told && health["status"] == "degraded", health)
    })
    .await;
    redis.resume();
    eventually("the job is there again", LONG, async || {
        let answer = node.get("/api/jobs/42").await;
        check(answer.status() == 200, answer.text())
    })
    .await;
    redis.kill();
    let answer = node.get("/api/jobs/42").await;
    assert_eq!((answer.status(), answer.code().as_str()), (503, "broker_unavailable"));
}

#[tokio::test]
async fn jobs_are_recorded_on_after_redis_was_restarted() {
    let mut redis = RedisServer::start_with(Persistence::Aof, &[]).await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    recorder(&nodes).await;
    plain(&redis, "job_started", "plain").await;
    fcall(&redis, "job_started", "function").await;
    all_count(&nodes, &counted(0, 2, 0, 0, 0)).await;
    redis.restart().await;
    // Nobody hears it live.
    fcall(&redis, "job_completed", "function").await;
    all_count(&nodes, &counted(0, 1, 1, 0, 0)).await;
    redis.has_subscribers("jobs", 2, LONG).await;
    plain(&redis, "job_completed", "plain").await;
    all_count(&nodes, &counted(0, 0, 2, 0, 0)).await;
    redis.restart_empty().await;
    redis.has_subscribers("jobs", 2, LONG).await;
    plain(&redis, "job_started", "plain").await;
    eventually("the function is loaded again and heard", LONG, async || {
        nodes[0].publish("jobs", "job_started", &json!({ "id": "new" })).await;
        check(counts(&nodes[1]).await == counted(0, 2, 0, 0, 0), counts(&nodes[1]).await)
    })
    .await;
    all_count(&nodes, &counted(0, 2, 0, 0, 0)).await;
}
