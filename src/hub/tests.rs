//! The hub on real sockets; time moves only when a test says so.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::protocol::event::Event;

const ROUND: Duration = Duration::from_secs(10);

/// A membership that counts how often it is given back.
struct Counted {
    topics: Vec<TopicId>,
    about: About,
    dropped: Arc<AtomicUsize>,
}

impl Membership for Counted {
    fn topics(&self) -> &[TopicId] {
        &self.topics
    }

    fn about(&self) -> &About {
        &self.about
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Fixture {
    hub: Hub,
    clock: Clock,
    listener: TcpListener,
    dropped: Arc<AtomicUsize>,
}

struct Client {
    stream: TcpStream,
    key: ConnectionKey,
}

fn topic(index: u32) -> TopicId {
    TopicId { index, generation: 0 }
}

fn block(data: &str) -> Block {
    Block::event(&Event::unnamed(data), None)
}

fn config() -> Config {
    Config {
        shards: 2,
        heartbeat: Duration::from_secs(1000),
        idle_timeout: Duration::ZERO,
        max_age: Duration::ZERO,
        buffer_events: 50,
        buffer_bytes: 256 * 1024,
        send_timeout: Duration::from_secs(5),
    }
}

impl Fixture {
    fn new(config: &Config) -> Self {
        let clock = Clock::held();
        clock.advance(Duration::from_secs(10_000));
        let hub = Hub::start(config, &clock).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { hub, clock, listener, dropped: Arc::default() }
    }

    async fn connect(&self, topics: &[u32], framing: Framing, hello: Option<&str>) -> Client {
        self.attach(topics, framing, hello, None).await
    }

    async fn attach(
        &self,
        topics: &[u32],
        framing: Framing,
        hello: Option<&str>,
        expires_at: Option<Tick>,
    ) -> Client {
        let stream = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(ROUND)).unwrap();
        let new = NewConnection {
            stream: self.listener.accept().unwrap().0,
            framing,
            id: Uuid::new_v4(),
            hello: hello.map(Block::from_text),
            expires_at,
            membership: Box::new(Counted {
                topics: topics.iter().copied().map(topic).collect(),
                about: About {
                    ip: std::net::Ipv4Addr::LOCALHOST.into(),
                    session: topics.first().map(|topic| format!("s{topic}").into()),
                    user_agent: None,
                },
                dropped: Arc::clone(&self.dropped),
            }),
        };
        Client { stream, key: self.hub.attach(new).await.unwrap() }
    }

    async fn bare(&self, topics: &[u32]) -> Client {
        self.connect(topics, Framing::Bare, Some(":hello\n\n")).await
    }

    async fn expiring(&self, after: Duration) -> Client {
        let expires_at = Some(self.clock.now().after(after));
        self.attach(&[0], Framing::Bare, Some(":hello\n\n"), expires_at).await
    }

    async fn say(&self, index: u32, n: u64, data: &str) {
        let broadcast = Broadcast { topic: topic(index), block: block(data), n, last: false, born: None };
        self.hub.broadcast(broadcast).await;
    }

    /// Waits until the counters are as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Counters) -> bool) -> Counters {
        for _ in 0..1000 {
            let counters = self.hub.counters().await;
            if wanted(&counters) {
                return counters;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:?}", self.hub.counters().await);
    }
}

impl Client {
    fn expect(&mut self, text: &str) {
        let mut bytes = vec![0; text.len()];
        self.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.stream.read_to_string(&mut text).unwrap();
        text
    }
}

#[tokio::test]
async fn a_block_reaches_every_subscriber_of_its_topic_and_nobody_else() {
    let hub = Fixture::new(&config());
    let mut both = hub.bare(&[0, 1]).await;
    let mut one = hub.bare(&[1]).await;
    let mut chunked = hub.connect(&[0], Framing::Chunked, Some(":hello\n\n")).await;
    hub.say(0, 0, "zero").await;
    hub.say(1, 0, "one").await;
    both.expect(":hello\n\ndata: zero\n\ndata: one\n\n");
    one.expect(":hello\n\ndata: one\n\n");
    chunked.expect("8\r\n:hello\n\n\r\nc\r\ndata: zero\n\n\r\n");
    hub.until("all sent", |c| c.events_sent == 4 && c.waiting == 0).await;
}

#[tokio::test]
async fn a_burst_arrives_complete_and_in_order_in_both_framings() {
    let hub = Fixture::new(&Config { buffer_events: 4, ..config() });
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(hub.bare(&[0, 1]).await);
    }
    let mut expected = ":hello\n\n".to_owned();
    for i in 0..500 {
        let topic = u32::from(i % 7 == 0);
        hub.say(topic, 0, &i.to_string()).await;
        expected += &format!("data: {i}\n\n");
    }
    for client in &mut clients {
        client.expect(&expected);
    }
}

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

#[tokio::test]
async fn one_event_larger_than_the_buffer_is_still_delivered() {
    let hub = Fixture::new(&Config { buffer_bytes: 1024, ..config() });
    let mut client = hub.bare(&[0]).await;
    let data = "y".repeat(2_000_000);
    hub.say(0, 0, &data).await;
    client.expect(&format!(":hello\n\ndata: {data}\n\n"));
}

#[tokio::test]
async fn a_membership_is_given_back_exactly_once_however_the_connection_ends() {
    let hub = Fixture::new(&config());
    let (gone, closed, reset) = (hub.bare(&[0]).await, hub.bare(&[0]).await, hub.bare(&[0]).await);
    let mut kept = hub.bare(&[0]).await;
    drop(gone);
    hub.hub.close(closed.key, CloseReason::Kicked).await;
    hub.hub.close(closed.key, CloseReason::Kicked).await;
    socket2::SockRef::from(&reset.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(reset);
    let counters = hub.until("three ended", |c| c.connections == 1).await;
    assert_eq!((counters.closed_by_client, counters.closed_for(CloseReason::Kicked)), (2, 1));
    assert_eq!(hub.dropped.load(Ordering::SeqCst), 3);
    let dropped = Arc::clone(&hub.dropped);
    drop(hub);
    assert_eq!(dropped.load(Ordering::SeqCst), 4, "the hub's end is the end of the last");
    assert_eq!(kept.rest(), ":hello\n\n");
}

#[tokio::test]
async fn a_client_that_sends_without_end_is_ended() {
    let hub = Fixture::new(&config());
    let mut client = hub.bare(&[0]).await;
    client.stream.set_write_timeout(Some(ROUND)).unwrap();
    // Ends with an error as soon as the hub has closed the socket.
    while client.stream.write_all(&[0; 65_536]).is_ok() {}
    hub.until("ended", |c| c.connections == 0).await;
}

#[tokio::test]
async fn a_stream_that_is_complete_ends_after_its_last_block() {
    let hub = Fixture::new(&config());
    let mut client = hub.connect(&[0], Framing::Chunked, Some(":\n\n")).await;
    let last = Broadcast { topic: topic(0), block: block("end"), n: 0, last: true, born: None };
    hub.hub.broadcast(last).await;
    hub.say(0, 0, "too late").await;
    assert_eq!(client.rest(), "3\r\n:\n\n\r\nb\r\ndata: end\n\n\r\n0\r\n\r\n");
    assert_eq!(hub.until("ended", |c| c.connections == 0).await.completed, 1);
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
async fn heartbeats_come_when_nothing_else_does() {
    let hub = Fixture::new(&Config { heartbeat: Duration::from_secs(25), ..config() });
    let mut client = hub.bare(&[0]).await;
    hub.clock.advance(Duration::from_secs(26));
    client.expect(":hello\n\n: ping\n\n");
    hub.say(0, 0, "event").await;
    client.expect("data: event\n\n");
    hub.clock.advance(Duration::from_secs(20));
    hub.until("timers seen", |_| true).await;
    hub.say(0, 0, "no ping before me").await;
    client.expect("data: no ping before me\n\n");
    hub.clock.advance(Duration::from_secs(26));
    client.expect(": ping\n\n");
}

#[tokio::test]
async fn a_stream_without_events_ends_as_idle_though_heartbeats_go_out() {
    let timers =
        Config { heartbeat: Duration::from_secs(25), idle_timeout: Duration::from_secs(60), ..config() };
    let hub = Fixture::new(&timers);
    let mut client = hub.bare(&[0]).await;
    hub.clock.advance(Duration::from_secs(26));
    client.expect(":hello\n\n: ping\n\n");
    hub.clock.advance(Duration::from_secs(35));
    let bye = client.rest();
    assert!(bye.contains(r#"{"reason":"idle_timeout","reconnect":true,"retryMs":"#), "{bye}");
    hub.until("closed", |c| c.closed_for(CloseReason::IdleTimeout) == 1).await;
}

#[tokio::test]
async fn streams_end_at_about_their_greatest_age_and_not_together() {
    let hub = Fixture::new(&Config { max_age: Duration::from_secs(100), ..config() });
    let mut clients = Vec::new();
    for _ in 0..60 {
        clients.push(hub.bare(&[0]).await);
    }
    hub.clock.advance(Duration::from_secs(89));
    assert_eq!(hub.until("all there", |c| c.opened == 60).await.connections, 60);
    hub.clock.advance(Duration::from_secs(11));
    hub.until("some closed", |c| (1..60).contains(&c.closed_for(CloseReason::MaxAge))).await;
    hub.clock.advance(Duration::from_secs(11));
    hub.until("all closed", |c| c.closed_for(CloseReason::MaxAge) == 60).await;
    for client in &mut clients {
        assert!(client.rest().contains(r#""reason":"max_age","reconnect":true"#));
    }
}

#[tokio::test]
async fn a_connection_ends_when_its_token_expires_and_not_before() {
    let hub = Fixture::new(&Config { max_age: Duration::from_secs(100), ..config() });
    let mut expiring = hub.expiring(Duration::from_millis(30_050)).await;
    let mut expired = hub.expiring(Duration::ZERO).await;
    let aged = hub.expiring(Duration::from_secs(1_000_000)).await;
    hub.clock.advance(Duration::from_millis(30_000));
    hub.until("one expired", |c| c.closed_for(CloseReason::TokenExpired) == 1 && c.connections == 2).await;
    assert!(expired.rest().contains(r#""reason":"token_expired","reconnect":false"#));
    hub.clock.advance(Duration::from_millis(200));
    hub.until("the next too", |c| c.closed_for(CloseReason::TokenExpired) == 2).await;
    assert!(expiring.rest().contains(r#""reason":"token_expired","reconnect":false"#));
    hub.clock.advance(Duration::from_secs(90));
    hub.until("an age comes before", |c| c.closed_for(CloseReason::MaxAge) == 1).await;
    drop(aged);
}

#[tokio::test]
async fn a_drain_tells_everybody_and_is_over_when_nobody_is_left() {
    let hub = Fixture::new(&config());
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(hub.bare(&[0]).await);
    }
    let advance = async {
        loop {
            hub.clock.advance(Duration::from_millis(500));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = hub.hub.drain(Duration::from_secs(25)) => {}
        () = advance => unreachable!("the drain ends first"),
    }
    let retries: std::collections::BTreeSet<String> = clients
        .iter_mut()
        .map(|client| {
            let text = client.rest();
            assert!(text.contains(r#""reason":"server_shutdown","reconnect":true"#), "{text}");
            text.split("retry: ").nth(1).unwrap().lines().next().unwrap().to_owned()
        })
        .collect();
    assert!(retries.len() > 100, "each has its own pause: {}", retries.len());
    assert_eq!(hub.dropped.load(Ordering::SeqCst), 200);
}

#[tokio::test]
async fn shedding_ends_those_first_that_have_been_idle_for_longest() {
    let hub = Fixture::new(&Config { shards: 1, ..config() });
    let mut idle = hub.bare(&[0]).await;
    let mut busy = [hub.bare(&[1]).await, hub.bare(&[1]).await];
    hub.clock.advance(Duration::from_secs(60));
    hub.say(1, 0, "news").await;
    hub.until("both have the event", |c| c.events_sent == 2).await;
    assert_eq!(hub.hub.shed(1).await, 1);
    assert!(idle.rest().contains("overloaded"));
    busy.iter_mut().for_each(|client| client.expect(":hello\n\ndata: news\n\n"));
    assert_eq!(hub.hub.shed(5).await, 2);
    let counters = hub.until("all are gone", |c| c.connections == 0).await;
    assert_eq!((counters.closed_for(CloseReason::Overloaded), counters.ended()), (3, 3));
}

#[tokio::test]
async fn strain_is_that_since_it_was_last_asked() {
    let hub = Fixture::new(&config());
    let _client = hub.bare(&[0]).await;
    let strain = hub.hub.strain().await;
    assert!(strain.fullest_inbox > 0.0 && strain.fullest_inbox < 0.01, "{strain:?}");
    assert_eq!(strain.longest_turn, Duration::ZERO, "the clock is held");
}

#[tokio::test]
async fn pages_of_a_listing_hold_every_matching_connection_once() {
    let hub = Fixture::new(&config());
    let mut clients = Vec::new();
    for i in 0..30 {
        clients.push(hub.bare(&[i % 3, 9]).await);
    }
    let session = |name: &str| Matching { session: Some(name.into()), ..Matching::default() };
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let mut page = hub.hub.list(Selection { matching: session("s1"), after, limit: 3 }).await;
        page.sort_by_key(|listed| listed.id);
        page.truncate(3);
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(page);
    }
    assert_eq!(found.len(), 10);
    assert!(found.iter().all(|listed| *listed.topics == [topic(1), topic(9)]));
    assert!(found.windows(2).all(|pair| pair[0].id < pair[1].id));
    let one = Matching { topic: Some(topic(2)), ..Matching::default() };
    assert_eq!(hub.hub.close_matching(one, CloseReason::Kicked).await, 10);
    assert_eq!(hub.hub.close_matching(session("nobody"), CloseReason::Kicked).await, 0);
    hub.until("kicked", |c| c.connections == 20 && c.closed_for(CloseReason::Kicked) == 10).await;
}
