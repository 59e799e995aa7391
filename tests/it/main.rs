//! Fanlight's behaviour tests: real nodes as processes, real `redis-server`s, real sockets.
//!
//! One binary, so that it links once. [`support`] is the harness; every other module is a promise of the outside.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(
    clippy::disallowed_methods,
    reason = "the rules on time and blocking are for the program, not for its tests"
)]

mod admission;
mod auth;
mod bad_input;
mod batches;
mod broker;
mod cli;
mod cluster;
mod dashboard;
mod delivery;
mod drain;
mod fanout;
mod foreign_parsers;
mod jobs;
mod leaks;
mod limits;
mod limits_of_files;
mod load_balancers;
mod logs;
mod metrics;
mod proxies;
mod redis_faults;
mod redis_secured;
mod redis_settings;
mod resume;
mod rooms;
mod sampling;
mod sentinel;
mod slow_consumer;
mod support;
mod traces;
