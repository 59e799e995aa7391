//! A Redis with a replica and three sentinels, and the ways in which its master changes.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::process::{Process, free_port};
use super::redis::{Persistence, RedisServer};
use super::wait::{check, eventually, secs};

/// The name under which the sentinels know the master.
pub(crate) const SERVICE: &str = "mymaster";

/// How a master stops being one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failover {
    /// `kill -9`.
    Kill,
    /// SIGSTOP: connections to it stay open.
    Stop,
    /// `SENTINEL FAILOVER`: it lives on as a replica.
    Planned,
}

/// Two `redis-server`s, one of them a replica, under three sentinels; gone when dropped.
#[derive(Debug)]
pub(crate) struct Sentinels {
    servers: Vec<RedisServer>,
    master: usize,
    /// The ports of all, and those that answer.
    ports: Vec<u16>,
    sentinels: Vec<(u16, Process)>,
    stopped: Vec<Process>,
    dir: TempDir,
}

impl Sentinels {
    /// Starts everything and waits until every sentinel knows the replica and the other sentinels.
    pub(crate) async fn start() -> Self {
        let master = RedisServer::start().await;
        let replica = RedisServer::start_with(Persistence::None, &[]).await;
        let dir = tempfile::tempdir().unwrap();
        let sentinels: Vec<_> = (0..3).map(|_| sentinel(&dir, master.addr().port())).collect();
        let ports = sentinels.iter().map(|(port, _)| *port).collect();
        let servers = vec![master, replica];
        let this = Self { servers, master: 0, ports, sentinels, stopped: Vec::new(), dir };
        this.replicate().await;
        for (port, _) in &this.sentinels {
            eventually("a sentinel knows the others", secs(20), async || {
                let known = ask(*port, &["SENTINEL", "MASTER", SERVICE]).await;
                let fields: Vec<&str> = known.lines().collect();
                let value = |name: &str| fields.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
                let all = (value("num-other-sentinels"), value("num-slaves")) == (Some("2"), Some("1"));
                check(all, known.replace('\n', " "))
            })
            .await;
        }
        this
    }

    /// The URL for a node.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+sentinel://{}/{SERVICE}", hosts.join(","))
    }

    /// The key prefix of this test.
    pub(crate) fn prefix(&self) -> &str {
        self.servers[0].prefix()
    }

    /// The server that is the master.
    pub(crate) fn master(&self) -> &RedisServer {
        &self.servers[self.master]
    }

    /// Stops the sentinel that the URL names first (SIGSTOP): one can connect to it, and it does not answer. The others
    /// are still a majority.
    pub(crate) fn stop_first_sentinel(&mut self) {
        let (_, mut process) = self.sentinels.remove(0);
        process.signal(Signal::SIGSTOP);
        self.stopped.push(process);
    }

    /// Ends the master's being one, and waits until a sentinel names the other server and that agrees.
    pub(crate) async fn fail_over(&mut self, how: Failover) {
        let next = 1 - self.master;
        match how {
            Failover::Kill => self.servers[self.master].kill(),
            Failover::Stop => self.servers[self.master].pause(),
            Failover::Planned => {
                let asked = ask(self.one_sentinel(), &["SENTINEL", "FAILOVER", SERVICE]).await;
                assert_eq!(asked, "OK");
            }
        }
        let port = self.servers[next].addr().port().to_string();
        // When two sentinels both want to lead the failover neither does, and they wait for six seconds.
        eventually("the replica is the master", secs(60), async || {
            let named = ask(self.one_sentinel(), &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await;
            check(named.lines().nth(1) == Some(&port), self.last_words())?;
            let role = self.servers[next].cli(&["ROLE"]).await;
            check(role.starts_with("master"), role.replace('\n', " "))
        })
        .await;
        self.master = next;
    }

    /// The server that was the master becomes a replica, and all sentinels agree.
    pub(crate) async fn heal(&mut self, how: Failover) {
        let old = 1 - self.master;
        match how {
            Failover::Kill => self.servers[old].restart().await,
            Failover::Stop => self.servers[old].resume(),
            Failover::Planned => {}
        }
        self.replicate().await;
        let port = self.master().addr().port().to_string();
        for (sentinel, _) in &self.sentinels {
            eventually("a sentinel sees master and replica", secs(30), async || {
                let named = ask(*sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await;
                check(named.lines().nth(1) == Some(&port), named.replace('\n', " "))?;
                let replicas = ask(*sentinel, &["SENTINEL", "REPLICAS", SERVICE]).await;
                let flags = replicas.lines().skip_while(|line| *line != "flags").nth(1).unwrap_or("none");
                let quality = replicas.lines().skip_while(|line| *line != "master-link-status").nth(1);
                check(flags == "slave" && quality == Some("ok"), format!("{flags} {quality:?}"))
            })
            .await;
        }
    }

    /// Makes the other server follow the master, and waits until it has everything.
    async fn replicate(&self) {
        let (master, replica) = (self.master(), &self.servers[1 - self.master]);
        let port = master.addr().port().to_string();
        eventually("the replica is in step", secs(30), async || {
            // Sentinel does the same, some ten seconds later.
            replica.try_cli(&["REPLICAOF", "127.0.0.1", &port]).await?;
            eventually("the link is up", secs(10), async || {
                let role = replica.cli(&["ROLE"]).await;
                check(role.contains("connected"), role.replace('\n', " "))
            })
            .await;
            Ok::<(), String>(())
        })
        .await;
    }

    /// The ends of the sentinels' logs.
    fn last_words(&self) -> String {
        let log = |port: &u16| {
            std::fs::read_to_string(self.dir.path().join(format!("{port}.log"))).unwrap_or_default()
        };
        let end = |port| log(port).lines().rev().take(12).map(|line| format!("\n{line}")).collect::<String>();
        self.ports.iter().map(end).collect::<Vec<_>>().join("\n--")
    }

    fn one_sentinel(&self) -> u16 {
        self.sentinels[0].0
    }
}

/// A sentinel rewrites its file, so each has its own.
fn sentinel(dir: &TempDir, master: u16) -> (u16, Process) {
    let port = free_port();
    let file = dir.path().join(format!("{port}.conf"));
    let lines = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nlogfile {port}.log\nsentinel monitor {SERVICE} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 3000\n",
        dir.path().display()
    );
    std::fs::write(&file, lines).unwrap();
    let mut command = Command::new("redis-sentinel");
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    (port, Process::spawn(&mut command))
}

/// What a sentinel answers, or why it does not.
async fn ask(port: u16, args: &[&str]) -> String {
    let mut command = tokio::process::Command::new("redis-cli");
    command.args(["-p", &port.to_string()]).args(args).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(Duration::from_secs(2), command.output()).await {
        Ok(output) => String::from_utf8_lossy(&output.unwrap().stdout).trim_end().to_owned(),
        Err(_) => "no answer".to_owned(),
    }
}
