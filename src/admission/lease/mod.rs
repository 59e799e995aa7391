//! The cluster-wide counts: one lease per node in Redis, and the protocol that keeps them exact.
//!
//! A lease is one hash per node: its counts by key, its last call's number, and a time to live that the node's heartbeat
//! renews. One script tells the node's counts and decides about its newcomers by summing over the leases of all members,
//! as one step. `docs/limits.md` says what that guarantees and why; `tests/it/admission` proves it.
//!
//! - [`state`]: the node's half of the protocol, pure.
//! - [`call`], [`reply`]: the scripts' arguments and answers as values.
//! - [`store`]: where the scripts run.
//! - [`writer`]: the task that makes one call at a time.
//!
//! It does not know what a connection is, and it never closes one: it only says which must go.

pub mod call;
pub mod reply;
pub mod state;
pub mod store;
pub(super) mod writer;
