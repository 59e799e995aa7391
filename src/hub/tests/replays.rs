//! What a client missed comes first, whole and once.

use super::*;

#[tokio::test]
async fn a_parked_connection_gets_its_replay_first_and_nothing_twice() {
    let hub = Fixture::new(&config());
    let mut client = hub.connect(&[0], Framing::Bare, None).await;
    for n in 5..=8 {
        hub.say(0, n, &n.to_string()).await;
    }
    hub.say(0, 0, "plain").await;
    let replay = ["4", "5", "6"].map(block).to_vec();
    hub.hub.release(client.key, replay, 6, false).await;
    hub.say(0, 6, "6").await;
    hub.say(0, 9, "9").await;
    client.expect("data: 4\n\ndata: 5\n\ndata: 6\n\ndata: 7\n\ndata: 8\n\ndata: plain\n\ndata: 9\n\n");
}

#[tokio::test]
async fn a_replay_longer_than_the_buffer_arrives_whole_with_what_came_meanwhile() {
    let hub = Fixture::new(&Config { buffer_events: 4, buffer_bytes: 4096, ..config() });
    let mut client = hub.connect(&[0], Framing::Bare, None).await;
    let data = "z".repeat(1000);
    let replay = (1..=2000).map(|_| block(&data)).collect();
    hub.say(0, 2001, "live, not in the replay").await;
    hub.hub.release(client.key, replay, 2000, false).await;
    hub.say(0, 2002, "live").await;
    for _ in 0..2000 {
        client.expect(&format!("data: {data}\n\n"));
    }
    client.expect("data: live, not in the replay\n\ndata: live\n\n");
}

#[tokio::test]
async fn a_replay_that_is_all_ends_the_stream_and_what_was_live_meanwhile_is_not_sent() {
    let hub = Fixture::new(&config());
    let mut client = hub.connect(&[0], Framing::Chunked, None).await;
    hub.say(0, 9, "live").await;
    hub.hub.release(client.key, ["1", "2"].map(block).to_vec(), 2, true).await;
    assert_eq!(client.rest(), "9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n");
    assert_eq!(hub.until("ended", |c| c.connections == 0).await.completed, 1);
}

#[tokio::test]
async fn a_stream_that_is_complete_while_it_is_parked_has_its_replay_and_its_last_block_and_ends() {
    let hub = Fixture::new(&config());
    let mut client = hub.connect(&[0], Framing::Bare, None).await;
    hub.say(0, 3, "3").await;
    let last = Broadcast { topic: topic(0), block: block("end"), n: 4, last: true, born: None };
    hub.hub.broadcast(last).await;
    hub.say(0, 0, "too late").await;
    hub.hub.release(client.key, ["1", "2"].map(block).to_vec(), 2, false).await;
    assert_eq!(client.rest(), "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: end\n\n");
    assert_eq!(hub.until("ended", |c| c.connections == 0).await.completed, 1);
}
