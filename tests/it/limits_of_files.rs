//! Open files: the soft limit is raised, the hard one caps the streams with a warning, and running out ends nothing.

use crate::support::wait::{check, secs};
use crate::support::{Node, RedisServer, Request, SseClient, SseRequest, eventually};

fn soft_limit(pid: u32) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_to_the_hard_one() {
    let mut node = Node::builder().open_files(256, 1024).start().await;
    assert_eq!(soft_limit(node.process().id()), 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_low_limit_of_files_is_warned_about_once_unless_so_few_streams_are_wanted() {
    for (wanted, warnings) in [(None, 1), (Some(100), 0)] {
        let builder = Node::builder().open_files(1024, 1024);
        let node = match wanted {
            None => builder.start().await,
            Some(wanted) => builder.set("FANLIGHT_MAX_CONNECTIONS", wanted).start().await,
        };
        let log = node.log();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("limit of open files")).collect();
        assert_eq!(told.len(), warnings, "{log}");
        assert!(told.iter().all(|line| line.contains("WARN") && line.contains("ulimit -n")), "{told:?}");
    }
}

/// Opens streams until one is refused; returns them and the refusal.
async fn fill(node: &Node) -> (Vec<SseClient>, SseClient) {
    let mut open = Vec::new();
    loop {
        let client = SseRequest::new("/stream").try_open(node.addr()).await.unwrap();
        if client.head.status != 200 {
            return (open, client);
        }
        open.push(client);
        assert!(open.len() < 10_000, "never refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_capped_below_the_files_with_a_warning_and_the_rest_still_works() {
    let redis = RedisServer::start().await;
    let node = Node::builder()
        .redis(&redis)
        .set("FANLIGHT_MAX_CONNECTIONS", 5000)
        .open_files(200, 200)
        .start()
        .await;
    let log = node.log();
    let warning = log.lines().find(|line| line.contains("WARN") && line.contains("FANLIGHT_MAX_CONNECTIONS"));
    let warning =
        warning.unwrap_or_else(|| panic!("no warning that 200 files are too few for 5000 streams:\n{log}"));
    assert!(warning.contains("5000") && warning.contains("200") && warning.contains("ulimit"), "{warning}");
    let (mut open, refused) = fill(&node).await;
    assert!((50..200).contains(&open.len()), "{} streams", open.len());
    assert_eq!(refused.head.status, 503);
    assert!(refused.head.get("retry-after").is_some(), "{:?}", refused.head);
    let refusal = node.send(&Request::get("/stream")).await;
    assert_eq!((refusal.status(), refusal.code().as_str()), (503, "capacity"));

    node.publish("jobs", "full", &serde_json::json!({})).await;
    for client in &mut open {
        client.next_event(secs(5)).await.expect("the first block");
        client.expect("full").await;
    }
    open.truncate(open.len() - 10);
    eventually("the freed places are taken again", secs(10), async || {
        let client = SseRequest::new("/stream").try_open(node.addr()).await?;
        check(client.head.status == 200, client.head.status)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_that_say_nothing_takes_no_stream_away() {
    let redis = RedisServer::start().await;
    let mut node = Node::builder().redis(&redis).open_files(200, 200).start().await;
    let mut stream = node.subscribe("/stream").await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(crate::support::http::connect(node.addr(), None, None).await.unwrap());
    }
    // The accept loop has run out of files: what is open goes on, and waiting costs no CPU to speak of.
    redis.publish("jobs", r#"{"event":"through","data":1}"#).await;
    stream.expect("through").await;
    let process = node.process();
    let before = process.cpu();
    tokio::time::sleep(secs(2)).await;
    let spent = process.cpu() - before;
    assert!(spent.as_millis() < 1000, "{spent:?} of CPU in 2 s of waiting for files");
    drop(silent);
    eventually("new streams are taken", secs(20), async || {
        let client = SseRequest::new("/stream").try_open(node.addr()).await?;
        check(client.head.status == 200, client.head.status)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configured_maximum_holds_exactly() {
    let node = Node::builder().set("FANLIGHT_MAX_CONNECTIONS", 7).start().await;
    let (open, refused) = fill(&node).await;
    assert_eq!((open.len(), refused.head.status), (7, 503));
}
