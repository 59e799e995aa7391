//! `bench` against servers that are good and servers that are not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::Event;
use axum::routing::{get, post};
use futures_util::stream::unfold;
use serde_json::Value;
use tokio::sync::broadcast;

use super::{Ran, command};
use crate::support::process::{free_port, loopback};
use crate::support::{Node, RedisServer};

async fn bench(arguments: &[&str]) -> (i32, Value) {
    let mut command = command(&["bench", "--json", "--warmup=0s", "--patience=500ms"], &[]);
    command.args(arguments);
    let ran = Ran::of(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap());
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no report: {}", ran.all()));
    (ran.code, report)
}

/// What a server makes of the published events, counted from 0.
type Fault = fn(u64) -> &'static [i64];

#[derive(Clone)]
struct Usual {
    events: broadcast::Sender<String>,
    published: Arc<AtomicU64>,
    fault: Fault,
    history: Arc<std::sync::Mutex<Vec<String>>>,
}

/// The program that everyone writes: axum's `Sse` over tokio's `broadcast`. `fault` says which events go out in place of
/// each one, as offsets from it.
async fn usual_server(fault: Fault) -> SocketAddr {
    let state = Usual {
        events: broadcast::channel(1024).0,
        published: Arc::default(),
        fault,
        history: Arc::default(),
    };
    let stream = async |State(state): State<Usual>| {
        let receiver = state.events.subscribe();
        Sse::new(unfold(receiver, |mut receiver| async move {
            let data = receiver.recv().await.ok()?;
            Some((Ok::<_, Infallible>(Event::default().data(data)), receiver))
        }))
    };
    let publish = async |State(state): State<Usual>, body: String| {
        let n = state.published.fetch_add(1, Ordering::SeqCst);
        let mut history = state.history.lock().unwrap();
        history.push(body);
        for offset in (state.fault)(n) {
            let _ = state.events.send(history[n.checked_add_signed(*offset).unwrap() as usize].clone());
        }
    };
    let app = Router::new()
        .route("/sub", get(stream))
        .route("/pub", post(publish))
        .route("/stuck", post(std::future::pending::<()>))
        .with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

fn urls(address: SocketAddr) -> [String; 2] {
    [format!("--url=http://{address}/sub"), format!("--publish-http=http://{address}/pub")]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_delivery_of_any_server_is_counted_once() {
    let [url, publish] = urls(usual_server(|_| &[0]).await);
    let pid = format!("--pid={}", std::process::id());
    let more = [
        "--connections=50",
        "--events=200",
        "--in-flight=8",
        "--burst=4",
        "--source-addresses=5",
        "--size=1KiB",
    ];
    let (code, report) = bench(&[&[url.as_str(), &publish, &pid], &more[..]].concat()).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(
        (&report["open"], &report["published"], &report["deliveries"]),
        (&50.into(), &200.into(), &10_000.into())
    );
    assert_eq!(report["latencyMillis"]["count"], 10_000);
    assert!(report["bytes"].as_u64().unwrap() > 200 * 50 * 1024);
    assert!(report["server"]["pssBytesConnected"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_publishes_at_its_rate_whatever_arrives() {
    let [url, publish] = urls(usual_server(|n| if n % 2 == 0 { &[0] } else { &[] }).await);
    let (code, report) = bench(&[&url, &publish, "--connections=3", "--events=100", "--rate=1000"]).await;
    assert_eq!((code, &report["lost"], &report["overdue"]), (1, &150.into(), &50.into()), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_loses_repeats_and_reorders_is_found_out() {
    let fault: Fault = |n| match n % 10 {
        3 => &[],      // lost
        5 => &[0, 0],  // twice
        7 => &[],      // held back …
        8 => &[0, -1], // … and sent after the next one
        _ => &[0],
    };
    let [url, publish] = urls(usual_server(fault).await);
    let (code, report) =
        bench(&[&url, &publish, "--connections=4", "--events=50", "--rate=2000", "--in-flight=1000"]).await;
    assert_eq!(code, 1);
    let found = ["lost", "duplicated", "outOfOrder"].map(|name| report[name].as_u64().unwrap());
    assert_eq!(found, [4 * 5, 4 * 5, 4 * 5], "{report:#}");
}

/// What a run that cannot be finished says.
async fn complaint(arguments: &[&str]) -> String {
    let mut command = command(&["bench", "--patience=500ms"], &[]);
    command.args(arguments);
    let ran = Ran::of(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap());
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    ran.stderr
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_finished_ends_with_its_reason() {
    let address = usual_server(|_| &[0]).await;
    let said = complaint(&[&format!("--url=http://{address}/nowhere")]).await;
    assert!(said.contains("HTTP status 404"), "{said}");
    let stream = format!("--url=http://{address}/sub");
    let said =
        complaint(&[&stream, &format!("--publish-http=http://{address}/stuck"), "--events=1000"]).await;
    assert!(said.contains("does not answer what is published"), "{said}");
    let nowhere = loopback(free_port());
    let said = complaint(&[&stream, &format!("--publish-http=http://{nowhere}/")]).await;
    assert!(said.contains(&format!("cannot publish to {nowhere}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_driven_by_its_url_alone() {
    let node = Node::builder().start().await;
    let (code, report) = bench(&["--url", &node.url(), "--connections=20", "--events=100"]).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["deliveries"], 2000);
}
#[tokio::test(flavor = "multi_thread")]
async fn publishing_goes_through_redis_as_well() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let channel = format!("--publish-channel={}jobs", redis.prefix());
    let publish = format!("--publish-redis={}", redis.url());
    let more = ["--connections=20", "--events=100", "--burst=10"];
    let (code, report) = bench(&[&["--url", &node.url(), &publish, &channel], &more[..]].concat()).await;
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["deliveries"], 2000);
}
