//! A real `redis-server` of one's own, and the ways in which it can go wrong.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use fanlight::protocol::durable;
use fanlight::protocol::event::{Event, EventType};
use fanlight::protocol::position::Position;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::{Process, free_port, loopback, unique};
use super::wait::{eventually, secs};

/// What a Redis remembers over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing.
    None,
    /// Everything that it acknowledged (append-only file, synced at every write).
    Aof,
}

/// A `redis-server` process on a free loopback port, with its own directory; gone when dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    dir: TempDir,
    port: u16,
    prefix: String,
    persistence: Persistence,
    extra: Vec<String>,
    process: Process,
}

impl RedisServer {
    /// One without persistence.
    pub(crate) async fn start() -> Self {
        Self::start_with(Persistence::None, &[]).await
    }

    /// One with `persistence` and further command-line options, for example `["--maxmemory", "4mb"]`.
    pub(crate) async fn start_with(persistence: Persistence, extra: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let extra: Vec<String> = extra.iter().map(ToString::to_string).collect();
        loop {
            let port = free_port();
            let mut process = spawn(&dir, port, persistence, &extra);
            // Somebody else may take the port between the look and the start: then it ends at once.
            if answers(&mut process, port).await {
                return Self { dir, port, prefix: unique("t") + ":", persistence, extra, process };
            }
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// `redis://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// The key prefix of this test, ending in `:`.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The Redis name (pub/sub channel or key) of `name` under this test's prefix.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Puts an event into the history of a channel as the script does, and publishes nothing.
    pub(crate) async fn append_in_silence(&self, channel: &str, data: &str) -> Position {
        let (clock, index) = (self.key("@clock"), self.key("@index"));
        let epoch: u64 = self.cli(&["HGET", &clock, "epoch"]).await.parse().unwrap();
        let n = self.cli(&["HINCRBY", &clock, "n", "3"]).await.parse().unwrap();
        let last = self.cli(&["ZSCORE", &index, channel]).await.parse().ok();
        let event = Event { kind: Some(EventType::parse("lost").unwrap()), ..Event::unnamed(data) };
        let position = Position { epoch, n };
        let frame = String::from_utf8(durable::encode(position, last, &event)).unwrap();
        self.cli(&["XADD", &self.key(&format!("@h:{channel}")), &format!("{n}-0"), "f", &frame]).await;
        self.cli(&["ZADD", &index, &n.to_string(), channel]).await;
        position
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same port with what it remembers; kills it first if it runs.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.dir, self.port, self.persistence, &self.extra);
        assert!(
            answers(&mut self.process, self.port).await,
            "redis-server did not come back:\n{}",
            self.log()
        );
    }

    /// Starts it again on the same port with nothing in it.
    pub(crate) async fn restart_empty(&mut self) {
        self.kill();
        self.dir = tempfile::tempdir().unwrap();
        self.restart().await;
    }

    /// SIGSTOP: it stays connected and answers nothing.
    pub(crate) fn pause(&mut self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// What `redis-cli` prints for `args`, without the last line end; `Err` for an error or no answer within 5 s.
    pub(crate) async fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let mut command = tokio::process::Command::new("redis-cli");
        command.args(["-e", "-p", &self.port.to_string()]).args(args).stdin(Stdio::null()).kill_on_drop(true);
        let output =
            timeout(secs(5), command.output()).await.map_err(|_| format!("no answer to {args:?}"))?.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(format!("{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// What `redis-cli` prints for `args`.
    ///
    /// # Panics
    /// On an error or when no answer comes.
    pub(crate) async fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args).await.unwrap_or_else(|e| panic!("redis-cli {e}"))
    }

    /// Plain `PUBLISH` to the channel `name` under this test's prefix; returns how many connections heard it.
    pub(crate) async fn publish(&self, name: &str, payload: &str) -> u64 {
        self.cli(&["PUBLISH", &self.key(name), payload]).await.parse().unwrap()
    }

    /// A connection for publishing much: plain `PUBLISH` under this test's prefix, without a process for each.
    pub(crate) fn publisher(&self) -> Publisher {
        Publisher { addr: self.addr(), prefix: self.prefix.clone(), stream: None }
    }

    /// How many connections are subscribed to the channel `name` under this test's prefix.
    pub(crate) async fn subscribers(&self, name: &str) -> u64 {
        let answer = self.cli(&["PUBSUB", "NUMSUB", &self.key(name)]).await;
        answer.lines().next_back().unwrap().parse().unwrap()
    }

    /// Waits until `count` connections are subscribed to `name`.
    pub(crate) async fn has_subscribers(&self, name: &str, count: u64, within: Duration) {
        eventually(&format!("{count} subscriptions of {name}"), within, async || {
            match self.subscribers(name).await {
                found if found == count => Ok(()),
                found => Err(found),
            }
        })
        .await;
    }

    /// The field `name` of `INFO`.
    pub(crate) async fn info(&self, name: &str) -> String {
        let all = self.cli(&["INFO", "everything"]).await;
        let value = all.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {name} in INFO")).to_owned()
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }
}

/// A connection to Redis that publishes, and connects again after an error.
#[derive(Debug)]
pub(crate) struct Publisher {
    addr: SocketAddr,
    prefix: String,
    stream: Option<BufReader<TcpStream>>,
}

impl Publisher {
    /// Plain `PUBLISH` of `payload` to the channel `name`; how many connections heard it, or `Err` when no answer comes
    /// within a second.
    pub(crate) async fn publish(&mut self, name: &str, payload: &[u8]) -> Result<u64, String> {
        let answer = timeout(secs(1), self.exchange(name, payload)).await;
        let answer = answer.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        if answer.is_err() {
            self.stream = None;
        }
        let answer = answer.map_err(|e| e.to_string())?;
        let count = answer.strip_prefix(':').and_then(|count| count.trim_end().parse().ok());
        count.ok_or_else(|| format!("Redis answered {answer:?}"))
    }

    async fn exchange(&mut self, name: &str, payload: &[u8]) -> std::io::Result<String> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(BufReader::new(TcpStream::connect(self.addr).await?)),
        };
        let channel = format!("{}{name}", self.prefix);
        let mut command = format!("*3\r\n$7\r\nPUBLISH\r\n${}\r\n{channel}\r\n", channel.len()).into_bytes();
        command.extend_from_slice(format!("${}\r\n", payload.len()).as_bytes());
        command.extend_from_slice(payload);
        command.extend_from_slice(b"\r\n");
        stream.write_all(&command).await?;
        let mut answer = String::new();
        match stream.read_line(&mut answer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(answer),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- redis-server {} ---\n{}", self.port, self.log());
        }
    }
}

fn spawn(dir: &TempDir, port: u16, persistence: Persistence, extra: &[String]) -> Process {
    let appendonly = if persistence == Persistence::Aof { "yes" } else { "no" };
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--logfile", "redis.log"])
        .args(["--appendonly", appendonly, "--appendfsync", "always"])
        .arg("--dir")
        .arg(dir.path())
        .args(extra)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Process::spawn(&mut command)
}

/// Waits until it answers `PING`; false when it ended instead.
async fn answers(process: &mut Process, port: u16) -> bool {
    eventually("redis-server answers", secs(20), async || {
        if process.status().is_some() {
            return Ok(false);
        }
        ping(port).await.map(|()| true)
    })
    .await
}

async fn ping(port: u16) -> Result<(), String> {
    let mut stream = TcpStream::connect(loopback(port)).await.map_err(|e| e.to_string())?;
    stream.write_all(b"PING\r\n").await.map_err(|e| e.to_string())?;
    let mut answer = [0; 7];
    let read = timeout(secs(1), stream.read_exact(&mut answer)).await.map_err(|e| e.to_string())?;
    read.map_err(|e| e.to_string())?;
    if &answer == b"+PONG\r\n" { Ok(()) } else { Err(String::from_utf8_lossy(&answer).into_owned()) }
}

mod tests {
    use super::*;

    #[tokio::test]
    async fn a_redis_keeps_only_what_its_persistence_promises() {
        let mut kept = RedisServer::start_with(Persistence::Aof, &[]).await;
        let mut lost = RedisServer::start().await;
        for redis in [&mut kept, &mut lost] {
            redis.cli(&["SET", "a", "1"]).await;
            redis.restart().await;
        }
        assert_eq!(kept.cli(&["GET", "a"]).await, "1");
        assert_eq!(lost.cli(&["GET", "a"]).await, "");
        kept.restart_empty().await;
        assert_eq!(kept.cli(&["GET", "a"]).await, "");
    }

    #[tokio::test]
    async fn a_paused_redis_answers_nothing_until_it_goes_on() {
        let mut redis = RedisServer::start().await;
        redis.pause();
        let mut stream = TcpStream::connect(redis.addr()).await.unwrap();
        stream.write_all(b"PING\r\n").await.unwrap();
        let mut answer = [0; 7];
        assert!(timeout(Duration::from_millis(200), stream.read_exact(&mut answer)).await.is_err());
        redis.resume();
        eventually("it answers", secs(5), async || ping(redis.port).await).await;
        assert_eq!(redis.info("redis_mode").await, "standalone");
    }
}
