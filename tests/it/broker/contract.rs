//! What every broker promises: one suite, run on both.

use std::time::Duration;

use fanlight::broker::{Acknowledgement, Config, Notice, Publication};
use fanlight::protocol::close::GapReason;
use fanlight::protocol::event::{Event, EventType, Key};
use fanlight::protocol::position::Position;

use super::fixture::{self, Fixture, channel, events, publication};
use crate::support::{RedisServer, eventually, secs};

/// Runs every promise on both brokers.
macro_rules! on_both {
    ($($promise:ident)*) => {
        mod memory {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                super::$promise(async |config| Fixture::memory(config)).await;
            })*
        }
        mod redis {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let server = RedisServer::start().await;
                super::$promise(async |config| Fixture::redis(&server, config)).await;
            })*
        }
    };
}

on_both! {
    every_event_arrives_once_in_order_with_rising_positions_over_all_channels
    an_event_arrives_as_it_was_published
    a_batch_is_acknowledged_with_its_positions_and_delivered_in_its_order
    publishers_at_the_same_time_lose_nothing_and_repeat_nothing
    a_repeated_idempotency_key_answers_the_first_position_and_delivers_nothing
    history_is_exactly_what_came_after_a_position
    history_of_many_channels_is_one_view_in_the_order_of_positions
    a_history_of_many_channels_and_pages_is_complete_and_in_order
    a_position_that_history_cannot_serve_is_a_gap_with_its_reason
    a_trimmed_history_is_a_gap_and_gives_what_is_left
    a_history_that_expired_is_a_gap
    a_quiet_channel_whose_events_are_all_there_is_no_gap
    history_and_live_meet_without_a_hole
    the_status_says_that_it_is_alive
    a_large_history_is_answered_in_pages_and_loses_its_beginning_when_it_is_too_large
}

async fn every_event_arrives_once_in_order_with_rising_positions_over_all_channels(
    start: impl AsyncFn(Config) -> Fixture,
) {
    let mut node = start(Config::default()).await;
    node.subscribe(&["a", "b", "c"]).await;
    let mut sent = Vec::new();
    for i in 0..300 {
        let name = ["a", "b", "c"][i % 3];
        let position = node.publish(name, &i.to_string()).await;
        sent.push((name.to_owned(), i.to_string(), position));
    }
    for (name, data, position) in sent {
        let event = node.event().await;
        assert_eq!((event.channel.to_string(), event.event.data), (name, data));
        assert_eq!(event.position, Some(position));
    }
    assert_eq!(node.pending(), []);
}

async fn an_event_arrives_as_it_was_published(start: impl AsyncFn(Config) -> Fixture) {
    let mut node = start(Config::default()).await;
    node.subscribe(&["a"]).await;
    let whole = Event {
        kind: Some(EventType::parse("job_progress").unwrap()),
        key: Some(Key::parse("42 ü").unwrap()),
        data: "{\"a\":\"line\\n\"}\r\n\u{2028} and \u{1e}1 more".into(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
    };
    let large = Event::unnamed("x".repeat(256 * 1024));
    for event in [whole, Event::unnamed(""), large] {
        let publication = Publication { channel: channel("a"), event: event.clone(), idempotency_key: None };
        node.broker.publish(&[publication]).await.unwrap();
        assert_eq!(node.event().await.event, event);
    }
}

async fn a_batch_is_acknowledged_with_its_positions_and_delivered_in_its_order(
    start: impl AsyncFn(Config) -> Fixture,
) {
    let mut node = start(Config::default()).await;
    node.subscribe(&["a", "b"]).await;
    let batch: Vec<_> =
        (0..1000).map(|i| publication(if i % 7 == 0 { "b" } else { "a" }, &i.to_string())).collect();
    let positions = node.publish_all(&batch).await;
    assert!(positions.is_sorted_by(|a, b| a < b));
    for (sent, position) in batch.iter().zip(positions) {
        let event = node.event().await;
        assert_eq!(
            (&event.channel, &event.event, event.position),
            (&sent.channel, &sent.event, Some(position))
        );
    }
    assert_eq!(node.publish_all(&[]).await, []);
}

async fn publishers_at_the_same_time_lose_nothing_and_repeat_nothing(start: impl AsyncFn(Config) -> Fixture) {
    let mut node = start(Config::default()).await;
    node.subscribe(&["a", "b"]).await;
    let publish = |who: usize| {
        let broker = node.broker.clone();
        tokio::spawn(async move {
            let mut positions = Vec::new();
            for i in 0..100 {
                let sent = publication(["a", "b"][who % 2], &format!("{who}.{i}"));
                positions.extend(fixture::positions(broker.publish(&[sent]).await.unwrap()));
            }
            positions
        })
    };
    let publishers: Vec<_> = (0..8).map(publish).collect();
    let mut acknowledged = Vec::new();
    for publisher in publishers {
        let positions = publisher.await.unwrap();
        assert!(positions.is_sorted_by(|a, b| a < b));
        acknowledged.extend(positions);
    }
    acknowledged.sort();
    for position in acknowledged {
        assert_eq!(node.event().await.position, Some(position));
    }
}

async fn a_repeated_idempotency_key_answers_the_first_position_and_delivers_nothing(
    start: impl AsyncFn(Config) -> Fixture,
) {
    let mut node = start(Config::default()).await;
    node.subscribe(&["a", "b"]).await;
    let keyed = |name: &str, data: &str, key: &str| Publication {
        idempotency_key: Some(key.into()),
        ..publication(name, data)
    };
    let batch = [keyed("a", "1", "k:*?[]"), keyed("a", "2", "k:*?[]"), keyed("b", "3", "k:*?[]")];
    let first = node.broker.publish(&batch).await.unwrap();
    let at = first[0].position();
    assert_eq!(first[..2], [Acknowledgement::Appended(at), Acknowledgement::Repeated(at)]);
    assert!(first[2].appended() > Some(at), "a key is of its channel");
    let again = node.broker.publish(&[keyed("a", "4", "k:*?[]"), keyed("a", "5", "other")]).await.unwrap();
    assert_eq!(again[0], Acknowledgement::Repeated(at));
    assert!(again[1].appended() > first[2].appended());
    let data = |notices: &[Notice]| events(notices).into_iter().map(|(_, data)| data).collect::<Vec<_>>();
    assert_eq!(data(&node.drain("a").await), ["1", "3", "5"]);
    assert_eq!(node.since("a", Position { n: 0, ..at }).await.0, ["1", "5", "the end"]);
}

async fn history_is_exactly_what_came_after_a_position(start: impl AsyncFn(Config) -> Fixture) {
    let node = start(Config::default()).await;
    let mut positions = vec![Position { n: 0, ..node.publish("other", "x").await }];
    for i in 1..=5 {
        positions.push(node.publish("a", &i.to_string()).await);
        node.publish("other", "x").await;
    }
    for (i, position) in positions.iter().enumerate() {
        let expected: Vec<String> = (i + 1..=5).map(|i| i.to_string()).collect();
        assert_eq!(node.since("a", *position).await, (expected, None), "after {i}");
    }
    let between = Position { n: positions[2].n + 1, ..positions[2] };
    assert_eq!(node.since("a", between).await.0, ["3", "4", "5"]);
    assert_eq!(node.since("never", positions[0]).await, (vec![], None));
    assert_eq!(node.history(&[]).await.events, []);
}

async fn history_of_many_channels_is_one_view_in_the_order_of_positions(
    start: impl AsyncFn(Config) -> Fixture,
) {
    let node = start(Config::default()).await;
    let start = node.publish("a", "0").await;
    let mut last = start;
    for i in 1..=60 {
        last = node.publish(["a", "b", "c"][i % 3], &i.to_string()).await;
    }
    let history = node.history(&[("b", start), ("a", start), ("c", last)]).await;
    let found: Vec<usize> = history.events.iter().map(|event| event.event.data.parse().unwrap()).collect();
    assert_eq!(found, (1..=60).filter(|i| i % 3 != 2).collect::<Vec<_>>());
    assert!(history.events.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(history.up_to, last);
}

async fn a_history_of_many_channels_and_pages_is_complete_and_in_order(
    start: impl AsyncFn(Config) -> Fixture,
) {
    // More than one call takes, and more bytes than three pages hold.
    let names: Vec<String> = (0..700).map(|i| format!("c{i}")).collect();
    let node = start(Config::default()).await;
    let first = node.publish("c0", "0").await;
    let mut published = vec![(0, first)];
    for batch in 0..30 {
        let mut channels = Vec::new();
        let mut publications = Vec::new();
        for i in 0..100 {
            let n = batch * 100 + i;
            channels.push(n * n % names.len());
            publications
                .push(publication(&names[channels[i]], &"x".repeat(if n % 20 == 0 { 99_000 } else { n })));
        }
        let positions = node.publish_all(&publications).await;
        published.extend(channels.into_iter().zip(positions));
    }
    let middle = published[1500].1;
    let after = |channel: usize| if channel.is_multiple_of(2) { middle } else { first };
    let requests: Vec<_> = names.iter().enumerate().map(|(i, name)| (name.as_str(), after(i))).collect();
    let history = node.history(&requests).await;
    let found: Vec<_> = history.events.iter().filter_map(|event| event.position).collect();
    let wanted = published.iter().filter(|(channel, position)| *position > after(*channel));
    assert_eq!(found, wanted.map(|(_, position)| *position).collect::<Vec<_>>());
    for (name, after) in requests {
        assert_eq!(history.gap(&channel(name), after), None);
    }
}

async fn a_position_that_history_cannot_serve_is_a_gap_with_its_reason(
    start: impl AsyncFn(Config) -> Fixture,
) {
    let node = start(Config::default()).await;
    let first = node.publish("a", "1").await;
    let last = node.publish("a", "2").await;
    let both = || vec!["1".to_owned(), "2".to_owned()];
    let earlier = Position { epoch: first.epoch - 1, n: last.n + 5 };
    assert_eq!(node.since("a", earlier).await, (both(), Some(GapReason::HistoryLost)));
    let future = Position { n: last.n + 1, ..last };
    assert_eq!(node.since("a", future).await, (vec![], Some(GapReason::UnknownPosition)));
    let other_future = Position { epoch: last.epoch + 1, n: 1 };
    assert_eq!(node.since("a", other_future).await, (vec![], Some(GapReason::UnknownPosition)));
    let greatest = Position { epoch: (1 << 44) - 1, n: (1 << 53) - 1 };
    assert_eq!(node.since("a", greatest).await, (vec![], Some(GapReason::UnknownPosition)));
    let least = Position { epoch: 0, n: 0 };
    assert_eq!(node.since("a", least).await, (both(), Some(GapReason::HistoryLost)));
}

async fn a_trimmed_history_is_a_gap_and_gives_what_is_left(start: impl AsyncFn(Config) -> Fixture) {
    let node = start(Config { history_size: 10, ..Config::default() }).await;
    let quiet = node.publish("quiet", "kept").await;
    let batch: Vec<_> = (0..500).map(|i| publication("a", &i.to_string())).collect();
    let positions = node.publish_all(&batch).await;
    let (left, gap) = node.since("a", quiet).await;
    assert_eq!(gap, Some(GapReason::HistoryTrimmed));
    let expected: Vec<String> = (490..500).map(|i| i.to_string()).collect();
    assert_eq!(left, expected);
    // The last event that was cut off is the first position that is not a gap.
    let cut = positions[489];
    assert_eq!(node.since("a", cut).await, (expected, None));
    let before = positions[488];
    assert_eq!(node.since("a", before).await.1, Some(GapReason::HistoryTrimmed));
    assert_eq!(node.since("quiet", Position { n: 0, ..quiet }).await, (vec!["kept".into()], None));
}

async fn a_history_that_expired_is_a_gap(start: impl AsyncFn(Config) -> Fixture) {
    let node = start(Config { history_ttl: Duration::from_millis(200), ..Config::default() }).await;
    let before = node.publish("other", "x").await;
    let last = node.publish("a", "gone").await;
    eventually("it expires", secs(10), async || match node.since("a", before).await {
        (events, Some(GapReason::HistoryTrimmed)) if events.is_empty() => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
    assert_eq!(node.since("a", last).await, (vec![], None), "who has seen the last event misses nothing");
    node.publish("a", "new").await;
    assert_eq!(node.since("a", last).await, (vec!["new".into()], None));
    assert_eq!(node.since("a", before).await, (vec!["new".into()], Some(GapReason::HistoryTrimmed)));
}

async fn a_quiet_channel_whose_events_are_all_there_is_no_gap(start: impl AsyncFn(Config) -> Fixture) {
    let node = start(Config { history_size: 10, ..Config::default() }).await;
    let start = node.publish("busy", "0").await;
    node.publish("quiet", "1").await;
    for _ in 0..5 {
        let batch: Vec<_> = (0..200).map(|_| publication("busy", "x")).collect();
        node.publish_all(&batch).await;
    }
    assert_eq!(node.since("quiet", start).await, (vec!["1".into()], None));
    assert_eq!(node.since("silent", start).await, (vec![], None));
}

async fn history_and_live_meet_without_a_hole(start: impl AsyncFn(Config) -> Fixture) {
    let mut node = start(Config { history_size: 100_000, ..Config::default() }).await;
    let first = node.publish("a", "0").await;
    let broker = node.broker.clone();
    let publisher = tokio::spawn(async move {
        for i in 1..=1500 {
            broker.publish(&[publication("a", &i.to_string())]).await.unwrap();
        }
    });
    node.subscribe(&["a"]).await;
    let history = node.history(&[("a", first)]).await;
    let mut got: Vec<usize> = history.events.iter().map(|event| event.event.data.parse().unwrap()).collect();
    while got.last() != Some(&1500) {
        let event = node.event().await;
        if event.position > Some(history.up_to) {
            got.push(event.event.data.parse().unwrap());
        }
    }
    publisher.await.unwrap();
    assert_eq!(got, (1..=1500).collect::<Vec<_>>());
}

async fn the_status_says_that_it_is_alive(start: impl AsyncFn(Config) -> Fixture) {
    let node = start(Config::default()).await;
    node.subscribe(&["a"]).await;
    eventually("a probe comes back", secs(10), async || {
        let status = node.broker.status().borrow().clone();
        match status {
            status if status.lag.is_some_and(|lag| lag < secs(1)) && status.probed_at.is_some() => Ok(()),
            status => Err(format!("{status:?}")),
        }
    })
    .await;
    let status = node.broker.status().borrow().clone();
    assert_eq!((status.subscribed, status.reconnects, status.dropped, status.problem), (true, 0, 0, None));
}

async fn a_large_history_is_answered_in_pages_and_loses_its_beginning_when_it_is_too_large(
    start: impl AsyncFn(Config) -> Fixture,
) {
    let node = start(Config::default()).await;
    let first = node.publish("a", "0").await;
    let mut positions = vec![first];
    for i in 1..=200 {
        let data = format!("{i} {}", "x".repeat(200_000));
        positions.push(node.publish(["a", "b"][i % 2], &data).await);
        if i == 80 {
            let history = node.history(&[("a", first), ("b", first)]).await;
            assert_eq!(history.events.len(), 80);
            assert_eq!(history.gap(&channel("a"), first), None);
        }
    }
    let history = node.history(&[("a", first), ("b", first)]).await;
    let found: Vec<Position> = history.events.iter().filter_map(|event| event.position).collect();
    assert!(found.len() > 100 && found.len() < 200, "{} of 200", found.len());
    assert_eq!(found, positions[201 - found.len()..]);
    for name in ["a", "b"] {
        assert_eq!(history.gap(&channel(name), first), Some(GapReason::HistoryTrimmed));
        assert_eq!(history.gap(&channel(name), positions[200 - found.len()]), None);
    }
}
