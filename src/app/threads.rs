//! Two sets of threads, so that live delivery goes first.
//!
//! After a node has died, thousands of clients come to the others at once. On the same threads an event would wait behind
//! their handshakes at each of its steps; on threads of the same priority the shards would get half of a core that they
//! need. The kernel sees to both when the handshakes have threads of their own, with a lower priority. Where nothing is
//! live they have the machine for themselves. When exactly they step back is their own doing ([`http::woke`]). Connections
//! to Redis belong to the events, whoever asks for them ([`Commands`](crate::redis::Commands)).

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::http;

/// How much lower the priority of the handshakes is (nice(2), for Linux a matter of each thread): beside a shard that never
/// rests they get a tenth of its core, so that probes are answered there too.
const STEP_BACK: i32 = 10;

/// For the way of the events: Redis, the broker, the node's own tasks. The shards have threads besides.
///
/// # Errors
/// When the system gives no threads.
pub(super) fn for_events() -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().thread_name("fanlight").build()
}

/// For sockets that are not streams yet, and for requests.
///
/// # Errors
/// When the system gives no threads.
pub(super) fn for_requests() -> io::Result<Runtime> {
    let step_back = || {
        if let Err(error) = rustix::process::nice(STEP_BACK) {
            tracing::debug!(%error, "handshakes keep the priority of live delivery");
        }
    };
    Builder::new_multi_thread()
        .enable_all()
        .thread_name("fanlight-http")
        .on_thread_start(step_back)
        .on_thread_unpark(http::woke)
        .build()
}

/// Does something whose sockets and tasks are to be those of `threads`.
pub(super) fn within<T>(threads: &Handle, work: impl FnOnce() -> T) -> T {
    let _entered = threads.enter();
    work()
}
