//! HTTP: the only room with status codes and headers.
//!
//! axum answers everything; a stream's answer is special only in its body, which takes the socket away from hyper once
//! the head is written ([`detach`]). What an event is and who may connect is decided in the node.

mod accept;
mod auth;
mod connections;
mod credentials;
mod dashboard;
mod detach;
mod drain;
mod error;
mod health;
mod identify;
mod jobs;
mod metrics;
mod origin;
mod pace;
mod publish;
mod query;
mod routes;
mod soft;
mod span;
mod stats;
mod streams;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::node::{Node, TrustedProxies};

pub use accept::{BindError, Server};
pub use auth::Recognition;
pub use origin::AllowedOrigins;
pub use pace::woke;

/// What the http room is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The public address.
    pub listen: SocketAddr,
    /// Where publishing, administration and probes are served instead.
    pub admin_listen: Option<SocketAddr>,
    /// Which web pages may talk to the node.
    pub allowed_origins: AllowedOrigins,
    /// Who may speak for a client's address.
    pub trusted_proxies: TrustedProxies,
    /// By what callers are recognised.
    pub recognition: Recognition,
    /// The greatest number of sockets, streams included.
    pub max_sockets: usize,
}

/// What the handlers share.
struct State {
    node: Arc<Node>,
    trusted_proxies: TrustedProxies,
    recognition: Recognition,
    allowed_origins: AllowedOrigins,
    /// Publishing and administration are on a loopback address.
    for_this_machine: bool,
    /// Places for streams of statistics.
    stats_streams: Arc<Semaphore>,
}

impl State {
    fn new(config: Config, node: Arc<Node>) -> Self {
        let Config { listen, admin_listen, allowed_origins, trusted_proxies, recognition, .. } = config;
        let for_this_machine = admin_listen.unwrap_or(listen).ip().is_loopback();
        let stats_streams = Arc::new(Semaphore::new(stats::MAX_STREAMS));
        Self { node, trusted_proxies, recognition, allowed_origins, for_this_machine, stats_streams }
    }
}
