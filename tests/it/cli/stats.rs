//! `fanlight stats` against a cluster of two nodes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use super::{command, run};
use crate::support::wait::check;
use crate::support::{Node, RedisServer, Swarm, eventually, secs};

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_totals_and_a_row_per_node_and_a_machine_the_same_as_json() {
    let redis = RedisServer::start().await;
    let settings = |id| [("FANLIGHT_NODE_ID", id), ("FANLIGHT_API_KEYS", "0123456789abcdef")];
    let nodes =
        [Node::start(&redis, &settings("first")).await, Node::start(&redis, &settings("second")).await];
    let _streams = Swarm::open(&[nodes[0].addr(), nodes[1].addr()], 5, "/stream").await;
    let url = nodes[0].url();
    let variables = [("FANLIGHT_URL", url.as_str()), ("FANLIGHT_API_KEY", "0123456789abcdef")];
    let text = eventually("both nodes and all streams are shown", secs(30), async || {
        let ran = run(&["stats"], &variables);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        check(ran.stdout.starts_with("5 streams of 5 addresses, 0 sessions, on 2 nodes"), &ran.stdout)?;
        // A node that the machine is too busy for is degraded for a moment.
        for (id, streams) in [("first", "3"), ("second", "2")] {
            let row = ran.stdout.lines().find(|line| line.starts_with(id)).ok_or("a row is missing")?;
            check(row.split_whitespace().take(3).eq([id, "healthy", streams]), &ran.stdout)?;
        }
        Ok::<_, String>(ran.stdout)
    })
    .await;
    assert!(!text.contains('\u{1b}'), "plain when piped");
    let ran = run(&["stats", "--json"], &variables);
    let told: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(told["activeConnections"], 5);
    let refused = run(&["stats", "--url", &url], &[]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (1, 1), "{}", refused.stderr);
    assert!(refused.stderr.contains("FANLIGHT_API_KEY"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_prints_them_again_and_again() {
    let node = Node::builder().start().await;
    let url = node.url();
    let mut watching =
        command(&["stats", "--watch", "--json", "--url", &url], &[]).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let read = tokio::task::spawn_blocking(move || {
        let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
        (next(), next())
    });
    let (first, second) = read.await.unwrap();
    watching.kill().unwrap();
    watching.wait().unwrap();
    assert_eq!(first["nodes"].as_array().unwrap().len(), 1);
    assert_ne!(first["generatedAt"], second["generatedAt"]);
}

#[test]
fn where_no_node_is_that_is_said() {
    let ran = run(&["stats", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("is a node running at http://127.0.0.1:1?"), "{}", ran.stderr);
}
