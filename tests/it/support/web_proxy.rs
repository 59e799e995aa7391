//! nginx, HAProxy and Caddy: as people put them in front of a node, with nothing set for streams, or with a configuration.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::process::{Process, free_port, loopback};
use super::wait::{eventually, secs};

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// nginx with a bare `proxy_pass`: HTTP/1.0 to the node, buffering on.
    NginxDefault,
    /// nginx with `proxy_http_version 1.1`.
    Nginx11,
    /// HAProxy in HTTP mode.
    HaProxy,
    /// Caddy, which needs a configuration.
    Caddy,
}

/// A proxy process in front of some nodes; gone when dropped.
#[derive(Debug)]
pub(crate) struct WebProxy {
    addr: SocketAddr,
    dir: TempDir,
    _process: Process,
}

impl WebProxy {
    /// Starts it on a free loopback port.
    pub(crate) async fn start(kind: Kind, nodes: &[SocketAddr]) -> Self {
        Self::start_with(kind, |addr| match kind {
            Kind::NginxDefault => nginx(addr, nodes, ""),
            Kind::Nginx11 => nginx(addr, nodes, "proxy_http_version 1.1;"),
            Kind::HaProxy => haproxy(addr, nodes),
            Kind::Caddy => panic!("Caddy has no configuration of its own here"),
        })
        .await
    }

    /// Starts it on a free loopback port with the configuration for that port.
    pub(crate) async fn start_with(kind: Kind, config: impl Fn(SocketAddr) -> String) -> Self {
        loop {
            let dir = tempfile::tempdir().unwrap();
            let addr = loopback(free_port());
            let mut process = spawn(kind, dir.path(), &config(addr));
            let listens = eventually("the proxy listens", secs(20), async || match process.status() {
                Some(_) => Ok(false),
                None => TcpStream::connect(addr).await.map(|_| true),
            });
            // Somebody else may take the port between the look and the start: then it ends at once.
            if listens.await {
                return Self { addr, dir, _process: process };
            }
            let log = log(dir.path());
            assert!(log.to_lowercase().contains("in use"), "{kind:?} ended at its start:\n{log}");
        }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for WebProxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- proxy {} ---\n{}", self.addr, log(self.dir.path()));
        }
    }
}

fn spawn(kind: Kind, dir: &Path, config: &str) -> Process {
    let mut command = match kind {
        Kind::NginxDefault | Kind::Nginx11 => nginx_command(dir),
        Kind::HaProxy => haproxy_command(dir),
        Kind::Caddy => caddy_command(dir),
    };
    std::fs::write(dir.join("conf"), config).unwrap();
    let output = std::fs::File::create(dir.join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
    Process::spawn(&mut command)
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

fn nginx_command(dir: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(dir).args(["-e", "stderr", "-c"]).arg(dir.join("conf"));
    command
}

fn haproxy_command(dir: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/haproxy");
    command.args(["-db", "-f"]).arg(dir.join("conf"));
    command
}

fn caddy_command(dir: &Path) -> Command {
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(dir.join("conf"));
    command.env("XDG_DATA_HOME", dir).env("XDG_CONFIG_HOME", dir);
    command
}

fn nginx(addr: SocketAddr, nodes: &[SocketAddr], extra: &str) -> String {
    let servers: String = nodes.iter().map(|node| format!("server {node};")).collect();
    nginx_around(&format!(
        "upstream nodes {{ {servers} }}\nserver {{ listen {addr}; location / {{ proxy_pass http://nodes; {extra} }} }}\n"
    ))
}

/// What `/etc/nginx/nginx.conf` is to the files in `conf.d`, without root and without a daemon.
pub(crate) fn nginx_around(http: &str) -> String {
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {name};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid pid;\nerror_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\n{paths}{http}}}\n"
    )
}

fn haproxy(addr: SocketAddr, nodes: &[SocketAddr]) -> String {
    let servers: String =
        nodes.iter().enumerate().map(|(i, node)| format!("  server n{i} {node} check\n")).collect();
    format!(
        "global\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend in\n  bind {addr}\n  default_backend nodes\nbackend nodes\n{servers}"
    )
}
