//! Which traces there are, and of what: the sampler, the variables that turn tracing off, and what is lost on the way.

use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use serde_json::json;

use crate::support::node::fanlight;
use crate::support::wait::check;
use crate::support::{Node, RedisServer, Request, SseRequest, eventually, secs};
use crate::traces::{CLIENT, CONSUMER, Collector, PARENT, PRODUCER, SERVER, TRACE, attribute, hex, text};

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// Publishing an event by somebody who has a trace.
fn event(flags: &str) -> Request {
    let body = json!({ "channel": "jobs", "event": "e", "data": {} });
    Request::post("/api/events", &body).header("traceparent", &traceparent(flags))
}

/// A node on `redis` that exports to `collector` and goes within a moment; at its end it has sent all of its spans.
async fn traced(redis: &RedisServer, collector: &str, settings: &[(&str, &str)]) -> Node {
    let always = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
        ("FANLIGHT_DRAIN", "0s"),
        ("FANLIGHT_MAX_PER_IP", "1000"),
    ];
    Node::start(redis, &[&always, settings].concat()).await
}

async fn end(mut node: Node) {
    node.terminate();
    assert_eq!(node.exit(secs(20)).await.code(), Some(0));
}

/// Publishes so many events into Redis with this `traceparent`, and waits until they have arrived.
async fn publish(redis: &RedisServer, node: &Node, count: usize, traceparent: Option<&str>) {
    let mut client = node.subscribe("/stream").await;
    let mut publisher = redis.publisher();
    let payload = json!({ "event": "e", "data": 1, "traceparent": traceparent }).to_string();
    for _ in 0..count {
        publisher.publish("jobs", payload.as_bytes()).await.unwrap();
    }
    for _ in 0..count {
        client.expect("e").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarter_is_a_quarter_and_what_others_sample_is_followed() {
    let redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let quarter = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
    let node = traced(&redis, &url, &quarter).await;
    publish(&redis, &node, 400, None).await;
    publish(&redis, &node, 10, Some(&traceparent("01"))).await;
    publish(&redis, &node, 10, Some(&traceparent("00"))).await;
    end(node).await;
    let events = collector.of_kind(CONSUMER).len();
    let followed = collector.of(&hex(TRACE)).len();
    // 100 of 400 with a standard deviation of 8.7; drawn twice it would be 25.
    assert!((50..=150).contains(&(events - followed)), "{events}");
    assert_eq!(followed, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_off_exports_nothing() {
    for settings in [
        &[("OTEL_TRACES_SAMPLER", "always_off")],
        &[("OTEL_SDK_DISABLED", "true")],
        &[("OTEL_TRACES_EXPORTER", "none")],
    ] {
        let redis = RedisServer::start().await;
        let (collector, url) = Collector::start().await;
        let node = traced(&redis, &url, settings).await;
        publish(&redis, &node, 5, Some(&traceparent("01"))).await;
        node.publish("jobs", "e", &json!(1)).await;
        end(node).await;
        let spans = [SERVER, CLIENT, PRODUCER, CONSUMER].map(|kind| collector.of_kind(kind).len());
        assert_eq!(spans, [0; 4], "{settings:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_ends_with_its_head_and_redis_is_in_the_trace_of_who_asked() {
    let redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let node = traced(&redis, &url, &[("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    let request = SseRequest::new("/stream").header("traceparent", &traceparent("01"));
    let mut client = request.open(node.addr()).await;
    client.next_event(secs(10)).await.unwrap();
    assert_eq!(node.send(&event("01")).await.status(), 202);
    client.expect("e").await;
    let spans = eventually("a request with its question, another with its command", secs(20), async || {
        let spans: Vec<_> = collector.of(&hex(TRACE)).into_iter().map(|(_, span)| span).collect();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        let all = ["GET /stream", "admit", "POST /api/events", "send jobs", "process jobs"];
        check(all.iter().all(|name| names.contains(name)), format!("{names:?}"))?;
        Ok::<_, String>(spans)
    })
    .await;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (stream, admit, send) = (named("GET /stream"), named("admit"), named("send jobs"));
    // The stream is still open.
    assert!(stream.end_time_unix_nano > stream.start_time_unix_nano);
    assert_eq!((admit.kind, &admit.parent_span_id), (CLIENT, &stream.span_id));
    let commands: Vec<_> =
        spans.iter().filter(|span| span.parent_span_id == send.span_id && span.kind == CLIENT).collect();
    assert!(!commands.is_empty());
    for command in commands.iter().copied().chain([admit]) {
        assert_eq!(attribute(command, "db.system.name"), Some(&text("redis")), "{command:?}");
        assert_eq!(attribute(command, "db.operation.name"), Some(&text("EVALSHA")), "{command:?}");
    }
    assert!(commands.iter().all(|command| attribute(command, "db.namespace") == Some(&text("0"))));
    let process = named("process jobs");
    assert_eq!(attribute(process, "messaging.destination.name"), Some(&text("jobs")));
    assert_eq!(attribute(process, "messaging.message.body.size"), Some(&Any::IntValue(2)));
    assert_eq!(attribute(process, "fanlight.subscribers"), Some(&Any::IntValue(1)));
    let lag = attribute(process, "fanlight.lag_ms");
    assert!(matches!(lag, Some(Any::IntValue(0..=60_000))), "{lag:?}");
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_says_so_in_its_spans() {
    let mut redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let node = traced(&redis, &url, &[]).await;
    redis.kill();
    assert_eq!(node.send(&event("01")).await.status(), 503);
    end(node).await;
    let spans = collector.of(&hex(TRACE));
    for (kind, error) in [(SERVER, "503"), (PRODUCER, "unavailable"), (CLIENT, "unavailable")] {
        let (_, span) = spans.iter().find(|(_, span)| span.kind == kind).unwrap();
        assert_eq!(attribute(span, "error.type"), Some(&text(error)), "{span:?}");
        // STATUS_CODE_ERROR
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(2), "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_refuses_says_with_which_word() {
    let redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let node = traced(&redis, &url, &[]).await;
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(node.send(&event("01")).await.status(), 503);
    end(node).await;
    let spans = collector.of(&hex(TRACE));
    let (_, span) = spans.iter().find(|(_, span)| span.kind == CLIENT).unwrap();
    for key in ["db.response.status_code", "error.type"] {
        assert_eq!(attribute(span, key), Some(&text("OOM")), "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_command_line_could_not_publish_says_so() {
    let (collector, url) = Collector::start().await;
    let mut publish = fanlight();
    publish.args(["publish", "jobs", "1", "--url", "http://127.0.0.1:1"]);
    publish.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    let status = tokio::task::spawn_blocking(move || publish.status().unwrap()).await.unwrap();
    assert!(!status.success());
    let spans = collector.of_kind(PRODUCER);
    let [(_, span)] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(attribute(span, "error.type"), Some(&text("_OTHER")));
    assert_eq!(span.status.as_ref().map(|status| status.code), Some(2), "{span:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_sampled_tells_the_nodes_so() {
    let redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let nodes = [traced(&redis, &url, &[]).await, traced(&redis, &url, &[]).await];
    let mut client = nodes[1].subscribe("/stream").await;
    for flags in ["00", "01"] {
        assert_eq!(nodes[0].send(&event(flags)).await.status(), 202);
        client.expect("e").await;
    }
    drop(client);
    for node in nodes {
        end(node).await;
    }
    let count = |kind| collector.of_kind(kind).iter().filter(|(_, span)| span.trace_id == hex(TRACE)).count();
    assert_eq!((count(SERVER), count(PRODUCER), count(CONSUMER)), (1, 1, 2));
    assert_eq!(
        collector.of_kind(CONSUMER).len(),
        2,
        "no trace of their own for the event that was not sampled"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_nobody_takes_are_counted_and_told_once() {
    let redis = RedisServer::start().await;
    let node = traced(&redis, "http://127.0.0.1:1", &[("OTEL_BSP_SCHEDULE_DELAY", "50")]).await;
    eventually("they are counted", secs(20), async || {
        node.publish("jobs", "e", &json!(1)).await;
        let page = node.get("/metrics").await.text();
        let dropped = page.lines().find_map(|line| line.strip_prefix("fanlight_spans_dropped_total "));
        let dropped: u64 = dropped.unwrap().parse().unwrap();
        check(dropped > 20, dropped)
    })
    .await;
    assert_eq!(node.log().matches("spans cannot be exported").count(), 1, "{}", node.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_console_gets_spans_and_a_wrong_variable_is_named() {
    let node = Node::builder().start().await;
    let run = |variables: &[(&str, &str)]| {
        let mut command = fanlight();
        command.args(["publish", "jobs", "1", "--url", &node.url()]).envs(variables.iter().copied());
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let printed = run(&[("OTEL_TRACES_EXPORTER", "console")]).await.unwrap();
    let said = String::from_utf8_lossy(&printed.stdout).into_owned();
    assert!(printed.status.success() && said.contains("send jobs"), "{said}");
    let wrong = [
        ("OTEL_TRACES_EXPORTER", "console"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ];
    let refused = run(&wrong).await.unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("OTEL_TRACES_SAMPLER_ARG is \"2\"; allowed: 0 to 1"), "{said}");
}
