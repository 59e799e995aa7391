//! Who reads too slowly is closed, and is told if it can be.

use super::*;

#[tokio::test]
async fn a_reader_that_stops_is_closed_and_the_others_lose_nothing() {
    let hub = Fixture::new(&config());
    let mut stopped = hub.bare(&[0]).await;
    let mut reading = hub.bare(&[0]).await;
    let data = "x".repeat(10_000);
    let mut sent = 0;
    while hub.hub.counters().await.connections == 2 && sent < 5_000 {
        hub.say(0, 0, &data).await;
        sent += 1;
        let mut bytes = vec![0; if sent == 1 { 8 } else { 0 } + data.len() + 8];
        reading.stream.read_exact(&mut bytes).unwrap();
        if hub.hub.counters().await.waiting > 0 && sent % 100 == 0 {
            hub.clock.advance(Duration::from_secs(6));
        }
    }
    let counters = hub.until("closed", |c| c.connections == 1).await;
    assert_eq!(counters.closed_for(CloseReason::SlowConsumer), 1);
    assert_eq!(hub.dropped.load(Ordering::SeqCst), 1);
    hub.say(0, 0, "still here").await;
    reading.expect("data: still here\n\n");
    // What the kernel had taken before is whole events, then the end.
    let _ = stopped.rest();
}

/// Reads a sip, well within the send time-out, again and again; how often until it was closed.
async fn sips_until_closed(hub: &Fixture, client: &mut Client) -> usize {
    let mut sip = vec![0; 1 << 20];
    for sips in 1..=30 {
        let full = |c: &Counters| c.waiting == 1 || c.connections == 0;
        let before = hub.until("the socket is full", full).await.bytes_sent;
        hub.clock.advance(Duration::from_secs(4));
        let taken = client.stream.read_exact(&mut sip);
        let more = |c: &Counters| c.bytes_sent > before || c.connections == 0;
        if hub.until("more is taken", more).await.connections == 0 {
            return sips;
        }
        taken.unwrap();
    }
    panic!("30 MiB were taken in two minutes, and nobody minded");
}

#[tokio::test]
async fn who_takes_a_replay_in_sips_is_closed_after_a_minute_in_all() {
    let hub = Fixture::new(&config());
    let mut client = hub.connect(&[0], Framing::Bare, None).await;
    let replay = (0..1024).map(|_| block(&"x".repeat(64 * 1024))).collect();
    hub.hub.release(client.key, replay, 1024, false).await;
    let sips = sips_until_closed(&hub, &mut client).await;
    assert!((13..=17).contains(&sips), "{sips} × 4 s");
    assert_eq!(hub.hub.counters().await.closed_for(CloseReason::SlowConsumer), 1);
    assert_eq!(hub.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn who_takes_its_last_blocks_in_sips_is_not_waited_for_either() {
    let hub = Fixture::new(&config());
    let mut client = hub.bare(&[0]).await;
    hub.say(0, 0, &"x".repeat(64 << 20)).await;
    hub.until("the socket is full", |c| c.waiting == 1).await;
    hub.hub.close(client.key, CloseReason::Kicked).await;
    let sips = sips_until_closed(&hub, &mut client).await;
    assert!((13..=17).contains(&sips), "{sips} × 4 s");
}

#[tokio::test]
async fn a_slow_reader_that_reads_again_in_time_is_told_why_it_is_closed() {
    let hub = Fixture::new(&config());
    let mut client = hub.bare(&[0]).await;
    let data = "x".repeat(10_000);
    while hub.until("counted", |_| true).await.waiting == 0 {
        hub.say(0, 0, &data).await;
    }
    // More than the kernel's buffers on both sides and the queue can hold together.
    for _ in 0..1000 {
        hub.say(0, 0, &data).await;
    }
    let text = client.rest();
    let (events, bye) = text.split_at(text.rfind("\n\nretry: ").unwrap() + 2);
    assert!(bye.contains("event: bye\ndata: {\"reason\":\"slow_consumer\",\"reconnect\":true"), "{bye}");
    assert!(events.split("\n\n").filter(|b| b.starts_with("data")).all(|b| b.len() == data.len() + 6));
    hub.until("closed", |c| c.closed_for(CloseReason::SlowConsumer) == 1).await;
}
