//! What `fanlight bench` is asked to do.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytesize::ByteSize;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use redis::{ConnectionAddr, IntoConnectionInfo};
use url::Url;

use super::pace::Pace;
use super::publisher::{PLACEHOLDER, Way};
use super::target::{self, MAX_SOURCES, Target};
use crate::cli::{Failure, flag_or_variable};
use crate::config::Environment;
use crate::protocol::channel::ChannelName;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The most connections of one run: beyond it one process has not enough files.
const MAX_CONNECTIONS: u64 = 1_000_000;

/// The largest `--size`, in bytes.
const MAX_SIZE: u64 = 16 << 20;

/// How long a run lasts when nothing is said.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Checked arguments.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) target: Target,
    pub(super) headers: Vec<String>,
    pub(super) connections: usize,
    pub(super) sources: usize,
    /// Connections per second; none means as fast as they can be made.
    pub(super) connect_rate: Option<f64>,
    /// How, and with which template; none means that the streams stay idle.
    pub(super) publish: Option<(Way, String)>,
    pub(super) pace: Pace,
    /// Of an event's data, in bytes.
    pub(super) size: usize,
    pub(super) warmup: Duration,
    pub(super) duration: Option<Duration>,
    pub(super) events: Option<u64>,
    /// An event that has not arrived everywhere after so long is not waited for any more.
    pub(super) patience: Duration,
    pub(super) pid: Option<u32>,
    pub(super) json: bool,
}

fn value(name: &'static str, placeholder: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(placeholder).help(help)
}

pub(super) fn command() -> Command {
    Command::new("bench")
        .about("Load generator for any SSE server: counts deliveries, losses and latencies")
        .long_about(
            "Opens many streams from one thread, publishes numbered events, and checks that every stream gets each of \
             them once and in order. Works with any server that passes the published data through. The exit code is 1 \
             when anything was lost, repeated, out of order or refused.",
        )
        .args(stream_arguments())
        .args(publish_arguments())
        .args(pace_arguments())
        .arg(value("pid", "PID", "Samples this process (the server): CPU per delivery, memory per connection").value_parser(value_parser!(u32)))
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("The result as one JSON object"))
}

fn stream_arguments() -> [Arg; 6] {
    [
        value(
            "url",
            "URL",
            "The stream. Without a path: a Fanlight node, whose events are published through it as well [env: FANLIGHT_URL] [default: http://127.0.0.1:8080]",
        ),
        value(
            "header",
            "NAME: VALUE",
            "Header of the stream requests; repeatable. {i} stands for the number of the connection, from 0",
        )
        .action(ArgAction::Append)
        .value_parser(header),
        value("channel", "CHANNEL", "Channel of a Fanlight node").default_value("jobs").value_parser(channel),
        value("connections", "N", "Streams to open")
            .short('c')
            .default_value("100")
            .value_parser(value_parser!(u64).range(1..=MAX_CONNECTIONS)),
        value(
            "source-addresses",
            "N",
            "Spread over so many addresses 127.0.0.x [default: as many as the ports need]",
        )
        .value_parser(value_parser!(u64).range(1..=MAX_SOURCES as u64)),
        value("connect-rate", "N", "Streams opened per second [default: as fast as possible]")
            .value_parser(rate),
    ]
}

fn publish_arguments() -> [Arg; 7] {
    [
        value("publish-http", "URL", "Publishes by POST to this URL").conflicts_with("publish-redis"),
        value("publish-header", "NAME: VALUE", "Header of the publish requests; repeatable")
            .action(ArgAction::Append)
            .value_parser(header),
        value("publish-redis", "URL", "Publishes by PUBLISH to this Redis").requires("publish-channel"),
        value("publish-channel", "CHANNEL", "The whole name of the Redis channel, like fanlight:jobs"),
        value(
            "publish-body",
            "TEMPLATE",
            "Body or payload; {data} stands for the event's data [default: {data}]",
        ),
        value("api-key", "KEY", "For publishing through a Fanlight node [env: FANLIGHT_API_KEY]"),
        Arg::new("idle")
            .long("idle")
            .action(ArgAction::SetTrue)
            .help("Publishes nothing: what do open streams cost?"),
    ]
}

fn pace_arguments() -> [Arg; 8] {
    [
        value("rate", "N", "Open loop: events per second, whatever the server does; latency counts from when an event was due").value_parser(rate),
        value("in-flight", "N", "Closed loop: so many events on their way at most [default: 1 without --rate]").value_parser(value_parser!(u64).range(1..)),
        value("burst", "N", "Publishes so many events together").default_value("1").value_parser(value_parser!(u64).range(1..=100_000)),
        value("size", "SIZE", "Bytes of data in an event").default_value("190").value_parser(size),
        value("warmup", "DURATION", "Not measured").default_value("1s").value_parser(humantime::parse_duration),
        value("duration", "DURATION", "Measures for so long [default: 10s, or as long as --events takes]").value_parser(humantime::parse_duration),
        value("patience", "DURATION", "Stops waiting for an event that has not arrived everywhere after so long")
            .default_value("10s")
            .value_parser(humantime::parse_duration),
        value("events", "N", "Measures so many events").value_parser(value_parser!(u64).range(1..=1 << 27)),
    ]
}

fn channel(text: &str) -> Result<String, String> {
    ChannelName::parse(text).map(|channel| channel.to_string()).map_err(|why| why.to_string())
}

fn header(text: &str) -> Result<String, String> {
    let good = text.split_once(':').is_some_and(|(name, _)| !name.is_empty()) && !text.contains(['\r', '\n']);
    if good { Ok(text.to_owned()) } else { Err("a header is NAME: VALUE".to_owned()) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e7).contains(rate));
    rate.ok_or_else(|| "a number per second, from 0.001 to 10000000".to_owned())
}

fn size(text: &str) -> Result<usize, String> {
    let size = text.parse::<ByteSize>().ok().filter(|size| size.0 <= MAX_SIZE);
    size.map(|size| size.0 as usize).ok_or_else(|| "a size like 200 or 4KiB, at most 16MiB".to_owned())
}

impl Options {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        Self::read(matches, environment).map_err(|error| Failure::Usage(format!("{error:#}")))
    }

    fn read(matches: &ArgMatches, environment: &Environment) -> Result<Self> {
        let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
        let variable = environment.get("FANLIGHT_URL").filter(|url| !url.is_empty());
        let channel = text("channel").unwrap_or_default();
        let node = match text("url") {
            Some(url) => Node::at(url, channel)?,
            None => Node::based_at(variable.map_or(DEFAULT_URL, String::as_str), channel),
        };
        let api_key = flag_or_variable(matches, "api-key", environment, "FANLIGHT_API_KEY");
        let rate = matches.get_one("rate").copied();
        let in_flight = matches.get_one("in-flight").copied();
        let connections = matches.get_one::<u64>("connections").map_or(1, |n| *n as usize);
        let target = Target::http(&node.stream)?;
        let sources = matches.get_one::<u64>("source-addresses").map(|n| *n as usize);
        if sources.is_some_and(|sources| sources > 1) && !target::is_ipv4_loopback(target.address) {
            bail!("--source-addresses works only where the server is at 127.x.x.x");
        }
        let events = matches.get_one("events").copied();
        let duration = matches.get_one("duration").copied();
        Ok(Self {
            sources: sources.unwrap_or_else(|| target::sources_needed(target.address, connections)),
            target,
            headers: headers(matches, "header"),
            connections,
            connect_rate: matches.get_one("connect-rate").copied(),
            publish: if matches.get_flag("idle") { None } else { node.publish(matches, api_key)? },
            pace: Pace {
                rate,
                in_flight: in_flight.or(rate.is_none().then_some(1)),
                burst: matches.get_one("burst").copied().unwrap_or(1),
            },
            size: matches.get_one("size").copied().unwrap_or_default(),
            warmup: matches.get_one("warmup").copied().unwrap_or_default(),
            duration: duration.or(events.is_none().then_some(DEFAULT_DURATION)),
            events,
            patience: matches.get_one("patience").copied().unwrap_or_default(),
            pid: matches.get_one("pid").copied(),
            json: matches.get_flag("json"),
        })
    }
}

fn headers(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

/// What `--url` means.
struct Node {
    stream: String,
    /// Where to publish and with which body, when it is a Fanlight node.
    events: Option<(String, String)>,
}

impl Node {
    fn at(url: &str, channel: &str) -> Result<Self> {
        let parsed = Url::parse(url).with_context(|| format!("{url:?} is not a URL"))?;
        if parsed.path() != "/" || parsed.query().is_some() {
            return Ok(Self { stream: url.to_owned(), events: None });
        }
        Ok(Self::based_at(url, channel))
    }

    /// A Fanlight node; its base may have a path (a proxy's prefix).
    fn based_at(base: &str, channel: &str) -> Self {
        let base = base.trim_end_matches('/');
        let channel_json = serde_json::Value::from(channel);
        let body = format!(r#"{{"channel":{channel_json},"data":{PLACEHOLDER}}}"#);
        Self {
            stream: format!("{base}/api/sse/stream?channels={channel}"),
            events: Some((format!("{base}/api/events"), body)),
        }
    }

    /// The way that was asked for, or through the node itself if it is one.
    fn publish(self, matches: &ArgMatches, api_key: Option<String>) -> Result<Option<(Way, String)>> {
        let text = |name: &str| matches.get_one::<String>(name);
        let template = text("publish-body").cloned();
        if template.as_ref().is_some_and(|template| !template.contains(PLACEHOLDER)) {
            bail!("--publish-body must contain {PLACEHOLDER}");
        }
        let or_data = |template: Option<String>| template.unwrap_or_else(|| PLACEHOLDER.to_owned());
        let mut headers = headers(matches, "publish-header");
        if let Some(url) = text("publish-http") {
            return Ok(Some((Way::Http(Target::http(url)?, headers), or_data(template))));
        }
        if let (Some(url), Some(channel)) = (text("publish-redis"), text("publish-channel")) {
            return Ok(Some((redis(url, channel)?, or_data(template))));
        }
        let Some((url, body)) = self.events else {
            return Ok(None);
        };
        headers.extend(api_key.map(|key| format!("X-API-Key: {key}")));
        Ok(Some((Way::Http(Target::http(&url)?, headers), template.unwrap_or(body))))
    }
}

fn redis(text: &str, channel: &str) -> Result<Way> {
    let usage = "--publish-redis must be like redis://[USER:PASSWORD@]HOST[:PORT][/DB], without TLS";
    let info = text.into_connection_info().ok().context(usage)?;
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        bail!(usage);
    };
    let settings = info.redis_settings();
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let mut prelude = Vec::new();
    match (settings.username(), settings.password()) {
        (Some(user), Some(password)) => prelude.push(words(&["AUTH", user, password])),
        (None, Some(password)) => prelude.push(words(&["AUTH", password])),
        (_, None) => {}
    }
    Ok(Way::Redis { address: target::look_up(host, *port)?, channel: channel.to_owned(), prelude })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Result<Options, Failure> {
        let matches =
            command().try_get_matches_from(std::iter::once("bench").chain(arguments.iter().copied()));
        Options::parse(&matches?, &Environment::new())
    }

    #[test]
    fn a_bare_node_is_streamed_from_and_published_to() {
        let options = options(&["--url=http://127.0.0.1:9", "--channel=public:a", "--api-key=k"]).unwrap();
        assert_eq!(options.target.path, "/api/sse/stream?channels=public:a");
        let Some((Way::Http(target, headers), template)) = options.publish else { panic!("no publishing") };
        assert_eq!((target.path.as_str(), headers), ("/api/events", vec!["X-API-Key: k".to_owned()]));
        assert_eq!(template, r#"{"channel":"public:a","data":{data}}"#);
        assert_eq!((options.pace.in_flight, options.duration), (Some(1), Some(DEFAULT_DURATION)));
    }

    #[test]
    fn any_other_server_is_taken_as_it_is() {
        let idle = options(&["--url=http://127.0.0.1:9/sub?id=1"]).unwrap();
        assert!(idle.publish.is_none() && idle.target.path == "/sub?id=1");
        let redis = options(&[
            "--url=http://127.0.0.1:9/s",
            "--publish-redis=redis://:p%40w@127.0.0.1",
            "--publish-channel=c",
        ]);
        let Some((Way::Redis { prelude, .. }, template)) = redis.unwrap().publish else {
            panic!("not Redis")
        };
        assert_eq!((prelude, template.as_str()), (vec![vec!["AUTH".to_owned(), "p@w".to_owned()]], "{data}"));
        let http =
            options(&["--url=http://127.0.0.1:9/s", "--publish-http=http://127.0.0.1:9/pub", "--rate=5"])
                .unwrap();
        assert!(matches!(http.publish, Some((Way::Http(..), _))));
        assert_eq!(http.pace.in_flight, None);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for bad in [
            "--url=https://127.0.0.1",
            "--connections=0",
            "--rate=0",
            "--rate=NaN",
            "--size=1GiB",
            "--header=x",
            "--channel=a b",
            "--publish-body=x",
            "--publish-redis=redis://127.0.0.1",
            "--source-addresses=0",
        ] {
            assert!(options(&[bad]).is_err(), "{bad}");
        }
    }
}
