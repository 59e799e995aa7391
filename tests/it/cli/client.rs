//! `publish` and `subscribe` against a server that answers by script, byte for byte.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ran, command, run};
use crate::support::process::{free_port, loopback};
use crate::support::{Node, RedisServer};

/// A request as it came.
struct Seen {
    head: String,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }
}

/// Answers one request per answer, each on a connection of its own, and ends with the last.
fn scripted(answers: Vec<String>) -> (SocketAddr, Receiver<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = sync_channel(answers.len());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut reader = BufReader::new(socket.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert_ne!(reader.read_line(&mut head).unwrap(), 0, "half a request: {head}");
            }
            let mut request = Seen { head, body: String::new() };
            let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            request.body = String::from_utf8(body).unwrap();
            socket.write_all(answer.as_bytes()).unwrap();
            sender.send(request).unwrap();
        }
    });
    (address, seen)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn stream(blocks: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n{blocks}"
    )
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[test]
fn publish_sends_what_was_meant_and_prints_the_position() {
    let (address, seen) = scripted(vec![answer("202 Accepted", "", r#"{"ids":["1-7"]}"#)]);
    let ran = run(
        &["publish", "jobs", r#"{"id": 1.0}"#, "--event=job_completed", "--key=42", "--idempotency-key=k"],
        &[("FANLIGHT_URL", &url(address)), ("FANLIGHT_API_KEY", "canary")],
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "1-7\n"), "{}", ran.stderr);
    let request = seen.recv().unwrap();
    assert!(request.head.starts_with("POST /api/events HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("x-api-key"), Some("canary"));
    assert_eq!(
        request.body,
        r#"[{"channel":"jobs","event":"job_completed","data":{"id": 1.0},"key":"42","idempotencyKey":"k"}]"#
    );
}

#[test]
fn lines_of_standard_input_are_published_in_their_order() {
    const LINES: usize = 1500;
    let ids = |from: usize, to: usize| {
        json!({ "ids": (from..to).map(|n| format!("1-{n}")).collect::<Vec<_>>() }).to_string()
    };
    let (address, seen) = scripted(vec![
        answer("202 Accepted", "", &ids(0, 1000)),
        answer("202 Accepted", "", &ids(1000, LINES)),
    ]);
    let input = tempfile::NamedTempFile::new().unwrap();
    let lines: String = (0..LINES).map(|n| format!("{n}\n")).collect();
    std::fs::write(input.path(), lines).unwrap();
    let mut publish = command(&["publish", "jobs", "-", "--url", &url(address)], &[]);
    let ran = Ran::of(publish.stdin(std::fs::File::open(input.path()).unwrap()).output().unwrap());
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, LINES), "{}", ran.stderr);
    let sent: Vec<Value> = seen
        .iter()
        .flat_map(|request| serde_json::from_str::<Vec<Value>>(&request.body).unwrap())
        .map(|event| event["data"].clone())
        .collect();
    assert_eq!(sent, (0..LINES).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_refusal_is_one_clear_line_and_exit_code_1() {
    let body = r#"{"error":"no key","code":"unauthorized"}"#;
    let (address, _seen) = scripted(vec![answer("401 Unauthorized", "", body)]);
    let ran = run(&["publish", "jobs", "1", "--url", &url(address), "--api-key=canary"], &[]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{}", ran.stderr);
    assert!(ran.stderr.contains("no key (unauthorized") && ran.stderr.contains("FANLIGHT_API_KEY"));
    assert!(!ran.all().contains("canary"));
}

#[test]
fn where_no_node_is_the_way_to_start_one_is_said() {
    let nowhere = url(loopback(free_port()));
    for arguments in
        [&["publish", "jobs", "1", "--url", &nowhere][..], &["subscribe", "jobs", "--url", &nowhere]]
    {
        let ran = run(arguments, &[]);
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains("is a node running at http://127.0.0.1:"), "{}", ran.stderr);
    }
}

#[test]
fn arguments_that_cannot_be_used_are_exit_code_2() {
    for arguments in [
        &["publish", "all", "1"][..],
        &["publish", "jobs"],
        &["publish", "jobs", "1", "--event", "a\nb"],
        &["publish", "jobs", "1", "--url", "nonsense"],
        &["subscribe"],
        &["subscribe", "a b"],
        &["subscribe", "jobs", "--count=0"],
        &["subscribe", "jobs", "--since", "a\r\nb"],
        &["bogus"],
    ] {
        assert_eq!(run(arguments, &[]).code, 2, "{arguments:?}");
    }
}

#[test]
fn a_stream_that_breaks_is_resumed_after_its_last_event() {
    let hello = "retry: 1\nevent: connected\ndata: {\"node\":\"n\",\"channels\":[\"a\",\"b\"]}\n\n";
    let (address, seen) = scripted(vec![
        stream(&format!("{hello}id: 1-1\nevent: x\ndata: one\n\nid: 1-2\ndata: two\n\ndata: half")),
        answer("503 Service Unavailable", "Retry-After: 0\r\n", r#"{"error":"draining","code":"draining"}"#),
        stream("id: 1-3\ndata: three\n\nevent: bye\ndata: {\"reason\":\"max_age\",\"reconnect\":true}\n\n"),
        answer("204 No Content", "", ""),
    ]);
    let ran = run(&["subscribe", "a", "b", "--url", &url(address), "--since=1-0"], &[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    assert_eq!(words, ["x", "one", "1-1", "message", "two", "1-2", "message", "three", "1-3"]);
    assert!(ran.stderr.contains("connected to n (a, b)") && ran.stderr.contains("max_age"), "{}", ran.stderr);
    let resumed_after: Vec<_> =
        seen.iter().map(|request| request.header("last-event-id").unwrap().to_owned()).collect();
    assert_eq!(resumed_after, ["1-0", "1-2", "1-2", "1-3"]);
}

#[test]
fn a_bye_without_return_ends_it() {
    let bye = "event: bye\ndata: {\"reason\":\"kicked\",\"reconnect\":false}\n\n";
    let (address, _seen) = scripted(vec![stream(bye)]);
    let ran = run(&["subscribe", "jobs", "--url", &url(address)], &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("kicked"), "{}", ran.stderr);
}

#[test]
fn count_ends_it_and_json_is_one_object_a_line() {
    let (address, seen) =
        scripted(vec![stream("event: connected\ndata: {}\n\ndata: a\ndata: b\n\ndata: c\n\ndata: d\n\n")]);
    let ran = run(&["subscribe", "all", "--json", "--count=2", "--url", &url(address)], &[]);
    assert_eq!(ran.code, 0);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[1], json!({ "event": "message", "data": "a\nb", "id": null }));
    assert_eq!(lines.len(), 3, "the hello, which does not count, and two events");
    assert!(seen.recv().unwrap().head.starts_with("GET /api/sse/stream?channels=all HTTP/1.1"));
}

#[test]
fn a_reader_that_has_gone_ends_it_quietly() {
    let events = "data: x\n\n".repeat(50_000);
    let (address, _seen) = scripted(vec![stream(&events)]);
    let mut child =
        command(&["subscribe", "jobs", "--url", &url(address)], &[]).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!((line.as_str(), ran.code, ran.stderr.as_str()), ("message        x\n", 0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishing_needs_no_node_where_there_is_redis() {
    let redis = RedisServer::start().await;
    let (url, prefix) = (redis.url(), redis.prefix().to_owned());
    tokio::task::spawn_blocking(move || {
        let publish = |data: &str, key: &str| {
            let to = [
                format!("--redis-url={url}"),
                format!("--redis-prefix={prefix}"),
                format!("--idempotency-key={key}"),
            ];
            run(&["publish", "jobs", data, &to[0], &to[1], &to[2]], &[])
        };
        let [first, second, again] = [publish("1", "a"), publish("2", "b"), publish("1", "a")];
        assert_eq!((first.code, second.code), (0, 0), "{}{}", first.stderr, second.stderr);
        assert!(first.stdout < second.stdout, "positions rise");
        assert_eq!(first.stdout, again.stdout, "the same key is the same event");
        let large = run(&["publish", "jobs", "123", "--max-event-bytes=2", "--redis-url", &url], &[]);
        assert_eq!((large.code, large.stderr.contains("the limit is 2")), (1, true), "{}", large.stderr);
    })
    .await
    .unwrap();
}

#[test]
fn a_redis_that_is_not_there_is_named_without_its_password() {
    let url = format!("redis://:canary@{}", loopback(free_port()));
    let ran = run(&["publish", "jobs", "1", "--redis-url", &url], &[]);
    assert_eq!((ran.code, ran.stdout.as_str()), (1, ""));
    assert!(
        ran.stderr.contains("redis://:****@127.0.0.1:") && !ran.stderr.contains("canary"),
        "{}",
        ran.stderr
    );
    assert_eq!(run(&["publish", "jobs", "1", "--redis-url=nonsense"], &[]).code, 2);
    assert_eq!(run(&["publish", "jobs", "1", "--redis-url", &url, "--url=http://127.0.0.1"], &[]).code, 2);
}

/// What a user does first: subscribe in one terminal, publish in another, by every way there is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_by_any_way_is_printed_by_subscribe() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[]).await;
    let (node_url, redis_url, prefix) = (node.url(), redis.url(), redis.prefix().to_owned());
    tokio::task::spawn_blocking(move || {
        let mut subscribe = command(&["subscribe", "jobs", "--json", "--count=2", "--url", &node_url], &[]);
        let mut subscribe = subscribe.spawn().unwrap();
        let mut lines = BufReader::new(subscribe.stdout.take().unwrap()).lines().map(|line| line.unwrap());
        assert!(lines.next().unwrap().contains("connected"));
        let through_node = run(&["publish", "jobs", "1", "--url", &node_url], &[]);
        let prefix = format!("--redis-prefix={prefix}");
        let into_redis = run(&["publish", "jobs", "2", "--redis-url", &redis_url, &prefix], &[]);
        let seen: Vec<Value> = lines.map(|line| serde_json::from_str(&line).unwrap()).collect();
        let expected = [("1", through_node), ("2", into_redis)]
            .map(|(data, ran)| json!({ "event": "message", "data": data, "id": ran.stdout.trim() }));
        assert_eq!(seen, expected);
        assert!(subscribe.wait().unwrap().success());
    })
    .await
    .unwrap();
}
