//! Fanlight: a Redis-backed, horizontally scaled Server-Sent-Events fanout cluster.
//!
//! The map of the crate; ARCHITECTURE.md says how the rooms depend on each other and why.
//!
//! - [`protocol`]: the wire vocabulary as pure values.
//! - [`clock`]: the one place where time enters.
//! - [`hub`]: local fanout: shard threads, detached sockets, queues, timers.
//! - [`broker`]: pub/sub and history behind one trait, in memory or in Redis.
//! - [`redis`]: Redis connections, key names, scripts, backoff.
//! - [`admission`]: may this connection come in.
//! - [`auth`]: who a token speaks for.
//! - [`jobs`]: last known state and counts of jobs, from events.
//! - [`cluster`]: who is alive, and the totals.
//! - [`node`]: the use cases: subscribe, publish, interest, drain.
//! - [`http`]: routes, status codes, the accept loop, the detach.
//! - [`config`]: every setting, from flags, environment and file.
//! - [`cli`]: one module per command.
//! - [`telemetry`]: the log.
//! - [`app`]: builds the rooms and wires them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admission;
pub mod app;
pub mod auth;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod http;
pub mod hub;
pub mod jobs;
pub mod node;
pub mod protocol;
pub mod redis;
pub mod telemetry;
pub mod trace;
