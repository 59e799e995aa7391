//! The accept loop and the life of a socket until it is a stream or gone.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Config, State, detach, routes};
use crate::node::Node;

/// Connections that the kernel may hold for us. A restart brings thousands at once; with the usual 1024 the others wait a
/// second for their lost SYN. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 16_384;

/// How often a node without a free file looks for one.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// How long requests under way may still take when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A bound listener with its routes.
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    connections: Connections,
}

/// Everything that a new socket needs, and the tasks of those that are open.
#[derive(Clone)]
struct Connections {
    node: Arc<Node>,
    router: Router,
    tasks: TaskTracker,
    stop: CancellationToken,
    max_sockets: usize,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(config: Config, node: Arc<Node>) -> io::Result<Self> {
        let listener = listen(config.listen)?;
        let local = listener.local_addr()?;
        let max_sockets = config.max_sockets;
        let state = State {
            node: Arc::clone(&node),
            api_keys: config.api_keys,
            allowed_origins: config.allowed_origins,
            was_ready: AtomicBool::new(false),
        };
        let connections = Connections {
            node,
            router: routes::router(Arc::new(state)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            max_sockets,
        };
        Ok(Self { listener, local, connections })
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Accepts until `closed`, then closes the listener; requests on open connections are still answered until `done`.
    /// All of its tasks have ended when this returns.
    pub async fn run(self, closed: CancellationToken, done: CancellationToken) {
        let Self { listener, connections, .. } = self;
        closed.run_until_cancelled(accept_all(listener, &connections)).await;
        done.cancelled().await;
        connections.stop.cancel();
        connections.tasks.close();
        if timeout(STOP_LIMIT, connections.tasks.wait()).await.is_err() {
            tracing::warn!(connections = connections.tasks.len(), "requests under way were cut at the end");
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted node takes its port back while old connections are still in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn accept_all(listener: TcpListener, connections: &Connections) {
    let mut complained = false;
    loop {
        if connections.is_full() {
            complain(&mut complained, "every file that sockets may have is in use");
            tokio::time::sleep(FULL_PAUSE).await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                complained = false;
                connections.open(stream, peer);
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                complain(&mut complained, &error.to_string());
                tokio::time::sleep(FULL_PAUSE).await;
            }
        }
    }
}

/// Once per time of trouble, not once per try.
fn complain(complained: &mut bool, reason: &str) {
    if !std::mem::replace(complained, true) {
        tracing::warn!(reason, "cannot accept connections; they wait until it is over");
    }
}

/// The connection died in the queue (accept(2)); the next one may be fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

impl Connections {
    /// Streams keep their seat until their socket is gone; everything else is a task here.
    fn is_full(&self) -> bool {
        self.tasks.len() + self.node.seats_taken() >= self.max_sockets
    }

    fn open(&self, stream: TcpStream, peer: SocketAddr) {
        let (node, router, stop) = (Arc::clone(&self.node), self.router.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let Some(detached) = detach::serve(stream, peer, router, stop).await else { return };
            let (attachment, socket) = detached;
            if node.attach(attachment, socket).await.is_none() {
                tracing::debug!(%peer, "the client left during the handover");
            }
        });
    }
}
