//! Heartbeats, idleness, age and expiry.

use super::*;

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
