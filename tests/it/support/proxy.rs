//! A TCP proxy that can be told to misbehave, to stand between a node and its Redis or a client and its node.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a [`TcpProxy`] does to the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Holds every piece back for so long, in both directions.
    Delay(Duration),
    /// Passes nothing on in either direction and closes nothing; what was sent meanwhile goes on when it ends.
    BlackHole,
    /// Passes requests on and throws the answers away. Cut before it ends: no network drops bytes out of the middle of a
    /// connection.
    SwallowAnswers,
    /// Closes every new connection at once.
    Refuse,
}

/// The connections that stand since the last cut.
#[derive(Clone, Debug, Default)]
struct Standing {
    cut: CancellationToken,
    relays: TaskTracker,
}

impl Standing {
    /// Cuts what stands and begins anew. When it returns, not a byte comes through any more.
    async fn cut(current: &watch::Sender<Self>) {
        let old = current.send_replace(Self::default());
        old.cut.cancel();
        old.relays.close();
        old.relays.wait().await;
    }
}

/// The proxy; all its connections are cut when it is dropped.
#[derive(Debug)]
pub(crate) struct TcpProxy {
    addr: SocketAddr,
    fault: watch::Sender<Fault>,
    standing: watch::Sender<Standing>,
    target: watch::Sender<SocketAddr>,
    tasks: JoinSet<()>,
}

impl TcpProxy {
    /// Listens on a free loopback port and passes everything on to `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (fault, faults) = watch::channel(Fault::None);
        let (standing, generations) = watch::channel(Standing::default());
        let (target, targets) = watch::channel(target);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, targets, faults, generations));
        Self { addr, fault, standing, target, tasks }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on, also on the connections that stand.
    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// New connections go to `target` from now on.
    pub(crate) fn redirect(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// Cuts every connection that stands.
    pub(crate) async fn cut(&self) {
        Standing::cut(&self.standing).await;
    }

    /// Cuts every connection once in every `period`, until the proxy is dropped.
    pub(crate) fn cut_every(&mut self, period: Duration) {
        let standing = self.standing.clone();
        self.tasks.spawn(async move {
            let mut ticks = interval(period);
            ticks.tick().await;
            loop {
                ticks.tick().await;
                Standing::cut(&standing).await;
            }
        });
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.standing.borrow().cut.cancel();
    }
}

async fn accept(
    listener: TcpListener,
    targets: watch::Receiver<SocketAddr>,
    faults: watch::Receiver<Fault>,
    generations: watch::Receiver<Standing>,
) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let (target, faults, standing) = (*targets.borrow(), faults.clone(), generations.borrow().clone());
        if *faults.borrow() == Fault::Refuse {
            continue;
        }
        standing.relays.spawn(async move {
            let _ = standing.cut.run_until_cancelled(relay(client, target, faults)).await;
        });
    }
}

async fn relay(client: TcpStream, target: SocketAddr, faults: watch::Receiver<Fault>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::join!(
        copy(from_client, to_server, faults.clone(), false),
        copy(from_server, to_client, faults, true)
    );
}

async fn copy(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<Fault>,
    answers: bool,
) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        if faults.wait_for(|fault| *fault != Fault::BlackHole).await.is_err() {
            return;
        }
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        // The fault may have begun while the read waited: the piece is held back with the rest.
        let Ok(fault) = faults.wait_for(|fault| *fault != Fault::BlackHole).await.map(|f| *f) else { return };
        match fault {
            Fault::SwallowAnswers if answers => continue,
            Fault::Delay(by) => sleep(by).await,
            _ => {}
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

mod tests {
    use super::*;
    use crate::support::redis::RedisServer;
    use crate::support::wait::secs;
    use tokio::time::timeout;

    async fn ask(stream: &mut TcpStream, within: Duration) -> Option<usize> {
        stream.write_all(b"PING\r\n").await.ok()?;
        let mut answer = [0; 7];
        timeout(within, stream.read_exact(&mut answer)).await.ok()?.ok()
    }

    #[tokio::test]
    async fn faults_act_on_connections_that_stand() {
        let redis = RedisServer::start().await;
        let proxy = TcpProxy::start(redis.addr()).await;
        let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut stream, secs(5)).await, Some(7));
        let short = Duration::from_millis(150);
        proxy.set(Fault::SwallowAnswers);
        assert_eq!(ask(&mut stream, short).await, None);
        proxy.set(Fault::BlackHole);
        assert_eq!(ask(&mut stream, short).await, None);
        proxy.set(Fault::None);
        let mut held_back = [0; 7];
        timeout(secs(5), stream.read_exact(&mut held_back)).await.unwrap().unwrap();
        assert_eq!(ask(&mut stream, secs(5)).await, Some(7));
        proxy.cut().await;
        assert_eq!(ask(&mut stream, secs(5)).await, None);
        proxy.set(Fault::Refuse);
        let mut refused = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(ask(&mut refused, secs(5)).await, None);
    }
}
