//! `GET /metrics`: what is told is documented and the other way round, Prometheus accepts it, and it does not grow with use.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::wait::check;
use crate::support::{Node, RedisServer, Request, Swarm, eventually, secs};

/// The names after `# TYPE`, as the documentation writes them.
fn told(page: &str) -> BTreeSet<String> {
    let family = |line: &str| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned());
    page.lines().filter_map(family).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_is_told() {
    let node = Node::builder().start().await;
    // A family without members is not told: one refusal, so that there is one of them.
    assert_eq!(node.get("/nowhere").await.status(), 404);
    let answer = node.get("/metrics").await;
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
    let mut publisher = redis.publisher();
    let load = tokio::spawn(async move {
        loop {
            publisher.publish("public:7", br#"{"event":"load","data":{}}"#).await.unwrap();
        }
    });
    swarms[7].each_has(100, "load", secs(10)).await;
    let (after, page) = series().await;
    load.abort();
    assert_eq!(before, after);
    let labels =
        after.iter().filter_map(|series| series.split_once('{')).flat_map(|(_, labels)| labels.split("\","));
    let labels: BTreeSet<&str> = labels.filter_map(|label| Some(label.split_once('=')?.0)).collect();
    assert_eq!(
        labels,
        BTreeSet::from(["le", "reason", "result", "since", "version"]),
        "and code of refusals"
    );
    assert!(page.contains("fanlight_connections 200"), "{page}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; run `make test-deps`");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_gets_openmetrics_and_who_asks_for_nothing_the_format_that_every_tool_reads() {
    let node = Node::builder().start().await;
    let plain = node.get("/metrics").await;
    assert_eq!(plain.head.get("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    let open = node.send(&Request::get("/metrics").header("Accept", accept)).await;
    let kind = open.head.get("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
    assert!(open.text().ends_with("# EOF\n"));
    let series = |page: String| {
        let lines = page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned);
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<BTreeSet<_>>()
    };
    assert_eq!(series(plain.text()), series(open.text()));
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
    let tests = include_str!("../../monitoring/prometheus/tests/fanlight.yml");
    let runbook = include_str!("../../docs/operations.md");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 9);
    for alert in alerts {
        assert!(runbook.contains(&format!("### {alert}\n")), "no section of {alert} in docs/operations.md");
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tested");
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
