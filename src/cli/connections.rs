//! `fanlight connections`: who is connected, anywhere in the cluster.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded::Serializer;

use super::Failure;
use super::node_client::{self, NodeClient};
use super::output::{self, Look};
use super::table::{Align, Table};
use super::words::{bytes, duration, plural};
use crate::config::Environment;
use crate::protocol::peer::MAX_ROWS;

/// Until a page is there; the nodes have a second to answer each other.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest list, in bytes of its pages: two million connections. Who answers with new cursors for ever is stopped here.
const MAX_LIST: usize = 1 << 30;

/// Lists connections.
#[derive(Debug)]
pub struct Connections {
    node: NodeClient,
    which: Which,
    json: bool,
}

/// The flags that say which connections are meant.
#[derive(Debug)]
pub(super) struct Which(Vec<(&'static str, String)>);

impl Which {
    pub(super) fn arguments() -> [Arg; 3] {
        let flag = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
        [
            flag("ip", "ADDRESS", "Those from this address"),
            flag("session", "SESSION", "Those of this session"),
            flag("channel", "CHANNEL", "Those that hear this channel"),
        ]
    }

    pub(super) fn parse(matches: &ArgMatches) -> Self {
        let given = |name| Some((name, matches.get_one::<String>(name)?.clone()));
        Self(["ip", "session", "channel"].into_iter().filter_map(given).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the query of a request, `more` included.
    pub(super) fn query(&self, more: &[(&str, &str)]) -> String {
        let pairs = self.0.iter().map(|(name, value)| (*name, value.as_str()));
        Serializer::new(String::new()).extend_pairs(pairs.chain(more.iter().copied())).finish()
    }
}

/// What a node answers. Members that another version lacks are empty.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    connections: Vec<Value>,
    #[serde(default)]
    next_cursor: Option<String>,
    #[serde(default)]
    partial: bool,
}

/// What of a connection is shown to people.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Row {
    id: String,
    node: String,
    ip: String,
    session: Option<String>,
    channels: Vec<String>,
    duration_ms: u64,
    messages_sent: u64,
    bytes_sent: u64,
    queued: u64,
}

pub(super) fn command() -> Command {
    Command::new("connections")
        .about("Lists the connections of the whole cluster")
        .args(Which::arguments())
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("As one JSON object with everything that is known of each"),
        )
        .args(node_client::arguments())
}

impl Connections {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        Ok(Self {
            node: NodeClient::parse(matches, environment)?,
            which: Which::parse(matches),
            json: matches.get_flag("json"),
        })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let (mut connections, mut partial, mut cursor, mut read) = (Vec::new(), false, String::new(), 0);
        loop {
            let (page, size) = self.page(&cursor).await?;
            read += size;
            if read > MAX_LIST {
                let why = "the list is larger than 1 GiB; ask for less with --ip, --session or --channel";
                return Err(anyhow!(why).into());
            }
            connections.extend(page.connections);
            partial |= page.partial;
            // A cursor that does not move would be asked for without an end.
            match page.next_cursor.filter(|next| *next != cursor) {
                Some(next) => cursor = next,
                None => break,
            }
        }
        if partial {
            output::warning("not every node has answered in time; there may be more connections");
        }
        let text = if self.json {
            format!("{:#}\n", json!({ "connections": connections, "partial": partial }))
        } else {
            render(&connections, Look::stdout())
        };
        std::io::stdout().write_all(text.as_bytes()).context("standard output")?;
        Ok(ExitCode::SUCCESS)
    }

    /// A page, and how many bytes it was read from.
    async fn page(&self, cursor: &str) -> Result<(Page, usize), Failure> {
        let query = self.which.query(&[("limit", &MAX_ROWS.to_string()), ("cursor", cursor)]);
        let request = self.node.request(Method::GET, &format!("api/sse/connections?{query}"))?;
        let answer = self.node.ask(request, TIMEOUT).await?;
        if answer.status != StatusCode::OK {
            return Err(anyhow!(answer.refusal()).into());
        }
        let page = answer.json().with_context(|| {
            let place = self.node.place();
            format!("{place} answers with something else than connections; is this a Fanlight node?")
        })?;
        Ok((page, answer.len()))
    }
}

fn render(connections: &[Value], look: Look) -> String {
    let mut table = Table::new(&[
        ("CONNECTION", Align::Left),
        ("NODE", Align::Left),
        ("ADDRESS", Align::Left),
        ("SESSION", Align::Left),
        ("OPEN", Align::Right),
        ("EVENTS", Align::Right),
        ("BYTES", Align::Right),
        ("WAITING", Align::Right),
        ("CHANNELS", Align::Left),
    ]);
    for connection in connections {
        let row = Row::deserialize(connection).unwrap_or_default();
        let cells = [
            row.id,
            row.node,
            row.ip,
            row.session.unwrap_or_else(|| "-".to_owned()),
            duration(row.duration_ms),
            row.messages_sent.to_string(),
            bytes(row.bytes_sent),
            row.queued.to_string(),
            row.channels.join(","),
        ];
        table.row(cells.map(|cell| (cell, None)));
    }
    let count = plural(connections.len() as u64, "connection");
    if connections.is_empty() { format!("{count}\n") } else { format!("{}\n{count}\n", table.render(look)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_cannot_become_another_question() {
        let which = Which(vec![("session", "a&ip=1 2#é".to_owned())]);
        assert_eq!(which.query(&[("limit", "5")]), "session=a%26ip%3D1+2%23%C3%A9&limit=5");
    }

    #[test]
    fn people_see_a_row_each_and_the_count_and_nothing_that_steers_the_terminal() {
        let rows = [
            json!({ "id": "1", "node": "a", "ip": "::1", "session": "s\u{1b}[2J", "channels": ["jobs", "x"],
                    "durationMs": 61_000, "messagesSent": 7, "bytesSent": 2048, "queued": 0 }),
            json!({ "id": "2" }),
        ];
        let text = render(&rows, Look::terminal_without_colour());
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(words, ["1", "a", "::1", "s\u{fffd}[2J", "1m", "1s", "7", "2.0K", "0", "jobs,x"]);
        assert!(text.ends_with("\n\n2 connections\n"), "{text}");
        assert_eq!(render(&[], Look::plain()), "0 connections\n");
    }
}
