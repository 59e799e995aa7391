//! `fanlight subscribe`: prints events as they come, reconnecting and resuming like a browser would.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use rand::Rng;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use super::Failure;
use super::answer::refusal;
use super::node_client::{self, NodeClient};
use super::output::{self, Look, Style};
use super::reconnect::{End, Next, Reconnect};
use crate::config::Environment;
use crate::protocol::channel::{ALL, ChannelName};
use crate::protocol::position;
use crate::protocol::sse_decoder::{ServerEvent, SseDecoder};

/// The largest event that is read, in bytes: more than any node sends.
const MAX_EVENT: usize = 64 << 20;

/// Until the head of the answer is there.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The width to which event types are padded, so that the data of the usual ones begin below each other.
const KIND_WIDTH: usize = 13;

/// Prints the events of some channels.
#[derive(Debug)]
pub struct Subscribe {
    node: NodeClient,
    channels: String,
    since: Option<String>,
    json: bool,
    count: Option<u64>,
}

pub(super) fn command() -> Command {
    Command::new("subscribe")
        .about("Prints events as they come, reconnecting and resuming like a browser would")
        .arg(
            Arg::new("channels")
                .value_name("CHANNEL")
                .required(true)
                .num_args(1..)
                .value_parser(channel)
                .help("Which channels; `all` for every one that is configured by name"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("One JSON object a line"))
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("Ends after so many events"),
        )
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("POSITION")
                .value_parser(since)
                .help("Begins after this position, with what has happened since"),
        )
        .args(node_client::arguments())
}

fn channel(text: &str) -> Result<String, String> {
    if text != ALL {
        ChannelName::parse(text).map_err(|why| why.to_string())?;
    }
    Ok(text.to_owned())
}

/// Positions are opaque: whether the node knows it is the node's to say.
fn since(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let good = (1..=position::MAX_LEN).contains(&text.len()) && text.bytes().all(allowed);
    if good { Ok(text.to_owned()) } else { Err("a position is the id of an event".to_owned()) }
}

impl Subscribe {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let channels: Vec<_> =
            matches.get_many::<String>("channels").into_iter().flatten().cloned().collect();
        Ok(Self {
            node: NodeClient::parse(matches, environment)?,
            channels: channels.join(","),
            since: matches.get_one("since").cloned(),
            json: matches.get_flag("json"),
            count: matches.get_one("count").copied(),
        })
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut printer = Printer { look: Look::stdout(), json: self.json, left: self.count };
        let mut reconnect = Reconnect::default();
        let mut last_id = self.since.clone().unwrap_or_default();
        loop {
            let end = match self.connect(&last_id).await? {
                Ok(response) => {
                    reconnect.opened();
                    read(response, &mut last_id, &mut reconnect, &mut printer).await?
                }
                Err(end) => end,
            };
            if printer.left == Some(0) {
                return Ok(ExitCode::SUCCESS);
            }
            let remark = remark(&end);
            match reconnect.after(end, rand::rng().random()) {
                Next::Wait(wait) => {
                    output::note(&format!("{remark}; connecting again in {:.1} s", wait.as_secs_f64()));
                    tokio::time::sleep(wait).await;
                }
                Next::Done => return Ok(ExitCode::SUCCESS),
                Next::GiveUp(why) => return Err(anyhow::anyhow!(why).into()),
            }
        }
    }

    /// Opens the stream; the inner error is an end that may be waited for.
    async fn connect(&self, last_id: &str) -> Result<Result<Response, End>, Failure> {
        // Channel names have no character that would have to be escaped in a query.
        let path = format!("api/sse/stream?channels={}", self.channels);
        let mut request = self.node.request(Method::GET, &path)?.header(ACCEPT, "text/event-stream");
        if !last_id.is_empty() {
            request = request.header("last-event-id", last_id);
        }
        let response = match self.node.open(request, HEAD_TIMEOUT).await {
            Ok(response) => response,
            Err(error) => return Ok(Err(End::Unreachable(error.to_string()))),
        };
        if response.status() == StatusCode::OK && is_event_stream(response.headers()) {
            return Ok(Ok(response));
        }
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let words = match response.status() {
            StatusCode::OK => {
                format!("{} answers with something else than an event stream", self.node.place())
            }
            _ => refusal(response).await,
        };
        Ok(Err(End::Refused { status, retry_after, words }))
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// Seconds; the form with a date is not what a node sends.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn remark(end: &End) -> String {
    match end {
        End::Closed => "the stream has ended".to_owned(),
        End::Bye { reason, .. } => format!("the node closed the stream: {reason}"),
        End::Unreachable(why) => why.clone(),
        End::Refused { words, .. } => words.clone(),
    }
}

/// Reads one stream to its end.
async fn read(
    mut response: Response,
    last_id: &mut String,
    reconnect: &mut Reconnect,
    printer: &mut Printer,
) -> Result<End, Failure> {
    let mut decoder = SseDecoder::new(MAX_EVENT);
    let mut events = Vec::new();
    let mut end = End::Closed;
    while let Ok(Some(bytes)) = response.chunk().await {
        let decoded = decoder.feed(&bytes, &mut events);
        for event in events.drain(..) {
            match Control::of(&event) {
                Some(control) => end = control.tell().unwrap_or(end),
                None if printer.left == Some(0) => break,
                None => {}
            }
            printer.print(&event).context("standard output")?;
        }
        if printer.left == Some(0) {
            return Ok(end);
        }
        if !decoder.last_id().is_empty() {
            decoder.last_id().clone_into(last_id);
        }
        decoder.retry().into_iter().for_each(|retry| reconnect.set_retry(retry));
        decoded.map_err(|error| Failure::Failed(error.into()))?;
    }
    Ok(end)
}

/// What the node itself says on a stream; without an id, but for the first block.
#[derive(Debug)]
enum Control {
    Hello(String),
    Gap(String),
    Bye(End),
}

/// The members of all control events' data.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ControlData {
    #[serde(rename = "type")]
    kind: String,
    node: String,
    channels: Vec<String>,
    recovered: Option<bool>,
    channel: String,
    reason: String,
    reconnect: bool,
}

impl Control {
    fn of(event: &ServerEvent) -> Option<Self> {
        if !matches!(event.kind.as_str(), "connected" | "gap" | "bye") {
            return None;
        }
        let data: ControlData = serde_json::from_str(&event.data).unwrap_or_default();
        // Of what the server says itself only the first block has an id; the others are somebody's events of that name.
        if event.id.is_some() && (event.kind != "connected" || data.kind != "hello") {
            return None;
        }
        Some(match event.kind.as_str() {
            "connected" => {
                let resumed = match data.recovered {
                    Some(true) => ", nothing missed",
                    Some(false) => ", something may be missed",
                    None => "",
                };
                Self::Hello(format!("connected to {} ({}){resumed}", data.node, data.channels.join(", ")))
            }
            "gap" => Self::Gap(format!("events of {} may be missing: {}", data.channel, data.reason)),
            _ => Self::Bye(End::Bye { reason: data.reason, reconnect: data.reconnect }),
        })
    }

    /// Says it on standard error; a `bye` is said when the stream has ended.
    fn tell(self) -> Option<End> {
        match self {
            Self::Hello(words) => output::note(&words),
            Self::Gap(words) => output::warning(&words),
            Self::Bye(end) => return Some(end),
        }
        None
    }
}

/// Prints events and counts them down.
#[derive(Debug)]
struct Printer {
    look: Look,
    json: bool,
    /// How many are still wanted; none means all.
    left: Option<u64>,
}

impl Printer {
    /// One line and its flush; JSON has the control events too, and neither form counts them.
    fn print(&mut self, event: &ServerEvent) -> std::io::Result<()> {
        let control = Control::of(event).is_some();
        if control && !self.json {
            return Ok(());
        }
        let line = if self.json { json_line(event) } else { self.text_line(event) };
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{line}")?;
        stdout.flush()?;
        if !control {
            self.left = self.left.map(|left| left.saturating_sub(1));
        }
        Ok(())
    }

    fn text_line(&self, event: &ServerEvent) -> String {
        let kind = self.look.harmless(&event.kind);
        let padding = " ".repeat(KIND_WIDTH.saturating_sub(kind.chars().count()));
        let data =
            self.look.harmless(&event.data).replace('\n', &format!("\n{}", " ".repeat(KIND_WIDTH + 2)));
        let id = event.id.as_deref().map(|id| format!("  {}", self.look.harmless(id))).unwrap_or_default();
        format!(
            "{}{padding}  {data}{}",
            self.look.paint(Style::Cyan, &kind),
            self.look.paint(Style::Dim, &id)
        )
    }
}

fn json_line(event: &ServerEvent) -> String {
    serde_json::json!({ "event": event.kind, "data": event.data, "id": event.id }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, data: &str, id: Option<&str>) -> ServerEvent {
        ServerEvent { kind: kind.into(), data: data.into(), id: id.map(Into::into) }
    }

    #[test]
    fn control_events_are_told_from_events_of_the_same_name() {
        let bye = event("bye", r#"{"reason":"kicked","reconnect":false,"retryMs":1}"#, None);
        let expected = End::Bye { reason: "kicked".into(), reconnect: false };
        assert!(matches!(Control::of(&bye), Some(Control::Bye(end)) if end == expected));
        assert!(Control::of(&event("bye", "{}", Some("7"))).is_none());
        assert!(Control::of(&event("message", "{}", None)).is_none());
        assert!(matches!(Control::of(&event("gap", "not json", None)), Some(Control::Gap(_))));
    }

    #[test]
    fn lines_below_the_first_are_indented_and_json_is_one_line() {
        let printer = Printer { look: Look::plain(), json: false, left: None };
        let event = event("job_progress", "{\n}", Some("7-1"));
        assert_eq!(printer.text_line(&event), "job_progress   {\n               }  7-1");
        assert_eq!(json_line(&event), r#"{"data":"{\n}","event":"job_progress","id":"7-1"}"#);
    }

    #[test]
    fn arguments_that_no_header_or_query_could_carry_are_refused() {
        assert!(channel("all").is_ok() && channel("jobs").is_ok() && channel("a b").is_err());
        assert!(since("0019-7a.b_c").is_ok());
        for bad in ["", "a\r\nb", "a b", &"x".repeat(65)] {
            assert!(since(bad).is_err(), "{bad:?}");
        }
    }
}
