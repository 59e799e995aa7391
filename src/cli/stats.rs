//! `fanlight stats`: the cluster's totals and a row per node, once or every second.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use rand::Rng;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use super::Failure;
use super::answer::{MAX_ANSWER, refusal};
use super::node_client::{self, NodeClient};
use super::output::{self, Look, Style};
use super::reconnect::{End, Next, Reconnect};
use super::table::{Align, Table};
use super::words::{bytes, duration, plural};
use crate::config::Environment;
use crate::protocol::sse_decoder::SseDecoder;

/// Until the whole answer is there; a node answers within a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Channels that are shown to people; machines get all.
const CHANNELS: usize = 10;

/// Moves the cursor home and clears what is below (ECMA-48, CUP and ED).
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

/// Prints the statistics.
#[derive(Debug)]
pub struct Stats {
    node: NodeClient,
    watch: bool,
    json: bool,
}

pub(super) fn command() -> Command {
    Command::new("stats")
        .about("Prints the cluster's totals and a row per node")
        .arg(
            Arg::new("watch")
                .long("watch")
                .action(ArgAction::SetTrue)
                .help("Again every second, until ended"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("As JSON; with --watch one object a line"),
        )
        .args(node_client::arguments())
}

impl Stats {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        Ok(Self {
            node: NodeClient::parse(matches, environment)?,
            watch: matches.get_flag("watch"),
            json: matches.get_flag("json"),
        })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut screen = Screen { look: Look::stdout(), watch: self.watch, json: self.json };
        if self.watch { self.watch(&mut screen).await } else { self.once(&mut screen).await }
    }

    async fn once(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let request = self.node.request(Method::GET, "api/sse/stats")?;
        let answer = self.node.ask(request, TIMEOUT).await?;
        if answer.status != StatusCode::OK {
            return Err(anyhow!(answer.refusal()).into());
        }
        let told: Value = answer.json().ok_or_else(|| self.foreign())?;
        screen.show(&told).map_err(|error| error.unwrap_or_else(|| self.foreign()))?;
        Ok(ExitCode::SUCCESS)
    }

    async fn watch(&self, screen: &mut Screen) -> Result<ExitCode, Failure> {
        let mut reconnect = Reconnect::default();
        loop {
            let end = match self.connect().await? {
                Ok(response) => {
                    reconnect.opened();
                    self.follow(response, screen).await?
                }
                Err(end) => end,
            };
            match reconnect.after(end, rand::rng().random()) {
                Next::Wait(wait) => {
                    output::note(&format!("connecting again in {:.1} s", wait.as_secs_f64()));
                    tokio::time::sleep(wait).await;
                }
                Next::Done => return Ok(ExitCode::SUCCESS),
                Next::GiveUp(why) => return Err(anyhow!(why).into()),
            }
        }
    }

    /// Opens the stream; the inner error is an end that may be waited for.
    async fn connect(&self) -> Result<Result<Response, End>, Failure> {
        let request = self.node.request(Method::GET, "api/sse/stats?stream=1")?;
        Ok(match self.node.open(request, TIMEOUT).await {
            Ok(response) if response.status() == StatusCode::OK => Ok(response),
            Ok(response) => {
                let status = response.status().as_u16();
                Err(End::Refused { status, retry_after: None, words: refusal(response).await })
            }
            Err(error) => Err(End::Unreachable(error.to_string())),
        })
    }

    async fn follow(&self, mut response: Response, screen: &mut Screen) -> Result<End, Failure> {
        let mut decoder = SseDecoder::new(MAX_ANSWER);
        let mut events = Vec::new();
        while let Ok(Some(bytes)) = response.chunk().await {
            decoder.feed(&bytes, &mut events).map_err(anyhow::Error::from)?;
            for event in events.drain(..) {
                let told: Value = serde_json::from_str(&event.data).map_err(|_| self.foreign())?;
                screen.show(&told).map_err(|error| error.unwrap_or_else(|| self.foreign()))?;
            }
        }
        Ok(End::Closed)
    }

    fn foreign(&self) -> anyhow::Error {
        anyhow!("{} answers with something else than statistics; is this a Fanlight node?", self.node.place())
    }
}

/// Where the statistics are shown.
#[derive(Debug)]
struct Screen {
    look: Look,
    watch: bool,
    json: bool,
}

impl Screen {
    /// Shows them. `Err(None)` means that these are no statistics.
    fn show(&mut self, told: &Value) -> Result<(), Option<anyhow::Error>> {
        let text = if self.json { self.json(told) } else { self.text(told).ok_or(None)? };
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        written.context("standard output").map_err(Some)
    }

    fn json(&self, told: &Value) -> String {
        if self.watch { format!("{told}\n") } else { format!("{told:#}\n") }
    }

    fn text(&self, told: &Value) -> Option<String> {
        let told = Told::deserialize(told).ok()?;
        let text = told.render(self.look);
        Some(match (self.watch, self.look.is_terminal()) {
            (true, true) => format!("{CLEAR}{text}"),
            (true, false) => format!("{text}\n"),
            _ => text,
        })
    }
}

/// What is shown of the answer. Members that another version lacks are empty.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    active_connections: u64,
    #[serde(default)]
    unique_ips: u64,
    #[serde(default)]
    unique_sessions: u64,
    metrics: Metrics,
    #[serde(default)]
    channels: BTreeMap<String, u64>,
    nodes: Vec<Node>,
    #[serde(default)]
    stale: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metrics {
    total_connections: u64,
    total_disconnections: u64,
    total_reconnects: u64,
    total_broadcasts: u64,
    total_messages_sent: u64,
    total_bytes_sent: u64,
    total_errors: u64,
    total_rejected: BTreeMap<String, u64>,
    closed_by: BTreeMap<String, u64>,
    avg_connection_duration_ms: u64,
    #[serde(rename = "p50ConnectionDurationMs")]
    p50_connection_duration_ms: u64,
    #[serde(rename = "p95ConnectionDurationMs")]
    p95_connection_duration_ms: u64,
    uptime_ms: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Node {
    id: String,
    address: String,
    version: String,
    uptime_ms: u64,
    connections: u64,
    state: String,
    reasons: Vec<String>,
    redis: Redis,
    memory_bytes: u64,
    cpu_percent: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Redis {
    connected: bool,
    lag_ms: Option<f64>,
}

impl Told {
    fn render(&self, look: Look) -> String {
        let mut text = self.headline(look);
        text += &self.totals().render(look);
        text += "\n";
        text += &self.channels().render(look);
        text += "\n";
        text += &self.nodes().render(look);
        for node in self.nodes.iter().filter(|node| !node.reasons.is_empty()) {
            let reasons = format!("{}: {}", node.id, node.reasons.join("; "));
            text += &format!("{}\n", look.paint(Style::Yellow, &look.harmless(&reasons)));
        }
        text
    }

    fn headline(&self, look: Look) -> String {
        let Self { active_connections, unique_ips, unique_sessions, nodes, .. } = self;
        let stale =
            if self.stale { "  (the cluster cannot be asked; this is what was known last)" } else { "" };
        format!(
            "{} of {}, {}, on {}{}\n\n",
            plural(*active_connections, "stream"),
            plural(*unique_ips, "address"),
            plural(*unique_sessions, "session"),
            plural(nodes.len() as u64, "node"),
            look.paint(Style::Yellow, stale)
        )
    }

    fn totals(&self) -> Table {
        let m = &self.metrics;
        let mut table = Table::new(&[("TOTAL", Align::Left), ("", Align::Right), ("", Align::Left)]);
        let lived = format!(
            "lived {} on average, half below {}, 95 % below {}",
            duration(m.avg_connection_duration_ms),
            duration(m.p50_connection_duration_ms),
            duration(m.p95_connection_duration_ms)
        );
        let rejected = m.total_rejected.values().sum();
        for (name, count, remark) in [
            ("opened", m.total_connections, format!("reconnects {}", m.total_reconnects)),
            ("ended", m.total_disconnections, parts(&m.closed_by)),
            ("", 0, lived),
            ("refused", rejected, parts(&m.total_rejected)),
            ("events", m.total_broadcasts, format!("in {}", duration(m.uptime_ms))),
            ("sent", m.total_messages_sent, bytes(m.total_bytes_sent)),
            ("errors", m.total_errors, String::new()),
        ] {
            let bad = (name == "errors" && count > 0).then_some(Style::Red);
            let count = if name.is_empty() { String::new() } else { count.to_string() };
            table.row([(name.to_owned(), None), (count, bad), (remark, Some(Style::Dim))]);
        }
        table
    }

    fn channels(&self) -> Table {
        let mut ranked: Vec<(&String, &u64)> = self.channels.iter().collect();
        ranked.sort_by_key(|(_, subscribers)| std::cmp::Reverse(**subscribers));
        let mut table = Table::new(&[("CHANNEL", Align::Left), ("SUBSCRIBERS", Align::Right)]);
        for (channel, subscribers) in ranked.into_iter().take(CHANNELS) {
            table.row([(channel.clone(), None), (subscribers.to_string(), None)]);
        }
        table
    }

    fn nodes(&self) -> Table {
        let mut table = Table::new(&[
            ("NODE", Align::Left),
            ("STATE", Align::Left),
            ("STREAMS", Align::Right),
            ("REDIS", Align::Right),
            ("MEMORY", Align::Right),
            ("CPU", Align::Right),
            ("UP", Align::Right),
            ("ADDRESS", Align::Left),
            ("VERSION", Align::Left),
        ]);
        for node in &self.nodes {
            let state = (node.state != "healthy").then_some(Style::Yellow);
            let redis = match (node.redis.connected, node.redis.lag_ms) {
                (true, Some(lag)) => (format!("{lag:.1} ms"), None),
                (true, None) => ("connected".to_owned(), None),
                (false, _) => ("lost".to_owned(), Some(Style::Red)),
            };
            table.row([
                (node.id.clone(), None),
                (node.state.clone(), state),
                (node.connections.to_string(), None),
                redis,
                (bytes(node.memory_bytes), None),
                (format!("{:.0} %", node.cpu_percent), None),
                (duration(node.uptime_ms), None),
                (node.address.clone(), None),
                (node.version.clone(), None),
            ]);
        }
        table
    }
}

fn parts(counts: &BTreeMap<String, u64>) -> String {
    let counted = counts.iter().filter(|(_, count)| **count > 0);
    counted.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        let json = serde_json::json!({
            "activeConnections": 3, "uniqueIps": 1, "uniqueSessions": 2, "generatedAt": "…", "stale": true,
            "metrics": {
                "totalConnections": 12, "totalDisconnections": 9, "totalReconnects": 1, "totalErrors": 4,
                "totalRejected": { "ip_limit": 2 }, "closedBy": { "client": 8, "kicked": 1, "max_age": 0 },
                "avgConnectionDurationMs": 90_500, "uptimeMs": 3_720_000, "totalBytesSent": 2048,
            },
            "channels": { "jobs": 3, "quiet": 0 },
            "nodes": [
                { "id": "a", "state": "healthy", "connections": 3, "redis": { "connected": true, "lagMs": 0.25 },
                  "memoryBytes": 29360128, "cpuPercent": 1.4, "uptimeMs": 140, "address": "127.0.0.1:1", "version": "0.1.0" },
                { "id": "b\u{1b}[2J", "state": "degraded", "reasons": ["slow", "late"] },
            ],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn people_see_aligned_totals_channels_and_nodes() {
        let text = told().render(Look::plain());
        let expected = "\
3 streams of 1 address, 2 sessions, on 2 nodes  (the cluster cannot be asked; this is what was known last)

TOTAL
opened   12  reconnects 1
ended     9  client 8, kicked 1
             lived 1m 30s on average, half below 0s, 95 % below 0s
refused   2  ip_limit 2
events    0  in 1h 2m
sent      0  2.0K
errors    4

CHANNEL  SUBSCRIBERS
jobs               3
quiet              0
";
        assert!(text.starts_with(expected), "{text}");
        let node = text.lines().find(|line| line.starts_with("a ")).unwrap();
        let words: Vec<&str> = node.split_whitespace().collect();
        assert_eq!(words[..7], ["a", "healthy", "3", "0.2", "ms", "28.0M", "1"]);
        assert!(text.contains("degraded") && text.contains("slow; late"), "{text}");
    }

    #[test]
    fn a_node_cannot_steer_the_terminal_that_its_row_is_shown_on() {
        let text = told().render(Look::terminal_without_colour());
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
