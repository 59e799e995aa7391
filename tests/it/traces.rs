//! An event's way from its publisher to the nodes is one trace, at a collector that speaks OTLP over HTTP.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;

use crate::support::node::fanlight;
use crate::support::tls::Authority;
use crate::support::wait::check;
use crate::support::web_proxy::{Kind, WebProxy};
use crate::support::{Node, RedisServer, Request, eventually, secs};

pub(crate) const SERVER: i32 = 2;
pub(crate) const CLIENT: i32 = 3;
pub(crate) const PRODUCER: i32 = 4;
pub(crate) const CONSUMER: i32 = 5;

/// The spans that came, each with the instance that sent it.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

impl Collector {
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let app = axum::Router::new().fallback(take).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, url)
    }

    /// The spans of one trace.
    pub(crate) fn of(&self, trace: &[u8]) -> Vec<(String, Span)> {
        self.0.lock().unwrap().iter().filter(|(_, span)| span.trace_id == trace).cloned().collect()
    }

    pub(crate) fn of_kind(&self, kind: i32) -> Vec<(String, Span)> {
        self.0.lock().unwrap().iter().filter(|(_, span)| span.kind == kind).cloned().collect()
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Vec<u8> {
    // gRPC puts a flag and the length before its one message.
    let grpc =
        headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let message = body.slice(if grpc { 5.. } else { 0.. });
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.unwrap_or_default().attributes;
        let value = |key: &str| {
            let found = attributes.iter().find(|attribute| attribute.key == key)?;
            match found.value.clone()?.value? {
                Any::StringValue(text) => Some(text),
                _ => None,
            }
        };
        assert_eq!(value("service.name").as_deref(), Some("fanlight"));
        let instance = value("service.instance.id").unwrap_or_default();
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.0.lock().unwrap().extend(spans.map(|span| (instance.clone(), span)));
    }
    Vec::new()
}

async fn traced_cluster(redis: &RedisServer, collector: &str, relation: &str) -> [Node; 2] {
    let start = |id| {
        let settings = [
            ("FANLIGHT_NODE_ID", id),
            ("FANLIGHT_TRACE_RELATION", relation),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ];
        async move { Node::start(redis, &settings).await }
    };
    [start("a").await, start("b").await]
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

pub(crate) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(crate) const PARENT: &str = "b7ad6b7169203331";

pub(crate) fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Any> {
    span.attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_over_http_is_one_trace_through_redis_to_every_node() {
    let redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let nodes = traced_cluster(&redis, &url, "parent").await;
    let mut clients =
        [nodes[0].subscribe("/api/jobs/stream").await, nodes[1].subscribe("/api/jobs/stream").await];
    let request =
        Request::post("/api/events", &json!({ "channel": "jobs", "event": "e", "data": { "id": "1" } }))
            .header("traceparent", &format!("00-{TRACE}-{PARENT}-01"));
    assert_eq!(nodes[0].send(&request).await.status(), 202);
    for client in &mut clients {
        client.expect("e").await;
    }
    let spans = eventually("a request, a send, Redis, and a process on each node", secs(20), async || {
        let spans = collector.of(&hex(TRACE));
        let has = |kind, count| spans.iter().filter(|(_, span)| span.kind == kind).count() == count;
        let names = || spans.iter().map(|(node, span)| format!("{node} {}", span.name)).collect::<Vec<_>>();
        let redis = spans.iter().any(|(_, span)| span.kind == CLIENT);
        check(has(SERVER, 1) && has(PRODUCER, 1) && has(CONSUMER, 2) && redis, format!("{:?}", names()))?;
        Ok::<_, String>(spans)
    })
    .await;
    let one = |kind| &spans.iter().find(|(_, span)| span.kind == kind).unwrap().1;
    let (server, send) = (one(SERVER), one(PRODUCER));
    assert_eq!((server.name.as_str(), &server.parent_span_id), ("POST /api/events", &hex(PARENT)));
    assert_eq!(attribute(server, "http.response.status_code"), Some(&Any::IntValue(202)));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/api/events"),
        ("url.scheme", "http"),
        ("url.path", "/api/events"),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(attribute(server, key), Some(&text(value)), "{key}");
    }
    assert_eq!((send.name.as_str(), &send.parent_span_id), ("send jobs", &server.span_id));
    assert_eq!(attribute(send, "messaging.message.body.size"), Some(&Any::IntValue(10)));
    assert!(
        attribute(send, "messaging.message.id").is_some()
            && attribute(send, "messaging.batch.message_count").is_none()
    );
    let consumers: Vec<&(String, Span)> = spans.iter().filter(|(_, span)| span.kind == CONSUMER).collect();
    assert!(
        consumers.iter().all(|(_, span)| span.name == "process jobs" && span.parent_span_id == send.span_id)
    );
    assert!(
        consumers.iter().all(|(_, span)| attribute(span, "fanlight.subscribers") == Some(&Any::IntValue(1)))
    );
    let on: BTreeSet<&str> = consumers.iter().map(|(node, _)| node.as_str()).collect();
    assert_eq!(on, BTreeSet::from(["a", "b"]));
}

pub(crate) fn text(text: &str) -> Any {
    Any::StringValue(text.to_owned())
}

/// The span of the one request with this `traceparent`.
async fn span_of(collector: &Collector, trace: &str) -> Span {
    eventually("its span comes", secs(20), async || {
        let spans = collector.of(&hex(trace));
        let server = spans.into_iter().find(|(_, span)| span.kind == SERVER);
        server.map(|(_, span)| span).ok_or("none")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_is_told_where_it_is_one_of_ours_and_the_scheme_by_a_trusted_proxy() {
    let (collector, url) = Collector::start().await;
    let start = async |proxies: &str| {
        let builder = Node::builder().set("FANLIGHT_TRUSTED_PROXIES", proxies);
        let builder = builder.set("OTEL_EXPORTER_OTLP_ENDPOINT", &url).set("OTEL_BSP_SCHEDULE_DELAY", "100");
        builder.start().await
    };
    let nodes = [start("127.0.0.1").await, start("").await];
    let job = Some("/api/jobs/{id}");
    for (n, (node, method, path, route, scheme)) in [
        (&nodes[0], "GET", "/api/jobs/7?token=secret", job, "https"),
        (&nodes[1], "GET", "/api/jobs/7?token=secret", job, "http"),
        (&nodes[0], "GET", "/api/secret", None, "https"),
        (&nodes[0], "BREW", "/api/jobs/7", job, "https"),
    ]
    .into_iter()
    .enumerate()
    {
        let trace = format!("0af7651916cd43dd8448eb211c8031a{n}");
        let request = Request::new(method, path)
            .header("traceparent", &format!("00-{trace}-{PARENT}-01"))
            .header("X-Forwarded-Proto", "http, https");
        node.send(&request).await;
        let span = span_of(&collector, &trace).await;
        let known = (method == "GET").then_some(method);
        let name = [known.or(Some("HTTP")), route].into_iter().flatten().collect::<Vec<_>>().join(" ");
        assert_eq!(span.name, name);
        assert_eq!(attribute(&span, "http.request.method"), Some(&text(known.unwrap_or("_OTHER"))));
        assert_eq!(attribute(&span, "http.route"), route.map(text).as_ref());
        assert_eq!(attribute(&span, "url.path"), route.map(|_| text("/api/jobs/7")).as_ref());
        assert_eq!(attribute(&span, "url.scheme"), Some(&text(scheme)));
        assert!(!format!("{span:?}").contains("secret"), "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_tells_what_all_of_its_events_have_in_common() {
    let (collector, url) = Collector::start().await;
    let node =
        Node::builder().set("OTEL_EXPORTER_OTLP_ENDPOINT", &url).set("FANLIGHT_DRAIN", "0s").start().await;
    for (second, name, destination) in [("jobs", "send jobs", Some(text("jobs"))), ("news", "send", None)] {
        let event = |channel| json!({ "channel": channel, "event": "e", "data": {} });
        let batch = Request::post("/api/events", &json!([event("jobs"), event(second)]));
        assert_eq!(node.send(&batch).await.status(), 202);
        eventually("its span comes", secs(20), async || {
            let spans = collector.of_kind(PRODUCER);
            let (_, span) = spans.iter().find(|(_, span)| span.name == name).ok_or("none")?;
            assert_eq!(attribute(span, "messaging.destination.name"), destination.as_ref());
            assert_eq!(attribute(span, "messaging.batch.message_count"), Some(&Any::IntValue(2)));
            assert!(attribute(span, "messaging.message.id").is_none());
            Ok::<_, String>(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_publishes_with_its_traceparent_is_the_parent_or_is_linked_as_set() {
    for relation in ["parent", "link"] {
        let redis = RedisServer::start().await;
        let (collector, url) = Collector::start().await;
        let nodes = traced_cluster(&redis, &url, relation).await;
        let mut clients = [nodes[0].subscribe("/stream").await, nodes[1].subscribe("/stream").await];
        let payload = json!({ "event": "e", "data": 1, "traceparent": format!("00-{TRACE}-{PARENT}-01") });
        redis.publish("jobs", &payload.to_string()).await;
        for client in &mut clients {
            client.expect("e").await;
        }
        let spans = eventually("a process on each node", secs(20), async || {
            let spans = collector.of_kind(CONSUMER);
            check(spans.len() == 2, spans.len())?;
            Ok::<_, String>(spans)
        })
        .await;
        for (_, span) in &spans {
            if relation == "parent" {
                assert_eq!((&span.trace_id, &span.parent_span_id), (&hex(TRACE), &hex(PARENT)));
            } else {
                assert!(span.trace_id != hex(TRACE) && span.parent_span_id.is_empty());
                let [link] = &span.links[..] else { panic!("{:?}", span.links) };
                assert_eq!((&link.trace_id, &link.span_id), (&hex(TRACE), &hex(PARENT)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_publisher_does_not_sample_has_no_spans_and_the_command_line_begins_traces() {
    let redis = RedisServer::start().await;
    let (collector, url) = Collector::start().await;
    let nodes = traced_cluster(&redis, &url, "parent").await;
    let mut client = nodes[0].subscribe("/stream").await;
    let payload = json!({ "event": "e", "data": 1, "traceparent": format!("00-{TRACE}-{PARENT}-00") });
    redis.publish("jobs", &payload.to_string()).await;
    client.expect("e").await;
    let mut publish = fanlight();
    publish.args(["publish", "jobs", "1", "--event", "f", "--url", &nodes[1].url()]);
    publish.env("OTEL_EXPORTER_OTLP_ENDPOINT", &url);
    let status = tokio::task::spawn_blocking(move || publish.status().unwrap()).await.unwrap();
    assert!(status.success());
    client.expect("f").await;
    eventually("the command line's span is the root of the trace", secs(20), async || {
        let producers = collector.of_kind(PRODUCER);
        let root = producers.iter().find(|(_, span)| span.parent_span_id.is_empty()).ok_or("no root")?;
        let whole = collector.of(&root.1.trace_id);
        check(
            whole.iter().filter(|(_, span)| span.kind == CONSUMER).count() >= 1,
            format!("{} spans", whole.len()),
        )
    })
    .await;
    assert_eq!(collector.of(&hex(TRACE)).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_reached_over_tls_by_both_protocols() {
    let authority = Authority::new();
    let certified = authority.certify_loopback();
    let (collector, plain) = Collector::start().await;
    // HTTP/1.1 and HTTP/2 over TLS in front of it.
    let proxy = WebProxy::start_with(Kind::Caddy, |addr| {
        format!(
            "{{\n\tadmin off\n\tauto_https off\n}}\nhttps://localhost:{} {{\n\tbind {}\n\ttls {} {}\n\treverse_proxy {plain}\n}}\n",
            addr.port(),
            addr.ip(),
            certified.certificate.display(),
            certified.key.display()
        )
    })
    .await;
    for (name, protocol) in [("http", "http/protobuf"), ("grpc", "grpc")] {
        let node = Node::builder()
            .set("FANLIGHT_NODE_ID", name)
            .set("SSL_CERT_FILE", authority.certificate().display())
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", format!("https://localhost:{}", proxy.addr().port()))
            .set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .set("OTEL_BSP_SCHEDULE_DELAY", "100")
            .start()
            .await;
        node.publish("jobs", "e", &json!(1)).await;
        eventually("its spans come", secs(20), async || {
            let found = collector.of_kind(PRODUCER).iter().any(|(instance, _)| instance == name);
            check(found, node.log())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_or_hangs_is_noticed_by_no_stream() {
    // A socket that is listened to and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!("http://{}", silent.local_addr().unwrap());
    for (endpoint, protocol) in [
        ("http://127.0.0.1:1", "http/protobuf"),
        ("http://127.0.0.1:1", "grpc"),
        (hanging.as_str(), "http/protobuf"),
        (hanging.as_str(), "grpc"),
    ] {
        let mut node = Node::builder()
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
            .set("OTEL_BSP_MAX_QUEUE_SIZE", 64)
            .set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 16)
            .set("FANLIGHT_DRAIN", "0s")
            .start()
            .await;
        let mut client = node.subscribe("/stream").await;
        for n in 0..200 {
            node.publish("jobs", "e", &json!({ "n": n })).await;
            assert_eq!(client.expect("e").await.json()["n"], n);
        }
        drop(client);
        node.terminate();
        assert_eq!(node.exit(secs(20)).await.code(), Some(0), "{endpoint} {protocol}");
    }
}
