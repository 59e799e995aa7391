//! Durable publishing from Redis itself.

use fanlight::broker::{Config, Publication};
use fanlight::protocol::event::{Event, EventType, Key};
use fanlight::protocol::position::Position;
use fanlight::redis::{Commands, Config as RedisConfig, Keys};

use super::fixture::{Fixture, publication};
use crate::support::{Persistence, RedisServer, eventually, secs};

fn name(server: &RedisServer) -> String {
    Keys::new(server.prefix()).function("publish")
}

async fn call(server: &RedisServer, args: &[&str]) -> Result<String, String> {
    server.try_cli(&[&["FCALL", &name(server), "1"], args].concat()).await
}

async fn publish(server: &RedisServer, args: &[&str]) -> Position {
    Position::parse(&call(server, args).await.unwrap()).expect("the answer is a position")
}

#[tokio::test]
async fn what_the_function_publishes_is_durable_and_ordered_with_everything_else() {
    let server = RedisServer::start().await;
    let mut node = Fixture::redis(&server, Config::default());
    node.subscribe(&["jobs", "a"]).await;
    let first = node.publish("a", "over the broker").await;
    let second = publish(&server, &["jobs", "job_completed", r#"{"id":"42"}"#]).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let third = publish(&server, &["a", "", "data ü", "key", "once", trace]).await;
    assert!(first < second && second < third);
    assert_eq!(node.event().await.position, Some(first));
    let job = node.event().await;
    assert_eq!(job.position, Some(second));
    let expected = Event {
        kind: Some(EventType::parse("job_completed").unwrap()),
        key: Some(Key::parse("42").unwrap()),
        ..Event::unnamed(r#"{"id":"42"}"#)
    };
    assert_eq!(job.event, expected);
    let whole = node.event().await;
    assert_eq!((whole.position, &whole.event.data[..]), (Some(third), "data ü"));
    assert_eq!(whole.event.key, Some(Key::parse("key").unwrap()));
    assert_eq!(whole.event.traceparent.as_deref(), Some(trace));
    assert_eq!(node.since("a", first).await, (vec!["data ü".into()], None));
    // The two ways share the idempotency keys.
    assert_eq!(publish(&server, &["a", "", "again", "", "once"]).await, third);
    let again = Publication { idempotency_key: Some("once".into()), ..publication("a", "again") };
    assert_eq!(node.publish_all(&[again]).await, [third]);
    assert_eq!(node.drain("a").await, []);
}

#[tokio::test]
async fn the_function_refuses_what_nodes_would_drop() {
    let server = RedisServer::start().await;
    let config = Config { max_event_bytes: 100, history_size: 10, ..Config::default() };
    let mut node = Fixture::redis(&server, config);
    node.subscribe(&["a"]).await;
    eventually("the settings are there", secs(10), async || {
        match &*server.cli(&["HGET", &server.key("@clock"), "max"]).await {
            "100" => Ok(()),
            found => Err(found.to_owned()),
        }
    })
    .await;
    let long = "x".repeat(257);
    for (args, why) in [
        (&["a b", "e", "{}"][..], "a channel is"),
        (&["all", "e", "{}"], "a channel is"),
        (&["", "e", "{}"], "a channel is"),
        (&[&long, "e", "{}"], "a channel is"),
        (&["a", "e"], "usage"),
        (&["a", "e", "{}", "k", "i", "t", "x"], "usage"),
        (&["a", "e\n", "{}"], "CR, LF or NUL"),
        (&["a", &long, "{}"], "256 bytes"),
        (&["a", "e", "{}", "k\r"], "CR, LF or NUL"),
        (&["a", "e", "{}", "", &long], "256 bytes"),
        (&["a", "e", &"x".repeat(101)], "the limit is 100"),
    ] {
        let refused = call(&server, args).await.unwrap_err();
        assert!(refused.contains(why), "{args:?}: {refused}");
    }
    for i in 0..300 {
        publish(&server, &["a", "e", &i.to_string()]).await;
        node.event().await;
    }
    let length: usize = server.cli(&["XLEN", &server.key("@h:a")]).await.parse().unwrap();
    assert!((10..=200).contains(&length), "the history has {length}");
    assert_eq!(node.pending(), []);
}

#[tokio::test]
async fn the_function_takes_utf8_and_nothing_else() {
    let server = RedisServer::start().await;
    let node = Fixture::redis(&server, Config::default());
    node.subscribe(&["a"]).await;
    let commands = Commands::new(RedisConfig::new(&server.url(), server.prefix()).unwrap()).unwrap();
    let takes = async |data: &[u8]| {
        let mut call = redis::cmd("FCALL");
        call.arg(name(&server)).arg(1).arg("a").arg("").arg(data);
        commands.run::<String>(&call).await.is_ok()
    };
    let mut edges = vec![b"".to_vec(), b"a\0b".to_vec(), b"\xff".to_vec(), "ü€𝄞".as_bytes().to_vec()];
    // Every first byte with second bytes at the edges of the table in RFC 3629, section 4, whole and cut.
    for first in 0x7f..=0xff_u8 {
        for second in [0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0] {
            edges.extend((1..=5).map(|len| [first, second, 0x80, 0xbf, 0x80][..len].to_vec()));
        }
    }
    for bytes in edges {
        let valid = std::str::from_utf8(&bytes).is_ok();
        assert_eq!(takes(&bytes).await, valid, "{bytes:x?}");
    }
}

#[tokio::test]
async fn the_function_is_there_again_after_a_restart_a_flush_and_an_empty_redis() {
    let mut server = RedisServer::start_with(Persistence::Aof, &[]).await;
    let node = Fixture::redis(&server, Config::default());
    node.subscribe(&["a"]).await;
    publish(&server, &["a", "", "1"]).await;
    server.cli(&["FLUSHALL"]).await;
    publish(&server, &["a", "", "2"]).await;
    for empty in [false, true] {
        if empty {
            server.restart_empty().await
        } else {
            server.restart().await
        }
        eventually("the function is there", secs(10), async || call(&server, &["a", "", "3"]).await).await;
    }
    server.cli(&["FUNCTION", "FLUSH"]).await;
    server.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("the function is there", secs(10), async || call(&server, &["a", "", "4"]).await).await;
}

#[tokio::test]
async fn only_a_newer_library_replaces_the_one_that_is_there() {
    let server = RedisServer::start().await;
    let (function, library) = (name(&server), Keys::new(server.prefix()).function("library"));
    let load = async |version: &str, prefix: &str| {
        let source = format!(
            "#!lua name={library}\nredis.register_function{{function_name='{function}', \
             description='fanlight version={version} prefix={prefix}', callback=function() return 'stub' end}}"
        );
        server.cli(&["FUNCTION", "LOAD", "REPLACE", &source]).await;
    };
    let answer = async || call(&server, &["a", "", "1"]).await.unwrap();
    for (version, prefix, stays) in
        [("0", server.prefix(), false), ("4294967295", server.prefix(), true), ("0", "other:", true)]
    {
        load(version, prefix).await;
        let node = Fixture::redis(&server, Config::default());
        node.subscribe(&["a"]).await;
        assert_eq!(answer().await == "stub", stays, "version {version} of {prefix}");
    }
}

#[tokio::test]
async fn a_redis_without_functions_serves_all_the_rest() {
    let server = RedisServer::start_with(Persistence::None, &["--rename-command", "FUNCTION", ""]).await;
    let mut node = Fixture::redis(&server, Config::default());
    node.subscribe(&["a"]).await;
    let position = node.publish("a", "1").await;
    assert_eq!(node.event().await.position, Some(position));
}
