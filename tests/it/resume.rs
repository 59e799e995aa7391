//! Clients that come back, to whatever node: nothing lost, nothing twice, nothing silent.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{Node, RedisServer, SseClient, SseRequest, secs};

async fn events(client: &mut SseClient, count: usize) -> Vec<i64> {
    positioned(client, count).await.0
}

/// The numbers of the next events, and the position of the last of them: what a browser would come back with.
async fn positioned(client: &mut SseClient, count: usize) -> (Vec<i64>, String) {
    let (mut seen, mut position) = (Vec::new(), String::new());
    while seen.len() < count {
        let block = client.next_event(secs(10)).await.unwrap();
        assert_ne!(block.name(), "gap", "{}", block.text());
        if block.name() == "n" {
            seen.push(block.json()["n"].as_i64().unwrap());
            position = block.id.unwrap();
        }
    }
    (seen, position)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_killed_node_gets_on_another_what_it_missed_once_and_in_order() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 3, &[]).await;
    let mut client = nodes[0].subscribe("/stream?channels=jobs,pending-changes").await;
    let (mut n, mut seen) = (0, Vec::new());
    for round in 0..6 {
        for _ in 0..10 {
            let channel = if n % 3 == 0 { "pending-changes" } else { "jobs" };
            nodes[(round + 1) % 3].publish(channel, "n", &json!({ "n": n })).await;
            n += 1;
        }
        // Only some of it is read before the node dies.
        let (read, position) = positioned(&mut client, 4).await;
        seen.extend(read);
        let dead = round % 3;
        nodes[dead].kill();
        for _ in 0..5 {
            nodes[(round + 1) % 3].publish("jobs", "n", &json!({ "n": n })).await;
            n += 1;
        }
        let request = SseRequest::new("/stream?channels=jobs,pending-changes").last_event_id(&position);
        client = request.open(nodes[(round + 1) % 3].addr()).await;
        let hello = client.expect("connected").await;
        assert_eq!(hello.json()["recovered"], true);
        seen.extend(events(&mut client, usize::try_from(n).unwrap() - seen.len()).await);
        nodes[dead] = Node::start(&redis, &[]).await;
    }
    assert_eq!(seen, (0..n).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_cannot_be_served_is_told_as_a_gap_and_the_stream_goes_on() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_HISTORY_SIZE", "5")]).await;
    let first = node.publish("jobs", "n", &json!({ "n": 0 })).await;
    for n in 1..7 {
        node.publish("jobs", "n", &json!({ "n": n })).await;
    }
    for (position, reason) in [
        (first.as_str(), "history_trimmed"), // the second event is missing, the third to the seventh are there
        ("00000000001-00000000000001", "history_lost"),
        ("fffffffffff-00000000000001", "unknown_position"),
        ("garbage", "unknown_position"),
        ("'; DROP TABLE", "unknown_position"),
    ] {
        let mut client =
            SseRequest::new("/stream?channels=jobs").last_event_id(position).open(node.addr()).await;
        assert_eq!(client.expect("connected").await.json()["recovered"], false, "{position}");
        let gap = client.next_block(secs(10)).await.unwrap();
        assert_eq!((gap.name(), &gap.json()["reason"]), ("gap", &json!(reason)), "{position}");
        // What is left of the history may come first.
        node.publish("jobs", "live", &json!({})).await;
        while client.next_event(secs(10)).await.unwrap().name() != "live" {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_told_a_gap_is_not_told_it_again_when_he_comes_back() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_MAX_PER_IP", "0")]).await;
    node.publish("other", "n", &json!({})).await;
    for position in ["00000000001-00000000000001", "fffffffffff-00000000000001", "garbage"] {
        let back = async |position: &str| {
            SseRequest::new("/stream?channels=jobs").last_event_id(position).open(node.addr()).await
        };
        let mut client = back(position).await;
        assert_eq!(client.expect("connected").await.json()["recovered"], false, "{position}");
        client.expect("gap").await;
        let beyond = client.next_block(secs(10)).await.unwrap();
        assert_eq!((beyond.event, beyond.data), (None, None), "{position}");
        let again = back(&beyond.id.unwrap()).await.expect("connected").await.json();
        assert_eq!(again["recovered"], true, "{position}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_come_back_at_once_share_their_reads() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let position = node.publish("jobs", "n", &json!({ "n": -1 })).await;
    for n in 0..50 {
        node.publish("jobs", "n", &json!({ "n": n })).await;
    }
    redis.cli(&["CONFIG", "RESETSTAT"]).await;
    let clients = futures_util::future::join_all((0..400).map(|_| async {
        let request = SseRequest::new("/stream?channels=jobs").last_event_id(&position);
        let mut client = request.open(node.addr()).await;
        assert_eq!(client.expect("connected").await.json()["recovered"], true);
        events(&mut client, 50).await
    }))
    .await;
    for seen in clients {
        assert_eq!(seen, (0..50).collect::<Vec<_>>());
    }
    // A read of the history is the only thing that asks for a range of a stream.
    let stats = redis.cli(&["INFO", "commandstats"]).await;
    let calls = stats
        .lines()
        .filter(|line| line.starts_with("cmdstat_xrange") || line.starts_with("cmdstat_xrevrange"))
        .filter_map(|line| line.split("calls=").nth(1)?.split(',').next()?.parse::<u64>().ok())
        .sum::<u64>();
    assert!(calls < 200, "{calls} reads for 400 clients");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_jobs_stream_shows_where_it_stands_then_its_events_and_ends_with_it() {
    let redis = RedisServer::start().await;
    let nodes = Node::cluster(&redis, 2, &[]).await;
    let [here, there] = &nodes[..] else { unreachable!("two") };
    here.publish("jobs", "job_progress", &json!({ "id": "42", "p": 1 })).await;
    let mut client = SseClient::open(there.addr(), "/api/jobs/42/stream").await;
    let hello = client.next_block(secs(10)).await.unwrap();
    assert_eq!((hello.name(), &hello.json()["type"]), ("message", &json!("hello")));
    assert_eq!(client.expect("progress").await.json()["p"], 1);
    here.publish("jobs", "job_progress", &json!({ "id": "43" })).await;
    redis.publish("jobs", r#"{"event":"job_progress","data":{"id":"42","p":2}}"#).await;
    assert_eq!(client.expect("progress").await.json()["p"], 2);
    let cut = client.last_event_id().unwrap().to_owned();
    here.publish("jobs", "job_progress", &json!({ "id": "42", "p": 3 })).await;
    let end = here.publish("jobs", "job_cancelled", &json!({ "id": "42", "status": "cancelled" })).await;
    assert_eq!(client.expect("progress").await.json()["p"], 3);
    assert_eq!(client.expect("failed").await.json()["status"], "cancelled");
    let (rest, _) = client.rest(secs(10)).await;
    assert!(rest.is_empty(), "nothing comes after the end: {rest:?}");

    // Who reconnects in between gets what it missed of the job; who has had the end is told to stop.
    let mut again = SseRequest::new("/api/jobs/42/stream").last_event_id(&cut).open(here.addr()).await;
    let missed: Vec<String> =
        again.rest(secs(10)).await.0.iter().map(|block| block.name().to_owned()).collect();
    assert_eq!(missed, ["message", "progress", "failed"]);
    let stop = there.get(&format!("/api/jobs/42/stream?lastEventId={end}")).await;
    assert_eq!(stop.status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_while_clients_connect_reaches_each_from_some_event_on_without_a_hole() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let position = node.publish("jobs", "n", &json!({ "n": -1 })).await;
    let publishing = async {
        for n in 0..200 {
            node.publish("jobs", "n", &json!({ "n": n })).await;
        }
    };
    let reading = futures_util::future::join_all((0..40).map(|_| async {
        let request = SseRequest::new("/stream?channels=jobs").last_event_id(&position);
        let mut client = request.open(node.addr()).await;
        events(&mut client, 200).await
    }));
    let ((), clients) = tokio::join!(publishing, reading);
    for seen in clients {
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 200);
        assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_had_no_event_yet_misses_none_when_its_node_is_killed() {
    let redis = RedisServer::start().await;
    let mut nodes = Node::cluster(&redis, 2, &[]).await;
    nodes[1].publish("jobs", "n", &json!({ "n": -1 })).await;
    for n in 0..5 {
        let stream = SseRequest::new("/stream?channels=jobs,pending-changes");
        let mut client = stream.clone().open(nodes[0].addr()).await;
        let position = client.expect("connected").await.id.expect("a position to begin at");
        nodes[0].kill();
        nodes[1].publish("jobs", "n", &json!({ "n": n })).await;
        let mut client = stream.last_event_id(&position).open(nodes[1].addr()).await;
        let hello = client.expect("connected").await;
        assert_eq!((&hello.json()["recovered"], hello.id), (&true.into(), None));
        assert_eq!(events(&mut client, 1).await, [n], "what was missed, and nothing from before");
        nodes[0] = Node::start(&redis, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_embedded_broker_a_stream_begins_with_a_position_as_well() {
    let node = Node::builder().start().await;
    let mut client = SseRequest::new("/api/jobs/stream").open(node.addr()).await;
    let position = client.next_event(secs(5)).await.unwrap().id.expect("a position to begin at");
    drop(client);
    node.publish("jobs", "n", &json!({ "n": 7 })).await;
    let mut client = SseRequest::new("/api/jobs/stream").last_event_id(&position).open(node.addr()).await;
    assert_eq!(events(&mut client, 1).await, [7]);
}
