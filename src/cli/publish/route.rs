//! The ways to publish: through a node, or straight into Redis as a node would.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use tracing::{Instrument as _, field};

use crate::broker::{self, Broker, Publication};
use crate::cli::Failure;
use crate::cli::node_client::{self, NodeClient};
use crate::config::{self, Config, Environment};
use crate::protocol::channel::ChannelName;
use crate::protocol::request::{PublishEvent, PublishRequest};
use crate::redis::{Commands, Config as RedisConfig};
use crate::trace;

/// Until the node's answer to one request is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The settings that decide what a publication does to the history: they must be those of the nodes.
const SETTINGS: [&str; 4] = ["redis-prefix", "max-event-bytes", "history-size", "history-ttl"];

/// Where events go.
#[derive(Debug)]
pub(super) enum Route {
    Node(NodeClient),
    Redis(Direct),
}

/// A Redis, and the largest event data that its nodes take, in bytes.
pub(super) struct Direct {
    broker: Arc<dyn Broker>,
    max_event_bytes: usize,
}

#[derive(Deserialize)]
struct Accepted {
    ids: Vec<String>,
}

/// `--url` and `--redis-url`, and what goes with them.
pub(super) fn arguments() -> Vec<Arg> {
    let redis = Arg::new("redis-url").long("redis-url").value_name("URL").conflicts_with("url").help(
        "Publishes straight into this Redis, without a node; only the flag counts. The settings below must be those of the nodes",
    );
    node_client::arguments().into_iter().chain([redis]).chain(config::arguments_of(&SETTINGS)).collect()
}

impl Route {
    /// Redis only when the flag says so: the variable belongs to a node, next to which this may well be called.
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        if matches.value_source("redis-url") == Some(ValueSource::CommandLine) {
            let loaded = config::load(matches, environment)?;
            return Direct::new(&loaded.config).map(Self::Redis);
        }
        NodeClient::parse(matches, environment).map(Self::Node)
    }

    /// Publishes the `count` events of a request body, all on `channel`, and gives their positions.
    pub(super) async fn send(
        &self,
        channel: &ChannelName,
        count: usize,
        body: String,
    ) -> Result<Vec<String>, Failure> {
        let span = tracing::info_span!(
            target: trace::TARGET,
            "send",
            otel.name = format!("send {channel}"),
            otel.kind = "producer",
            otel.status_code = field::Empty,
            error.type = field::Empty,
            messaging.destination.name = channel.as_str(),
            messaging.batch.message_count = i64::try_from(count).ok().filter(|count| *count != 1),
            messaging.system = "fanlight",
            messaging.operation.name = "send",
            messaging.operation.type = "send",
        );
        let traceparent = trace::traceparent(&span);
        let sending = async {
            match self {
                Self::Node(node) => through_node(node, body, traceparent.as_deref()).await,
                Self::Redis(redis) => redis.send(&body, traceparent.as_deref()).await,
            }
        };
        let sent = sending.instrument(span.clone()).await;
        if sent.is_err() {
            span.record("otel.status_code", "ERROR");
            // What went wrong is printed, and has no word of its own.
            span.record("error.type", "_OTHER");
        }
        sent
    }
}

async fn through_node(
    node: &NodeClient,
    body: String,
    traceparent: Option<&str>,
) -> Result<Vec<String>, Failure> {
    let mut request = node.request(Method::POST, "api/events")?;
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let request = request.header(CONTENT_TYPE, "application/json").body(body);
    let answer = node.ask(request, ANSWER_TIMEOUT).await?;
    if !answer.status.is_success() {
        return Err(anyhow!(answer.refusal()).into());
    }
    let accepted: Accepted = answer
        .json()
        .with_context(|| format!("{} answered something else than a Fanlight node does", node.place()))?;
    Ok(accepted.ids)
}

impl Direct {
    fn new(config: &Config) -> Result<Self, Failure> {
        let url = config.redis.url.as_ref().context("--redis-url is missing")?;
        let redis = RedisConfig::new(url.expose(), &config.redis.prefix).context("--redis-url")?;
        let settings = broker::Config {
            history_size: config.history.size,
            history_ttl: config.history.ttl,
            max_event_bytes: config.max_event_bytes,
        };
        let commands = Commands::new(redis).context("--redis-url")?;
        let broker = broker::redis::publisher(&settings, commands);
        Ok(Self { broker, max_event_bytes: config.max_event_bytes })
    }

    /// Reads the body as a node does, so that both ways take and refuse the same.
    async fn send(&self, body: &str, traceparent: Option<&str>) -> Result<Vec<String>, Failure> {
        let request = PublishRequest::parse(body.as_bytes(), self.max_event_bytes)
            .map_err(|error| anyhow!("refused: {error}"))?;
        let events = match request {
            PublishRequest::One(event) => vec![event],
            PublishRequest::Many(events) => events,
        };
        let mut batch: Vec<_> = events.into_iter().map(publication).collect();
        for publication in &mut batch {
            publication.event.traceparent = traceparent.map(Into::into);
        }
        let acknowledged = self.broker.publish(&batch).await.with_context(|| self.broker.describe())?;
        Ok(acknowledged.into_iter().map(|one| one.position().to_string()).collect())
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.broker.describe())
    }
}

fn publication(event: PublishEvent) -> Publication {
    let PublishEvent { channel, event, idempotency_key } = event;
    Publication { channel, event, idempotency_key }
}
