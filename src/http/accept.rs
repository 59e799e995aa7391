//! The accept loop and the life of a socket until it is a stream or gone.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::unconstrained;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Config, State, detach, pace, routes};
use crate::node::Node;

/// Connections that the kernel may hold for us. A restart brings thousands at once; with the usual 1024 the others wait a
/// second for their lost SYN. The kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 16_384;

/// How often a node without a free file looks for one.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// How long requests under way may still take when the server stops.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Sockets kept for the admin address, so that clients cannot shut out who looks after the node.
const ADMIN_SOCKETS: usize = 64;

/// The bound addresses with their routes.
pub struct Server {
    public: Listener,
    admin: Option<Listener>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// One bound address.
struct Listener {
    socket: TcpListener,
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
    /// Binds the addresses.
    ///
    /// # Errors
    /// When one cannot be bound; which one is in the error.
    pub fn bind(config: Config, node: Arc<Node>) -> Result<Self, BindError> {
        let Config { listen, admin_listen, max_sockets, .. } = config;
        let state = Arc::new(State::new(config, Arc::clone(&node)));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let connections = |router, max_sockets| {
            let (node, tasks, stop) = (Arc::clone(&node), tasks.clone(), stop.clone());
            Connections { node, router, tasks, stop, max_sockets }
        };
        let Some(admin) = admin_listen else {
            let public =
                Listener::bind(listen, LISTEN, connections(routes::everything(&state), max_sockets))?;
            return Ok(Self { public, admin: None, tasks, stop });
        };
        let for_clients = max_sockets - ADMIN_SOCKETS.min(max_sockets / 4);
        let public = Listener::bind(listen, LISTEN, connections(routes::public(&state), for_clients))?;
        let admin = Listener::bind(admin, ADMIN_LISTEN, connections(routes::admin(&state), max_sockets))?;
        Ok(Self { public, admin: Some(admin), tasks, stop })
    }

    /// The public address.
    pub const fn local_addr(&self) -> SocketAddr {
        self.public.local
    }

    /// The admin address, where it is another one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.local)
    }

    /// Accepts on the public address until `closed`, and on the admin address until `done`; requests on open connections
    /// are answered until then. All of its tasks have ended when this returns.
    pub async fn run(self, closed: CancellationToken, done: CancellationToken) {
        let Self { public, admin, tasks, stop } = self;
        let accept_admin = async {
            match admin {
                Some(admin) => drop(done.run_until_cancelled(admin.accept_all()).await),
                None => done.cancelled().await,
            }
        };
        // Unconstrained: in a storm the kernel's queue must be emptied first, or the clients that it has no room for wait a
        // second for their lost SYN. Accepting costs microseconds and ends when nobody waits.
        let accept_public = unconstrained(public.accept_all());
        tokio::join!(closed.run_until_cancelled(accept_public), accept_admin);
        stop.cancel();
        tasks.close();
        if timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests under way were cut at the end");
        }
    }
}

const LISTEN: &str = "--listen (FANLIGHT_LISTEN)";
const ADMIN_LISTEN: &str = "--admin-listen (FANLIGHT_ADMIN_LISTEN)";

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}; {setting} chooses another address")]
pub struct BindError {
    address: SocketAddr,
    setting: &'static str,
    source: io::Error,
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted node takes its port back while old connections are still in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl Listener {
    fn bind(address: SocketAddr, setting: &'static str, connections: Connections) -> Result<Self, BindError> {
        let bound = listen(address).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (local, socket) = bound.map_err(|source| BindError { address, setting, source })?;
        Ok(Self { socket, local, connections })
    }

    async fn accept_all(self) {
        let Self { socket, connections, .. } = self;
        let mut complained = false;
        loop {
            if connections.is_full() {
                complain(&mut complained, "every file that sockets may have is in use");
                tokio::time::sleep(FULL_PAUSE).await;
                continue;
            }
            match socket.accept().await {
                Ok((stream, peer)) => {
                    complained = false;
                    connections.open(stream, peer);
                    pace::breathe(connections.node.clock());
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    complain(&mut complained, &error.to_string());
                    tokio::time::sleep(FULL_PAUSE).await;
                }
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
        self.tasks.len() + self.node.streams() >= self.max_sockets
    }

    fn open(&self, stream: TcpStream, peer: SocketAddr) {
        let (node, router, stop) = (Arc::clone(&self.node), self.router.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            let mut life = pin!(live(&node, stream, peer, router, stop));
            poll_fn(|cx| {
                let step = life.as_mut().poll(cx);
                pace::breathe(node.clock());
                step
            })
            .await;
        });
    }
}

/// The life of a socket until it is a stream or gone.
async fn live(node: &Node, stream: TcpStream, peer: SocketAddr, router: Router, stop: CancellationToken) {
    node.room_for_handshake().await;
    let Some(detached) = detach::serve(stream, peer, router, stop).await else { return };
    let (attachment, socket) = detached;
    let id = attachment.id;
    if node.attach(attachment, socket).await.is_none() {
        tracing::debug!(connection = %id, %peer, "the client left during the handover");
    }
}
