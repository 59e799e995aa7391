//! A RESP3 connection that carries commands and hands on what Redis pushes.
//!
//! The parser, the commands and the errors are redis-rs'; the connection is not, because each of redis-rs' own keeps the
//! name of every subscribed channel (in 1.8 `subscription_tracker.rs`), to subscribe it again or to unsubscribe all: 60
//! bytes and more for each, a third of what a channel costs in all, for what the supervisor does better.
//!
//! Two tasks: one writes requests in their order, the other reads. Answers come in the order of requests, pushes anywhere
//! between. Nothing is repeated and nothing reconnects; whatever is wrong ends the connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use combine::stream::Decoder;
use redis::aio::ConnectionLike;
use redis::io::tcp::{TcpSettings, socket2::SockRef};
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, PushKind, RedisConnectionInfo, RedisError,
    RedisFuture, Value,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use super::subscriber::Push;

/// How many requests wait to be written, and how many for their answers, at most; whoever has one more waits.
const REQUESTS: usize = 32;

type Answers = Result<Vec<Value>, RedisError>;

/// The connection. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    requests: mpsc::Sender<Request>,
    response_timeout: Duration,
    db: i64,
    _tasks: [AbortOnDropHandle<()>; 2],
}

#[derive(Debug)]
struct Request {
    bytes: Vec<u8>,
    waiting: Waiting,
}

/// Who waits for answers.
#[derive(Debug)]
struct Waiting {
    answers: Vec<Value>,
    expected: usize,
    /// One command with many answers: an error is the only one.
    error_is_all: bool,
    done: oneshot::Sender<Vec<Value>>,
}

impl Link {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When it has not done so within `connect_timeout`, or Redis refuses. It may repeat the password.
    pub(super) async fn connect(
        info: &ConnectionInfo,
        [connect_timeout, response_timeout]: [Duration; 2],
        push: impl Fn(Push) + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let connecting = async {
            let (db, sockets) = (info.redis_settings().db(), info.tcp_settings());
            let link = match info.addr() {
                ConnectionAddr::Tcp(host, port) => {
                    Self::over(tcp(host, *port, sockets).await?, response_timeout, db, push)
                }
                ConnectionAddr::TcpTls { host, port, insecure: false, .. } => {
                    Self::over(tls(host, tcp(host, *port, sockets).await?).await?, response_timeout, db, push)
                }
                other => Err((ErrorKind::InvalidClientConfig, "not supported", other.to_string()))?,
            };
            link.log_in(info.redis_settings()).await?;
            Ok(link)
        };
        timeout(connect_timeout, connecting).await.unwrap_or_else(|_| Err(late()))
    }

    fn over<S>(
        stream: S,
        response_timeout: Duration,
        db: i64,
        push: impl Fn(Push) + Send + Sync + 'static,
    ) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (from, to) = tokio::io::split(stream);
        let (requests, written) = mpsc::channel(REQUESTS);
        let (waiting, answered) = mpsc::channel(REQUESTS);
        let tasks = [tokio::spawn(read(from, answered, push)), tokio::spawn(write(to, written, waiting))];
        Self { requests, response_timeout, db, _tasks: tasks.map(AbortOnDropHandle::new) }
    }

    /// RESP3, the login and the database.
    async fn log_in(&self, settings: &RedisConnectionInfo) -> Result<(), RedisError> {
        let mut hello = redis::cmd("HELLO");
        hello.arg(3);
        if let Some(password) = settings.password() {
            hello.arg("AUTH").arg(settings.username().unwrap_or("default")).arg(password);
        }
        hello.exec_async(&mut &*self).await?;
        if self.db != 0 {
            redis::cmd("SELECT").arg(self.db).exec_async(&mut &*self).await?;
        }
        Ok(())
    }

    /// Sends a `SUBSCRIBE` or `UNSUBSCRIBE` of these channels and waits until every one is confirmed.
    ///
    /// # Errors
    /// When they are not in time, or refused.
    pub(super) async fn change(&self, command: &str, channels: &[String]) -> Result<(), RedisError> {
        if channels.is_empty() {
            return Ok(());
        }
        let bytes = redis::cmd(command).arg(channels).get_packed_command();
        let answers = self.request(bytes, channels.len(), true).await?;
        answers.into_iter().try_for_each(|answer| answer.extract_error().map(|_| ()))
    }

    async fn request(&self, bytes: Vec<u8>, expected: usize, error_is_all: bool) -> Answers {
        let (done, answers) = oneshot::channel();
        let waiting = Waiting { answers: Vec::new(), expected, error_is_all, done };
        let exchange = async {
            self.requests.send(Request { bytes, waiting }).await.map_err(|_| closed())?;
            answers.await.map_err(|_| closed())
        };
        timeout(self.response_timeout, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

impl ConnectionLike for &Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        let answers = self.request(command.get_packed_command(), 1, true);
        Box::pin(async move { answers.await?.pop().ok_or_else(closed) })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let answers = self.request(pipeline.get_packed_pipeline(), offset + count, false);
        Box::pin(async move { Ok(answers.await?.split_off(offset)) })
    }

    fn get_db(&self) -> i64 {
        self.db
    }
}

impl Waiting {
    /// Takes one answer; gives itself back when there are more to come.
    fn take(mut self, answer: Value) -> Option<Self> {
        let over = self.error_is_all && matches!(answer, Value::ServerError(_));
        self.answers.push(answer);
        if !over && self.answers.len() < self.expected {
            return Some(self);
        }
        // Whoever asked may have given up.
        let _ = self.done.send(self.answers);
        None
    }
}

/// Ends with the last request, or when the reader or the connection has.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut requests: mpsc::Receiver<Request>,
    waiting: mpsc::Sender<Waiting>,
) {
    while let Some(request) = requests.recv().await {
        // Before it is written, or the answer could come first.
        if waiting.send(request.waiting).await.is_err() {
            return;
        }
        if to.write_all(&request.bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
}

/// Ends with the connection, or at an answer that nobody waits for. Those who wait for others are told by their
/// channels' end.
async fn read(mut from: impl AsyncRead + Unpin, mut waiting: mpsc::Receiver<Waiting>, push: impl Fn(Push)) {
    let (mut decoder, mut first) = (Decoder::new(), None::<Waiting>);
    while let Ok(value) = redis::parse_redis_value_async(&mut decoder, &mut from).await {
        let answer = match value {
            Value::Push { kind: PushKind::Message, data } => {
                message(data).into_iter().for_each(&push);
                continue;
            }
            // One for each channel of the command.
            Value::Push { kind: PushKind::Subscribe | PushKind::Unsubscribe, .. } => Value::Okay,
            Value::Push { .. } => continue,
            answer => answer,
        };
        let Some(next) = first.take().or_else(|| waiting.try_recv().ok()) else { break };
        first = next.take(answer);
    }
    push(Push::Disconnected);
}

fn message(data: Vec<Value>) -> Option<Push> {
    let mut data = data.into_iter();
    match (data.next(), data.next()) {
        (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) => {
            Some(Push::Message { channel, payload })
        }
        _ => None,
    }
}

async fn tcp(host: &str, port: u16, settings: &TcpSettings) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(settings.nodelay())?;
    if let Some(keepalive) = settings.keepalive() {
        SockRef::from(&stream).set_tcp_keepalive(keepalive)?;
    }
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(settings.user_timeout())?;
    Ok(stream)
}

/// As redis-rs does: the machine's certificates, no certificate of our own.
async fn tls(host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, RedisError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

fn closed() -> RedisError {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection was closed").into()
}

fn late() -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into()
}
