//! `fanlight publish`: one event, or one per line of standard input.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Arg, ArgMatches, Command};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use super::Failure;
use super::node_client::{self, NodeClient, refusal};
use crate::config::Environment;
use crate::protocol::channel::ChannelName;
use crate::protocol::event::{EventType, Key};
use crate::protocol::request::MAX_EVENTS;

/// Until the node has answered one request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A batch ends with the line that passes this, in bytes: large enough that the round trip does not matter.
const BATCH_BYTES: usize = 256 << 10;

/// The longest line that is read, in bytes: more than any node takes as one event.
const MAX_LINE: usize = 64 << 20;

/// What standard input is read ahead by, in bytes. Lines that are there already travel in one request.
const READ_AHEAD: usize = 256 << 10;

/// Publishes on one channel.
#[derive(Debug)]
pub struct Publish {
    node: NodeClient,
    template: Template,
    data: Data,
}

#[derive(Debug)]
enum Data {
    One(String),
    Lines,
}

/// What all events of one call have in common.
#[derive(Debug)]
struct Template {
    channel: ChannelName,
    kind: Option<EventType>,
    key: Option<Key>,
    /// Checked as a key is.
    idempotency_key: Option<Key>,
}

/// An event as `POST /api/events` takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    channel: &'a ChannelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    data: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
struct Accepted {
    ids: Vec<String>,
}

pub(super) fn command() -> Command {
    let word = |name, value| Arg::new(name).long(name).value_name(value);
    Command::new("publish")
        .about("Publishes an event, and prints its position")
        .arg(Arg::new("channel").value_name("CHANNEL").required(true).help("Where"))
        .arg(
            Arg::new("data")
                .value_name("DATA")
                .required(true)
                .allow_negative_numbers(true)
                .help("JSON, or a text, which is sent as a JSON string; - publishes every line of standard input, in order"),
        )
        .arg(word("event", "TYPE").help("The event's type"))
        .arg(word("key", "KEY").help("The id of the thing that the event is about"))
        .arg(
            word("idempotency-key", "KEY")
                .help("Published again under the same key, it is delivered once; with -, line 7 gets KEY:7"),
        )
        .args(node_client::arguments())
}

impl Publish {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let channel = checked(matches, "channel", ChannelName::parse)?;
        let channel = channel.ok_or_else(|| Failure::Usage("CHANNEL is missing".into()))?;
        let template = Template {
            channel,
            kind: checked(matches, "event", EventType::parse)?,
            key: checked(matches, "key", Key::parse)?,
            idempotency_key: checked(matches, "idempotency-key", Key::parse)?,
        };
        let data = match matches.get_one::<String>("data").map_or("-", String::as_str) {
            "-" => Data::Lines,
            data => Data::One(data.to_owned()),
        };
        let node = NodeClient::parse(matches, environment)?;
        Ok(Self { node, template, data })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        match &self.data {
            Data::One(data) => self.send(&[self.template.event(data, None)]).await?,
            Data::Lines => self.send_lines(tokio::io::stdin()).await?,
        }
        Ok(ExitCode::SUCCESS)
    }

    /// One request after the other, so that the order is kept whatever happens between here and the node.
    async fn send_lines(&self, input: impl AsyncRead + Unpin) -> Result<(), Failure> {
        let mut lines = Lines { input: BufReader::with_capacity(READ_AHEAD, input), number: 0 };
        loop {
            let batch = lines.batch().await?;
            let (Some((first, _)), Some((last, _))) = (batch.first(), batch.last()) else {
                return Ok(());
            };
            let events: Vec<_> =
                batch.iter().map(|(number, line)| self.template.event(line, Some(*number))).collect();
            self.send(&events).await.map_err(|failure| at_lines(failure, *first, *last))?;
        }
    }

    /// Publishes and prints the positions, one a line.
    async fn send(&self, events: &[Body<'_>]) -> Result<(), Failure> {
        let request = self.node.request(Method::POST, "api/events")?.timeout(ANSWER_TIMEOUT).json(events);
        let response = request.send().await.map_err(|error| self.node.unreachable(&error))?;
        if !response.status().is_success() {
            return Err(anyhow!(refusal(response).await).into());
        }
        let accepted: Accepted = response.json().await.map_err(|_| {
            anyhow!("{} answered something else than a Fanlight node does", self.node.place())
        })?;
        let mut stdout = std::io::stdout().lock();
        accepted.ids.iter().try_for_each(|id| writeln!(stdout, "{id}")).context("standard output")?;
        Ok(stdout.flush().context("standard output")?)
    }
}

impl Template {
    fn event(&self, data: &str, line: Option<usize>) -> Body<'_> {
        let idempotency_key = match (&self.idempotency_key, line) {
            (Some(key), Some(line)) => Some(format!("{key}:{line}")),
            (key, _) => key.as_ref().map(Key::to_string),
        };
        Body {
            channel: &self.channel,
            event: self.kind.as_ref().map(EventType::as_str),
            data: json(data),
            key: self.key.as_ref().map(Key::as_str),
            idempotency_key,
        }
    }
}

/// The text itself when it is JSON, else as a JSON string.
fn json(text: &str) -> Box<RawValue> {
    let text = text.trim();
    RawValue::from_string(text.to_owned()).unwrap_or_else(|_| {
        let quoted = serde_json::Value::from(text).to_string();
        RawValue::from_string(quoted).unwrap_or_else(|_| RawValue::NULL.to_owned())
    })
}

/// An argument, checked.
fn checked<T, E: std::fmt::Display>(
    matches: &ArgMatches,
    name: &str,
    parse: fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Failure> {
    let text = matches.get_one::<String>(name);
    text.map(|text| parse(text)).transpose().map_err(|why| Failure::Usage(format!("{name}: {why}")))
}

/// Standard input, line by line.
struct Lines<R> {
    input: BufReader<R>,
    /// Of the line that was read last.
    number: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The next lines with their numbers: waits for the first one, then takes what has been read already. Empty lines
    /// are passed over; nothing at all means the end.
    async fn batch(&mut self) -> Result<Vec<(usize, String)>, Failure> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_EVENTS && bytes < BATCH_BYTES {
            let would_wait = !self.input.buffer().contains(&b'\n');
            if would_wait && !batch.is_empty() {
                break;
            }
            let Some(line) = self.next().await? else {
                break;
            };
            if !line.trim().is_empty() {
                bytes += line.len();
                batch.push((self.number, line));
            }
        }
        Ok(batch)
    }

    async fn next(&mut self) -> Result<Option<String>, Failure> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.input).take(MAX_LINE as u64 + 1);
        let read = bounded.read_until(b'\n', &mut line).await.context("standard input")?;
        self.number += 1;
        let number = self.number;
        if read > MAX_LINE {
            return Err(anyhow!("line {number} is longer than {MAX_LINE} bytes").into());
        }
        let line = String::from_utf8(line).map_err(|_| anyhow!("line {number} is not valid UTF-8"))?;
        Ok((read > 0).then_some(line))
    }
}

fn at_lines(failure: Failure, first: usize, last: usize) -> Failure {
    match failure {
        Failure::Failed(error) => Failure::Failed(
            error.context(format!("lines {first} to {last} of standard input (those before are published)")),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(idempotency_key: Option<&str>) -> Template {
        Template {
            channel: ChannelName::parse("jobs").unwrap(),
            kind: Some(EventType::parse("job_completed").unwrap()),
            key: None,
            idempotency_key: idempotency_key.map(|key| Key::parse(key).unwrap()),
        }
    }

    #[test]
    fn json_is_sent_as_it_stands_and_text_as_a_json_string() {
        let body = |data| serde_json::to_string(&template(None).event(data, None)).unwrap();
        assert_eq!(
            body(r#" {"id":1.0} "#),
            r#"{"channel":"jobs","event":"job_completed","data":{"id":1.0}}"#
        );
        assert_eq!(body("-5"), r#"{"channel":"jobs","event":"job_completed","data":-5}"#);
        assert_eq!(body("say \"hi\""), r#"{"channel":"jobs","event":"job_completed","data":"say \"hi\""}"#);
    }

    #[test]
    fn every_line_has_an_idempotency_key_of_its_own() {
        let template = template(Some("import"));
        assert_eq!(template.event("1", Some(7)).idempotency_key.as_deref(), Some("import:7"));
        assert_eq!(template.event("1", None).idempotency_key.as_deref(), Some("import"));
    }

    async fn batches(input: &str) -> Vec<Vec<(usize, String)>> {
        let mut lines = Lines { input: BufReader::new(input.as_bytes()), number: 0 };
        let mut batches = Vec::new();
        loop {
            match lines.batch().await.unwrap() {
                batch if batch.is_empty() => return batches,
                batch => batches.push(batch),
            }
        }
    }

    #[tokio::test]
    async fn lines_keep_their_order_and_number_over_batches_and_empty_lines() {
        let input: String =
            (1..=2500).map(|n| if n % 2 == 0 { "\n".into() } else { format!("{n}\r\n") }).collect();
        let batches = batches(&input).await;
        assert!(batches.iter().all(|batch| batch.len() <= MAX_EVENTS));
        let lines: Vec<_> = batches.into_iter().flatten().collect();
        assert_eq!(lines.len(), 1250);
        assert!(lines.iter().all(|(number, line)| line.trim() == number.to_string()), "{lines:?}");
    }

    #[tokio::test]
    async fn a_last_line_without_its_end_counts() {
        assert_eq!(batches("a\nb").await.concat(), [(1, "a\n".into()), (2, "b".into())]);
        assert!(batches("").await.is_empty() && batches("\n\n").await.is_empty());
    }
}
