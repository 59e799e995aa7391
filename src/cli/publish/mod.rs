//! `fanlight publish`: one event, or one per line of standard input.

mod lines;
mod route;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::io::AsyncRead;

use self::lines::Lines;
use self::route::Route;
use super::Failure;
use crate::config::Environment;
use crate::protocol::channel::ChannelName;
use crate::protocol::event::{EventType, Key};

/// Publishes on one channel.
#[derive(Debug)]
pub struct Publish {
    route: Route,
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
        .args(route::arguments())
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
        let route = Route::parse(matches, environment)?;
        Ok(Self { route, template, data })
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
        let mut lines = Lines::of(input);
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
        let body = serde_json::to_string(events).context("the events")?;
        let ids = self.route.send(&self.template.channel, events.len(), body).await?;
        let mut stdout = std::io::stdout().lock();
        ids.iter().try_for_each(|id| writeln!(stdout, "{id}")).context("standard output")?;
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
}
