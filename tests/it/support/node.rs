//! A Fanlight node as a process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Request, Response};
use super::process::{Process, free_port, loopback};
use super::redis::RedisServer;
use super::sse::SseClient;
use super::wait::{check, eventually, secs};

/// The program under test.
pub(crate) const FANLIGHT: &str = env!("CARGO_BIN_EXE_fanlight");

/// The program with none of the settings of whoever runs the tests.
pub(crate) fn fanlight() -> Command {
    cleared(Command::new(FANLIGHT))
}

/// The program under another limit; prlimit becomes it, so the process id is the same.
fn through_prlimit(limit: &str) -> Command {
    let mut command = Command::new("prlimit");
    command.args([limit, FANLIGHT]);
    cleared(command)
}

fn cleared(mut command: Command) -> Command {
    let foreign = |name: &OsString| {
        let name = name.to_string_lossy();
        ["FANLIGHT_", "SSE_", "OTEL_"].iter().any(|p| name.starts_with(p))
            || name == "REDIS_URL"
            || name == "PORT"
    };
    std::env::vars_os().filter(|(name, _)| foreign(name)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.stdin(Stdio::null());
    command
}

/// Settings for a node to come.
#[derive(Clone, Debug)]
pub(crate) struct NodeBuilder {
    settings: Vec<(String, String)>,
    args: Vec<String>,
    open_files: Option<(u64, u64)>,
    admin: bool,
}

impl NodeBuilder {
    /// One more setting, by its environment name; a later one wins.
    pub(crate) fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// One more argument after `serve`.
    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// On this Redis, with its test's prefix.
    pub(crate) fn redis(self, redis: &RedisServer) -> Self {
        self.redis_at(&redis.url(), redis.prefix())
    }

    /// On the Redis behind `url`, for example behind a [`TcpProxy`](super::TcpProxy).
    pub(crate) fn redis_at(self, url: &str, prefix: &str) -> Self {
        self.set("FANLIGHT_REDIS_URL", url).set("FANLIGHT_REDIS_PREFIX", prefix)
    }

    /// With these soft and hard limits of open files.
    pub(crate) fn open_files(mut self, soft: u64, hard: u64) -> Self {
        self.open_files = Some((soft, hard));
        self
    }

    /// With an address of its own for publishing, administration and probes.
    pub(crate) fn admin(mut self) -> Self {
        self.admin = true;
        self
    }

    /// Starts it and waits until `/readyz` is 200.
    pub(crate) async fn start(self) -> Node {
        let mut node = self.start_unready().await;
        node.ready(secs(20)).await;
        node
    }

    /// Starts it and waits until `/livez` is 200: for nodes without a Redis that works.
    pub(crate) async fn start_unready(self) -> Node {
        loop {
            let mut node = self.spawn(free_port(), self.admin.then(free_port));
            // Somebody else may take the port between the look and the start: then the node ends and says so.
            if node.lives().await {
                return node;
            }
            assert!(
                node.log().to_lowercase().contains("in use"),
                "the node ended at its start:\n{}",
                node.log()
            );
        }
    }

    fn spawn(&self, port: u16, admin: Option<u16>) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("node.log");
        let output = std::fs::File::create(&log).unwrap();
        let mut command = match self.open_files {
            None => fanlight(),
            Some((soft, hard)) => through_prlimit(&format!("--nofile={soft}:{hard}")),
        };
        command
            .arg("serve")
            .args(&self.args)
            .env("FANLIGHT_LISTEN", loopback(port).to_string())
            .envs(admin.map(|port| ("FANLIGHT_ADMIN_LISTEN", loopback(port).to_string())))
            .envs(self.settings.iter().cloned())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let (addr, admin) = (loopback(port), loopback(admin.unwrap_or(port)));
        Node { process: Process::spawn(&mut command), addr, admin, log, _dir: dir }
    }
}

/// A running node; killed when dropped. Its output is printed when the test fails.
#[derive(Debug)]
pub(crate) struct Node {
    process: Process,
    addr: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    _dir: TempDir,
}

impl Node {
    /// A node with an embedded broker, unless told otherwise. Everybody here has one address, so limits per address are
    /// off; tests of the limits set them.
    pub(crate) fn builder() -> NodeBuilder {
        NodeBuilder { settings: Vec::new(), args: Vec::new(), open_files: None, admin: false }
            .set("FANLIGHT_LOG", "info,fanlight=debug")
            .set("FANLIGHT_MAX_PER_IP", 0)
            .set("FANLIGHT_MAX_PER_SESSION", 0)
            .set("FANLIGHT_CONNECT_RATE_PER_IP", 0)
    }

    /// A ready node on `redis` with `settings`.
    pub(crate) async fn start(redis: &RedisServer, settings: &[(&str, &str)]) -> Self {
        let builder = Self::builder().redis(redis);
        settings.iter().fold(builder, |builder, (name, value)| builder.set(name, value)).start().await
    }

    /// `count` ready nodes on `redis` with the same `settings`.
    pub(crate) async fn cluster(redis: &RedisServer, count: usize, settings: &[(&str, &str)]) -> Vec<Self> {
        join_all((0..count).map(|_| Self::start(redis, settings))).await
    }

    /// Its public address.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it is administered; its public address unless told otherwise.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// `http://127.0.0.1:<port>`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The process behind it.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Everything that it has printed.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `/readyz` is 200.
    pub(crate) async fn ready(&mut self, within: Duration) {
        let addr = self.admin;
        let process = &mut self.process;
        eventually("/readyz is 200", within, async || {
            if let Some(status) = process.status() {
                panic!("the node ended: {status}");
            }
            match Request::get("/readyz").send(addr).await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(format!("{} {}", answer.status(), answer.text())),
                Err(e) => Err(e),
            }
        })
        .await;
    }

    /// Waits until `/health` says that it is well: on a busy machine a node may judge itself slow for a moment.
    pub(crate) async fn healthy(&self, within: Duration) {
        eventually("the node is healthy", within, async || {
            let health = self.get("/health").await;
            check(health.json()["status"] == "healthy", health.text())
        })
        .await;
    }

    /// Waits until `/livez` is 200; false when the process ended instead.
    async fn lives(&mut self) -> bool {
        let addr = self.admin;
        let process = &mut self.process;
        eventually("/livez is 200", secs(20), async || {
            if process.status().is_some() {
                return Ok(false);
            }
            match Request::get("/livez").send(addr).await {
                Ok(answer) if answer.status() == 200 => Ok(true),
                Ok(answer) => Err(format!("{} {}", answer.status(), answer.text())),
                Err(e) => Err(e),
            }
        })
        .await
    }

    /// The answer to `request`.
    pub(crate) async fn send(&self, request: &Request) -> Response {
        request.send(self.addr).await.unwrap_or_else(|e| panic!("{request:?}: {e}"))
    }

    /// The answer to `GET path`.
    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(&Request::get(path)).await
    }

    /// Publishes through `POST /api/events`; returns the position.
    pub(crate) async fn publish(&self, channel: &str, event: &str, data: &Value) -> String {
        let body = json!({ "channel": channel, "event": event, "data": data });
        let answer = Request::post("/api/events", &body).send(self.admin).await.unwrap();
        assert_eq!(answer.status(), 202, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// Opens `path` as a stream and reads its first block.
    pub(crate) async fn subscribe(&self, path: &str) -> SseClient {
        let mut client = SseClient::open(self.addr, path).await;
        let hello = client.next_event(secs(10)).await.expect("a first block");
        assert_eq!(hello.json()["type"], "hello", "{hello:?}");
        client
    }

    /// How many files it has open, without its connections to `redis` (which must have no other clients but redis-cli): a
    /// bounded pool has as many as it once needed at the same time.
    pub(crate) async fn open_files(&self, redis: &RedisServer) -> usize {
        let to_redis: usize = redis.info("connected_clients").await.parse().unwrap();
        // One of them is redis-cli's own.
        self.process.open_files() + 1 - to_redis
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&mut self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// SIGSTOP: it keeps its sockets and does nothing.
    pub(crate) fn pause(&mut self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        self.process.wait(within).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- node {} ---\n{}", self.addr, self.log());
        }
    }
}
