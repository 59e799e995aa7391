//! The harness: processes, clients and faults. It knows how to do things to a cluster and how to look at it; what must
//! hold stands in the tests.
#![allow(dead_code, reason = "a harness offers more than today's tests use")]

pub(crate) mod http;
pub(crate) mod leases;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod resuming;
pub(crate) mod sentinel;
pub(crate) mod sse;
pub(crate) mod swarm;
pub(crate) mod tls;
pub(crate) mod wait;
pub(crate) mod web_proxy;
mod wire;

#[allow(unused_imports, reason = "the short names for tests")]
pub(crate) use self::{
    http::{Request, Response},
    node::{Node, NodeBuilder},
    proxy::{Fault, TcpProxy},
    redis::{Persistence, RedisServer},
    sse::{Block, End, SseClient, SseRequest},
    swarm::Swarm,
    wait::{check, eventually, full, secs, stays},
};
