//! The composition root: builds the rooms in order, wires them, and ends them in the opposite order. Nothing else knows
//! them all.

mod banner;
mod files;
mod memory;
mod signals;
mod threads;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admission::{self, Admission, NodeTag, RedisLeases};
use crate::auth::Verifier;
use crate::broker::{self, Broker, Notice};
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::{Config, Origins};
use crate::http::{self, AllowedOrigins, Recognition};
use crate::hub::{self, Hub};
use crate::jobs::{JobStore, MemoryJobs, RedisJobs};
use crate::node::interest::Interest;
use crate::node::{self, Node, Rooms};
use crate::protocol::channel::ChannelPattern;
use crate::redis;
use signals::Signals;

/// What a drain may take beyond its own time: the last sockets that take nothing reach their send time-out.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Runs a node until it is told to stop. `warnings` are about its settings.
///
/// # Errors
/// When it cannot start: the address is taken, or the system gives no threads.
pub fn run(config: Config, warnings: &[String]) -> anyhow::Result<ExitCode> {
    memory::in_small_pieces();
    // Not before: they would be said twice.
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let no_threads = "cannot start the threads of the node";
    let requests = threads::for_requests().context(no_threads)?;
    let events = threads::for_events().context(no_threads)?;
    events.block_on(serve(config, requests.handle()))
}

async fn serve(config: Config, requests: &Handle) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::install().context("cannot listen for signals")?;
    let clock = Clock::system();
    let files = files::budget(config.streams.max_connections);
    let hub = Hub::start(&hub_config(&config), &clock).context("cannot start the shard threads")?;
    let interest = Interest::new(clock.clone());
    let redis = connect(&config)?;
    let mut checkup = tokio::task::JoinSet::new();
    redis.clone().into_iter().for_each(|redis| drop(checkup.spawn(redis::checkup::look(redis))));
    let Started { broker, notices, jobs, owner } = start_broker(&config, redis.as_ref(), &clock, &interest);
    let admission = start_admission(&config, files.max_connections, redis.as_ref(), &clock, &broker);
    let cluster = start_cluster(&config, redis.as_ref(), &clock)?;
    let broker_name = broker.describe();
    let rooms = Rooms { clock: clock.clone(), hub, interest, admission, cluster, broker, notices, jobs };
    let (node, mut tasks) = Node::start(node_config(&config), rooms);
    let (tokens, reloading) = Verifier::start(config.tokens.clone(), clock.clone());
    let server = threads::within(requests, || {
        http::Server::bind(http_config(&config, tokens, files.max_sockets), Arc::clone(&node))
    })?;
    let (local, admin) = (server.local_addr(), server.admin_addr());
    node.announce(local.to_string(), &mut tasks);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %local,
        admin_address = admin.map(tracing::field::display),
        broker = broker_name,
        max_connections = node.max_connections(),
        "node started"
    );
    banner::print(&config.log, local, admin, &broker_name);
    let (closed, done) = (CancellationToken::new(), CancellationToken::new());
    let serving = requests.spawn(server.run(closed.clone(), done.clone()));

    let asked_by = tokio::select! {
        signal = signals.next() => signal,
        () = node.drain_ordered() => "POST /api/sse/drain",
    };
    tracing::info!(asked_by, streams = node.seats_taken(), over = ?config.drain, "draining; a signal from now on ends at once");
    closed.cancel();
    let limit = config.drain + config.streams.send_timeout + DRAIN_SLACK;
    let drained = tokio::select! {
        drained = timeout(limit, node.drain()) => drained.is_ok(),
        signal = signals.next() => {
            tracing::warn!(signal, streams = node.seats_taken(), "second signal: ending at once");
            return Ok(ExitCode::FAILURE);
        }
    };
    if !drained {
        tracing::warn!(streams = node.seats_taken(), "the drain took too long; the rest is cut");
    }
    node.leave().await;
    done.cancel();
    // Fails only when the server's task panicked, which the panic hook has reported.
    let _ = serving.await;
    drop((tasks, reloading, checkup));
    node.say_farewell().await;
    if let Some(owner) = owner {
        owner.shutdown().await;
    }
    tracing::info!("node stopped");
    Ok(ExitCode::SUCCESS)
}

/// A running broker and what it yields.
struct Started {
    broker: Arc<dyn Broker>,
    notices: mpsc::Receiver<Notice>,
    jobs: Arc<dyn JobStore>,
    owner: Option<broker::redis::Owner>,
}

/// The way to Redis; `None` for a node on its own.
fn connect(config: &Config) -> anyhow::Result<Option<redis::Commands>> {
    let Some(url) = &config.redis.url else { return Ok(None) };
    let redis = redis::Config::new(url.expose(), &config.redis.prefix).context("FANLIGHT_REDIS_URL")?;
    Ok(Some(redis::Commands::new(redis).context("FANLIGHT_REDIS_URL")?))
}

fn start_broker(
    config: &Config,
    redis: Option<&redis::Commands>,
    clock: &Clock,
    interest: &Arc<Interest>,
) -> Started {
    let settings = broker::Config {
        history_size: config.history.size,
        history_ttl: config.history.ttl,
        max_event_bytes: config.max_event_bytes,
    };
    let interest = Arc::clone(interest) as Arc<dyn broker::Interest>;
    let Some(redis) = redis else {
        let (broker, notices) = broker::memory::start(settings, clock.clone(), interest);
        let jobs = Arc::new(MemoryJobs::new(config.history.ttl, clock.clone()));
        return Started { broker, notices, jobs, owner: None };
    };
    let (broker, notices, owner) = broker::redis::start(settings, redis.clone(), clock.clone(), interest);
    let jobs = Arc::new(RedisJobs::new(redis.clone(), config.history.ttl));
    Started { broker, notices, jobs, owner: Some(owner) }
}

fn start_cluster(config: &Config, redis: Option<&redis::Commands>, clock: &Clock) -> anyhow::Result<Cluster> {
    let channels = config.channels.iter().filter_map(ChannelPattern::plain).cloned();
    let Some(redis) = redis else { return Ok(Cluster::alone(channels, clock.clone())) };
    // On connections of their own, heartbeats do not wait behind a storm of publishers: that would look like death.
    let mut own = redis.config().clone();
    own.pool_size = 2;
    let heartbeats = redis::Commands::new(own).context("FANLIGHT_REDIS_URL")?;
    Ok(Cluster::shared(heartbeats, channels, clock.clone()))
}

fn start_admission(
    config: &Config,
    max_connections: usize,
    redis: Option<&redis::Commands>,
    clock: &Clock,
    broker: &Arc<dyn Broker>,
) -> Admission {
    let settings = admission::Config {
        max_connections,
        limits: config.limits.cluster,
        connect_rate: config.limits.connect_rate,
        lease_ttl: config.limits.lease_ttl,
        without_redis: config.limits.without_redis,
    };
    let Some(redis) = redis else { return Admission::alone(settings, clock.clone()) };
    let leases = RedisLeases::new(redis.config().clone());
    let broker = Arc::clone(broker);
    let nudge = move |tag: NodeTag| {
        let broker = Arc::clone(&broker);
        // Only haste: a word that is lost costs half a second.
        tokio::spawn(async move { node::nudge(&*broker, tag).await });
    };
    Admission::clustered(settings, Arc::new(leases), clock.clone(), nudge)
}

fn hub_config(config: &Config) -> hub::Config {
    let streams = &config.streams;
    hub::Config {
        shards: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        heartbeat: streams.heartbeat,
        idle_timeout: streams.idle_timeout.unwrap_or_default(),
        max_age: streams.max_age.unwrap_or_default(),
        buffer_events: streams.buffer_events,
        buffer_bytes: streams.buffer_bytes,
        send_timeout: streams.send_timeout,
    }
}

fn node_config(config: &Config) -> node::Config {
    node::Config {
        node_id: config.node_id.as_str().into(),
        channels: config.channels.clone(),
        max_event_bytes: config.max_event_bytes,
        drain: config.drain,
        trace_links: config.trace_links,
        memory_limit: config.memory_limit,
    }
}

fn http_config(config: &Config, tokens: Option<Arc<Verifier>>, max_sockets: usize) -> http::Config {
    let allowed_origins = match &config.allowed_origins {
        Origins::Same => AllowedOrigins::Same,
        Origins::Any => AllowedOrigins::Any,
        Origins::These(list) => AllowedOrigins::These(list.iter().map(|o| o.as_str().into()).collect()),
    };
    let recognition =
        Recognition { api_keys: config.api_keys.clone(), tokens, require_token: config.require_token };
    http::Config {
        listen: config.listen,
        admin_listen: config.admin_listen,
        allowed_origins,
        recognition,
        trusted_proxies: config.trusted_proxies.clone(),
        max_sockets,
    }
}
