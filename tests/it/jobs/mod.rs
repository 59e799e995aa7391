//! The states of jobs: what both stores promise, and what a cluster shows of events from every source.

mod contract;
mod node;
mod redis;
mod said;
