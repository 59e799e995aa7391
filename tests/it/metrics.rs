//! `GET /metrics`: what is told is documented and the other way round, Prometheus accepts it, and it does not grow with use.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::wait::check;
use crate::support::{Node, RedisServer, Swarm, eventually, secs};

/// The names after `# TYPE`, as the documentation writes them.
fn told(page: &str) -> BTreeSet<String> {
    let family = |line: &str| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some(if kind == "counter" { format!("{name}_total") } else { name.to_owned() })
    };
    page.lines().filter_map(family).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_is_told() {
    let node = Node::builder().start().await;
    // A family without members is not told: one refusal, so that there is one of them.
    assert_eq!(node.get("/nowhere").await.status(), 404);
    let answer = node.get("/metrics").await;
    let kind = answer.head.get("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    let text = include_str!("../../docs/telemetry.md");
    let documented: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `fanlight_")?.split(['`', '{']).next())
        .map(|name| format!("fanlight_{name}"))
        .collect();
    assert!(documented.len() > 20);
    assert_eq!(told(&answer.text()), documented);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_accepts_it_under_load_and_the_series_do_not_grow_with_use() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_CHANNELS", "jobs,pending-changes,public:*")]).await;
    let series = async || {
        let page = node.get("/metrics").await.text();
        let known = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').map_or_else(String::new, |(series, _)| series.to_owned()));
        (known.collect::<BTreeSet<String>>(), page)
    };
    drop(node.subscribe("/stream").await);
    let (before, _) = series().await;
    let mut swarms = Vec::new();
    for i in 0..50 {
        swarms
            .push(Swarm::open(&[node.addr()], 4, &format!("/stream?channels=public:{i}&session=s{i}")).await);
        node.publish(&format!("public:{i}"), "e", &json!({})).await;
    }
    for swarm in &swarms {
        swarm.each_has(1, "e", secs(10)).await;
    }
    let (after, page) = series().await;
    assert_eq!(before, after);
    assert!(page.contains("fanlight_connections 200"), "{page}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; run `make test-deps`");
    // promtool reads the older text format, in which a counter's type stands before the name with its ending.
    let counters: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let older: String = page.lines().map(|line| format!("{}\n", as_text_format(line, &counters))).collect();
    promtool.stdin.take().unwrap().write_all(older.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The value of a series; 0 when it is not told.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_of_an_event_and_every_word_with_redis_is_measured() {
    let redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_MAX_PER_IP", "1000")]).await;
    let swarm = Swarm::open(&[node.addr()], 20, "/api/jobs/stream").await;
    for n in 0..5 {
        node.publish("jobs", "durable", &json!({ "id": "x", "n": n })).await;
        redis.publish("jobs", r#"{"event":"plain","data":{"id":"x"}}"#).await;
    }
    swarm.each_has(5, "durable", secs(10)).await;
    swarm.each_has(5, "plain", secs(10)).await;
    let late = node.get("/stream?lastEventId=never-ours");
    drop(tokio::time::timeout(secs(1), late).await);
    let page = eventually("all of it is told", secs(10), async || {
        let page = node.get("/metrics").await.text();
        let told = |series: &str| value(&page, &format!("fanlight_{series}"));
        let shards = 1.0..=64.0;
        check(
            told("events_published_total") == 5.0
                && told("published_bytes_total") == 5.0 * 16.0
                && told("events_received_total") == 10.0
                && told("received_bytes_total") == 5.0 * (16.0 + 10.0)
                // One for each event and shard, however many streams.
                && shards.contains(&(told("delivery_lag_seconds_count{since=\"published\"}") / 5.0))
                && shards.contains(&(told("delivery_lag_seconds_count{since=\"arrived\"}") / 5.0))
                && told("delivery_lag_seconds_bucket{le=\"10.0\",since=\"published\"}") >= 5.0
                && told("shard_turn_seconds_count") > 0.0
                && told("redis_command_seconds_count") >= 5.0
                && told("lease_renewals_total{result=\"ok\"}") > 0.0
                && told("limits_cluster_wide") == 1.0
                && told("gaps_total{reason=\"unknown_position\"}") > 0.0
                && told("cpu_seconds_total") > 0.0,
            page.clone(),
        )?;
        Ok::<_, String>(page)
    })
    .await;
    assert_eq!(value(&page, "fanlight_redis_command_errors_total"), 0.0, "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_shows_in_failed_renewals_and_commands() {
    let mut redis = RedisServer::start().await;
    let node = Node::start(&redis, &[("FANLIGHT_MAX_PER_IP", "1000")]).await;
    redis.kill();
    eventually("failures are told", secs(20), async || {
        let page = node.get("/metrics").await.text();
        check(
            value(&page, "fanlight_lease_renewals_total{result=\"failed\"}") > 0.0
                && value(&page, "fanlight_redis_command_errors_total") > 0.0
                && page.contains("fanlight_limits_cluster_wide 0.0\n")
                && page.contains("fanlight_broker_subscribed 0.0\n"),
            page,
        )
    })
    .await;
}

fn as_text_format(line: &str, counters: &[&str]) -> String {
    let words: Vec<&str> = line.splitn(4, ' ').collect();
    match words[..] {
        ["#", word, name, rest] if counters.contains(&name) => format!("# {word} {name}_total {rest}"),
        ["#", "EOF"] => String::new(),
        _ => line.to_owned(),
    }
}

fn promtool(arguments: &[&str]) {
    let output = Command::new("promtool").args(arguments).output().expect("promtool; run `make test-deps`");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[test]
fn the_rules_are_good_alert_when_they_should_and_have_a_runbook() {
    promtool(&["check", "config", "--syntax-only", "monitoring/prometheus/prometheus.yml"]);
    promtool(&["check", "rules", "monitoring/prometheus/rules/fanlight.yml"]);
    promtool(&["test", "rules", "monitoring/prometheus/tests/fanlight.yml"]);
    let rules = include_str!("../../monitoring/prometheus/rules/fanlight.yml");
    let runbook = include_str!("../../docs/operations.md");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9);
    for alert in alerts {
        assert!(runbook.contains(&format!("### {alert}\n")), "no section of {alert} in docs/operations.md");
        let anchor = format!("#{}", alert.to_lowercase());
        assert!(rules.contains(&anchor), "{alert} has no runbook_url with {anchor}");
    }
}

#[test]
fn what_is_drawn_and_alerted_on_is_told() {
    let text = include_str!("../../docs/telemetry.md");
    for used_by in [
        include_str!("../../monitoring/prometheus/rules/fanlight.yml"),
        include_str!("../../monitoring/grafana/dashboards/fanlight.json"),
    ] {
        let names = used_by.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in names.filter(|name| name.starts_with("fanlight_")) {
            let name = name.trim_end_matches("_bucket");
            assert!(text.contains(&format!("`{name}`")) || text.contains(&format!("`{name}{{")), "{name}");
        }
    }
}
