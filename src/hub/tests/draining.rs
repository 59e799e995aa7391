//! Making everybody leave, or a few: draining and shedding.

use super::*;

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
