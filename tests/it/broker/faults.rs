//! Redis' troubles: what is filled, what is told, and that everything is subscribed again afterwards.

use std::time::Duration;

use fanlight::broker::{Config, Notice};
use fanlight::protocol::close::GapReason;
use fanlight::protocol::durable;
use fanlight::protocol::event::Event;
use fanlight::protocol::position::{N_LIMIT, Position};
use tokio::time::Instant;

use super::fixture::{Fixture, channel, events, publication};
use crate::support::{Persistence, RedisServer, eventually, secs};

/// A node with one channel of each kind: `durable` and `plain` have had such events, `stored` has a history of which
/// the node has seen nothing, and on `silent` nothing ever happened.
async fn one_of_each(server: &RedisServer) -> Fixture {
    // By somebody else, and before the node looks: what is published while it connects, it may find.
    Fixture::redis(server, Config::default()).publish("stored", "before").await;
    let mut node = Fixture::redis(server, Config::default());
    node.subscribe(&["durable", "plain", "stored", "silent"]).await;
    node.publish("durable", "1").await;
    server.publish("plain", r#"{"data":1}"#).await;
    for _ in 0..2 {
        node.event().await;
    }
    node
}

const ALL: [&str; 4] = ["durable", "plain", "silent", "stored"];

/// Every channel has exactly the subscription that it should have.
async fn is_subscribed_again(server: &RedisServer, node: &Fixture) {
    node.confirmed().await;
    for name in ALL {
        assert_eq!(server.subscribers(name).await, 1, "{name}");
    }
}

async fn is_not_subscribed(node: &Fixture) {
    eventually("the loss is noticed", secs(15), async || match node.broker.status().borrow().subscribed {
        false => Ok(()),
        true => Err("still subscribed"),
    })
    .await;
}

/// The node delivers at once what is published on both ways.
async fn delivers(server: &RedisServer, node: &mut Fixture) {
    let position = node.publish("silent", "after").await;
    server.publish("plain", "after").await;
    assert_eq!(node.event().await.position, Some(position));
    assert_eq!(node.event().await.event, Event::unnamed("after"));
    assert_eq!(node.pending(), []);
}

#[tokio::test]
async fn after_an_interruption_plain_and_unknown_channels_are_told_and_durable_ones_are_filled() {
    let mut server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    let stranger = Fixture::redis(&server, Config::default());
    server.pause();
    is_not_subscribed(&node).await;
    server.resume();
    // Published before the node is back, or after: it makes no difference.
    stranger.publish("durable", "2").await;
    stranger.publish("stored", "3").await;
    is_subscribed_again(&server, &node).await;
    let found = node.drain("durable").await;
    let filled = [("durable", "2"), ("stored", "3")].map(|(name, data)| (name.to_owned(), data.to_owned()));
    assert_eq!(events(&found), filled);
    let gaps: Vec<&Notice> = found.iter().filter(|notice| matches!(notice, Notice::Gap { .. })).collect();
    let told = Notice::Gap {
        channels: ["plain", "silent"].map(channel).into(),
        reason: GapReason::BrokerInterrupted,
    };
    assert_eq!(gaps, [&told]);
    delivers(&server, &mut node).await;
}

#[tokio::test]
async fn a_redis_that_restarts_with_its_data_costs_durable_channels_nothing() {
    let mut server = RedisServer::start_with(Persistence::Aof, &[]).await;
    let mut node = one_of_each(&server).await;
    for round in 0..3 {
        server.kill();
        is_not_subscribed(&node).await;
        server.restart().await;
        let back = Instant::now();
        is_subscribed_again(&server, &node).await;
        assert!(back.elapsed() < secs(2), "back after {:?}", back.elapsed());
        let told = if round == 0 { vec!["plain", "silent"] } else { vec!["plain"] };
        let told = told.into_iter().map(ToOwned::to_owned).collect();
        assert_eq!(node.gap().await, (told, GapReason::BrokerInterrupted));
        delivers(&server, &mut node).await;
    }
    assert_eq!(node.broker.status().borrow().reconnects, 3);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_told_to_everybody_and_goes_on() {
    let mut server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    let before = node.publish("durable", "lost").await;
    node.event().await;
    server.restart_empty().await;
    let back = Instant::now();
    assert_eq!(node.gap().await, (ALL.map(Into::into).into(), GapReason::HistoryLost));
    assert!(back.elapsed() < secs(3), "told after {:?}", back.elapsed());
    is_subscribed_again(&server, &node).await;
    delivers(&server, &mut node).await;
    let after = node.publish("durable", "new").await;
    assert!(after.epoch > before.epoch);
    assert_eq!(node.since("durable", before).await, (vec!["new".into()], Some(GapReason::HistoryLost)));
}

#[tokio::test]
async fn a_flush_under_a_connection_that_stands_is_told_to_everybody() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    server.cli(&["FLUSHALL"]).await;
    let flushed = Instant::now();
    assert_eq!(node.gap().await, (ALL.map(Into::into).into(), GapReason::HistoryLost));
    assert!(flushed.elapsed() < secs(3), "told after {:?}", flushed.elapsed());
    delivers(&server, &mut node).await;
    server.cli(&["FLUSHALL"]).await;
    let position = node.publish("durable", "first of its epoch").await;
    assert_eq!(node.gap().await.1, GapReason::HistoryLost);
    assert_eq!(node.event().await.position, Some(position));
}

#[tokio::test]
async fn a_redis_that_forgot_what_the_node_has_seen_is_told_to_everybody_and_never_reuses_a_position() {
    let mut server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    let kept = node.publish("durable", "kept").await;
    server.cli(&["SAVE"]).await;
    let forgotten = node.publish("durable", "forgotten").await;
    for _ in 0..2 {
        node.event().await;
    }
    server.restart().await;
    assert_eq!(node.gap().await, (ALL.map(Into::into).into(), GapReason::HistoryLost));
    is_subscribed_again(&server, &node).await;
    delivers(&server, &mut node).await;
    let next = node.publish("durable", "next").await;
    assert!(next > forgotten && next.epoch == kept.epoch);
    // Whoever was away when it happened is told when he comes back.
    for seen in [kept, forgotten] {
        assert_eq!(node.since("durable", seen).await, (vec!["next".into()], Some(GapReason::HistoryLost)));
    }
    assert_eq!(node.since("durable", next).await, (vec![], None));
}

#[tokio::test]
async fn a_promoted_replica_may_have_lost_something_and_everybody_is_told() {
    let mut master = RedisServer::start_with(Persistence::Aof, &[]).await;
    let replica = RedisServer::start_with(Persistence::Aof, &[]).await;
    let proxy = crate::support::TcpProxy::start(master.addr()).await;
    let url = format!("redis://{}", proxy.addr());
    let (host, port) = (master.addr().ip().to_string(), master.addr().port().to_string());
    let mut node = Fixture::redis_at(&url, master.prefix(), Config::default());
    node.subscribe(&["durable"]).await;
    node.publish("durable", "1").await;
    node.event().await;
    replica.cli(&["REPLICAOF", &host, &port]).await;
    eventually("the replica has the data", secs(20), async || match replica.cli(&["DBSIZE"]).await {
        size if size == master.cli(&["DBSIZE"]).await => Ok(()),
        size => Err(size),
    })
    .await;
    master.kill();
    proxy.redirect(replica.addr());
    eventually("a replica is refused", secs(15), async || {
        match node.broker.status().borrow().problem.clone() {
            Some(why) if why.contains("not a master") => Ok(()),
            why => Err(format!("{why:?}")),
        }
    })
    .await;
    replica.cli(&["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(node.gap().await, (vec!["durable".into()], GapReason::HistoryLost));
    node.confirmed().await;
    let position = node.publish("durable", "2").await;
    assert_eq!(node.event().await.position, Some(position));
}

#[tokio::test]
async fn a_stopped_redis_is_noticed_and_delivers_within_two_seconds_of_going_on() {
    let mut server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    server.pause();
    let paused = Instant::now();
    is_not_subscribed(&node).await;
    tokio::time::sleep_until(paused + secs(10)).await;
    assert!(node.broker.publish(&[publication("durable", "x")]).await.is_err());
    server.resume();
    let back = Instant::now();
    is_subscribed_again(&server, &node).await;
    assert!(back.elapsed() < secs(2), "back after {:?}", back.elapsed());
    let found = node.drain("durable").await;
    assert!(found.iter().any(|notice| matches!(notice, Notice::Gap { .. })));
    delivers(&server, &mut node).await;
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    server.cli(&["SCRIPT", "FLUSH"]).await;
    delivers(&server, &mut node).await;
    server.cli(&["SCRIPT", "FLUSH"]).await;
    let before = Position { n: 0, ..node.publish("durable", "2").await };
    server.cli(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(node.since("durable", before).await.0, ["1", "2"]);
}

#[tokio::test]
async fn a_node_starts_without_redis_and_heals() {
    let mut server = RedisServer::start().await;
    server.kill();
    let mut node = Fixture::redis(&server, Config::default());
    node.wants.add([channel("durable")]);
    eventually("it says why", secs(10), async || match node.broker.status().borrow().problem.clone() {
        Some(why) if why.contains("refused") => Ok(()),
        why => Err(format!("{why:?}")),
    })
    .await;
    assert!(node.broker.publish(&[publication("durable", "x")]).await.is_err());
    server.restart().await;
    node.confirmed().await;
    let position = node.publish("durable", "1").await;
    assert_eq!(node.event().await.position, Some(position), "the first connection tells no gap");
    assert_eq!(node.broker.status().borrow().reconnects, 0);
}

#[tokio::test]
async fn a_wrong_password_is_a_problem_that_does_not_name_it() {
    let server = RedisServer::start().await;
    server.cli(&["CONFIG", "SET", "requirepass", "right"]).await;
    let url = server.url().replace("redis://", "redis://:canary@");
    let node = Fixture::redis_at(&url, server.prefix(), Config::default());
    eventually("it says why", secs(10), async || match node.broker.status().borrow().problem.clone() {
        Some(why) if why.contains("WRONGPASS") || why.contains("uthentication") => Ok(()),
        why => Err(format!("{why:?}")),
    })
    .await;
    let refused = node.broker.publish(&[publication("durable", "x")]).await.unwrap_err();
    let told = format!("{:?} {refused} {}", node.broker.status().borrow().clone(), node.broker.describe());
    assert!(!told.contains("canary"), "{told}");
}

#[tokio::test]
async fn garbage_on_redis_is_dropped_and_counted_and_disturbs_nobody() {
    let server = RedisServer::start().await;
    let max_event_bytes = 1000;
    let mut node = Fixture::redis(&server, Config { max_event_bytes, ..Config::default() });
    node.subscribe(&["a"]).await;
    let garbage = [
        r#"{"event":"a\nb","data":1}"#.to_owned(),
        r#"{"event":1,"data":1}"#.to_owned(),
        "x".repeat(max_event_bytes + 1),
        "\u{1e}1 broken".to_owned(),
        "\u{1e}9 a future version".to_owned(),
    ];
    for payload in &garbage {
        server.publish("a", payload).await;
    }
    let raw = format!("return redis.call('PUBLISH', '{}', '\\255\\254')", server.key("a"));
    server.cli(&["EVAL", &raw, "0"]).await;
    server.publish("a", &"x".repeat(max_event_bytes)).await;
    assert_eq!(node.event().await.event.data.len(), max_event_bytes);
    assert_eq!(node.broker.status().borrow().dropped, garbage.len() as u64 + 1);
    assert_eq!(node.broker.status().borrow().reconnects, 0);
}

#[tokio::test]
async fn a_second_restart_from_the_same_snapshot_is_told_like_the_first() {
    let mut server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    server.cli(&["SAVE"]).await;
    for round in 0..3 {
        let lost = node.publish("durable", "not in the snapshot").await;
        assert_eq!(node.event().await.position, Some(lost));
        server.restart().await;
        let (told, reason) = node.gap().await;
        assert!(told.contains(&"durable".to_owned()), "round {round}: {told:?}");
        assert_eq!(reason, GapReason::HistoryLost, "round {round}");
        node.confirmed().await;
    }
}

#[tokio::test]
async fn forged_positions_silence_nobody() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    let Position { epoch, n } = node.publish("durable", "1").await;
    assert_eq!(node.event().await.event.data, "1");
    let forge = async |epoch, n| {
        let frame = durable::encode(Position { epoch, n }, Some(n - 1), &Event::unnamed("forged"));
        server.publish("durable", &String::from_utf8(frame).unwrap()).await;
    };
    // Far ahead, of an epoch to come, of one that is past.
    for (epoch, n) in [(epoch, N_LIMIT - 2), ((1 << 44) - 1, n), (epoch - 1, n)] {
        forge(epoch, n).await;
    }
    node.publish("durable", "2").await;
    assert_eq!(node.event().await.event.data, "2");
    let status = node.broker.status().borrow().clone();
    assert_eq!((status.dropped, status.reconnects), (3, 0));
    // So near that it could be true: what it hides until the next look at the clock is told.
    forge(epoch, n + (1 << 30)).await;
    assert_eq!(node.event().await.event.data, "forged");
    node.publish("durable", "hidden").await;
    let (told, reason) = node.gap().await;
    assert!(told.contains(&"durable".to_owned()) && reason == GapReason::HistoryLost, "{told:?} {reason:?}");
    let next = node.publish("durable", "4").await;
    assert!(next.n > n + (1 << 30) && next.epoch == epoch, "{next} is behind what was forged");
    assert_eq!(node.event().await.event.data, "4");
}

#[tokio::test]
async fn a_hole_on_a_connection_that_stands_is_filled_before_anything_later() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    let mut expected = vec![server.append_in_silence("stored", "2").await];
    expected.push(server.append_in_silence("durable", "3").await);
    expected.push(server.append_in_silence("durable", "4").await);
    expected.push(node.publish("durable", "5").await);
    for (position, data) in expected.into_iter().zip(["2", "3", "4", "5"]) {
        let event = node.event().await;
        assert_eq!((event.position, &*event.event.data), (Some(position), data));
    }
    assert_eq!(node.pending(), []);
}

#[tokio::test]
async fn what_a_channel_had_before_it_was_subscribed_is_no_hole() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    for i in 0..50 {
        let name = format!("late{i}");
        node.publish(&name, "before").await;
        node.wants.add([channel(&name)]);
        let mut sent = vec![];
        while node.wants.unconfirmed() > 0 {
            sent.push(node.publish(&name, "meanwhile").await);
        }
        sent.push(node.publish(&name, "after").await);
        let found = node.drain("durable").await;
        let found: Vec<Option<Position>> = found
            .iter()
            .map(|notice| match notice {
                Notice::Event(delivery) => delivery.position,
                _ => panic!("{notice:?}"),
            })
            .collect();
        // Nothing from before it was wanted, and from some moment on everything.
        assert!(sent.len() >= found.len() && !found.is_empty(), "{i}: sent {sent:?}, found {found:?}");
        let end: Vec<Option<Position>> = sent[sent.len() - found.len()..].iter().copied().map(Some).collect();
        assert_eq!(found, end);
    }
}

#[tokio::test]
async fn histories_of_an_earlier_epoch_are_neither_read_nor_continued() {
    let server = RedisServer::start().await;
    let node = Fixture::redis(&server, Config::default());
    let old = node.publish("durable", "old").await;
    node.publish("quiet", "old").await;
    server.cli(&["DEL", &server.key("@clock")]).await;
    let new = node.publish("other", "new").await;
    assert!(new.epoch > old.epoch);
    assert_eq!(node.since("durable", old).await, (vec![], Some(GapReason::HistoryLost)));
    node.publish("durable", "new").await;
    assert_eq!(node.since("durable", new).await, (vec!["new".into()], None));
    assert_eq!(node.since("quiet", new).await, (vec![], None));
}

#[tokio::test]
async fn channels_leave_the_index_after_their_history_and_a_position_from_before_is_still_a_gap() {
    let server = RedisServer::start().await;
    let node = Fixture::redis(&server, Config::default());
    let first = node.publish("other", "1").await;
    let ancient = Position { n: first.n / 2, ..first };
    for i in 0..40 {
        let score = (ancient.n - i).to_string();
        server.cli(&["ZADD", &server.key("@index"), &score, &format!("ancient{i}")]).await;
    }
    for _ in 0..3 {
        node.publish("other", "2").await;
    }
    assert_eq!(server.cli(&["ZRANGE", &server.key("@index"), "0", "-1"]).await, "other");
    assert_eq!(node.since("ancient0", ancient).await, (vec![], None));
    let before = Position { n: ancient.n - 1, ..ancient };
    assert_eq!(node.since("ancient0", before).await, (vec![], Some(GapReason::HistoryTrimmed)));
    node.publish("ancient0", "new").await;
    assert_eq!(node.since("ancient0", ancient).await, (vec!["new".into()], None));
    assert_eq!(node.since("ancient0", before).await.1, Some(GapReason::HistoryTrimmed));
}

#[tokio::test]
async fn a_channel_that_is_left_is_unsubscribed_and_may_come_back() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    node.wants.remove(&channel("plain"));
    server.has_subscribers("plain", 0, secs(10)).await;
    node.subscribe(&["plain"]).await;
    server.has_subscribers("plain", 1, secs(10)).await;
    delivers(&server, &mut node).await;
}

#[tokio::test]
async fn a_broker_that_is_shut_down_leaves_no_subscription() {
    let server = RedisServer::start().await;
    let mut node = one_of_each(&server).await;
    node.owner.take().unwrap().shutdown().await;
    server.has_subscribers("plain", 0, secs(10)).await;
    assert!(node.broker.publish(&[publication("durable", "x")]).await.is_ok(), "the pool goes on");
    let other = one_of_each(&server).await;
    drop(other);
    server.has_subscribers("plain", 0, secs(10)).await;
}

#[tokio::test]
async fn an_interruption_longer_than_the_history_is_told_as_such() {
    let mut server = RedisServer::start().await;
    let config = Config { history_size: 10, ..Config::default() };
    let mut node = Fixture::redis(&server, config.clone());
    node.subscribe(&["long", "short"]).await;
    let both = [publication("long", "0"), publication("short", "0")];
    node.broker.publish(&both).await.unwrap();
    for _ in 0..2 {
        node.event().await;
    }
    let stranger = Fixture::redis(&server, config);
    server.pause();
    is_not_subscribed(&node).await;
    // The first to be answered when Redis goes on.
    let publishing = async {
        let batch: Vec<_> = (1..=500).map(|i| publication("long", &i.to_string())).collect();
        eventually("it is published", secs(10), async || stranger.broker.publish(&batch).await.map(|_| ()))
            .await;
        stranger.publish("short", "1").await;
    };
    let going_on = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.resume();
    };
    tokio::join!(publishing, going_on);
    node.confirmed().await;
    let found = node.drain("short").await;
    let data: Vec<String> = events(&found).into_iter().map(|(_, data)| data).collect();
    let whole = data.len() == 501;
    assert_eq!(data[data.len() - 2..], ["500", "1"]);
    match &found[0] {
        Notice::Gap { channels, reason } if !whole => {
            assert_eq!((&**channels, *reason), (&[channel("long")][..], GapReason::HistoryTrimmed));
        }
        notice => assert!(whole, "{notice:?} and {} events", data.len()),
    }
}
