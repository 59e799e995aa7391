//! Redis over TLS with an authority that only the administrator knows, behind passwords, and both behind sentinels; and what is
//! said when one of them is wrong.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;

use crate::support::node::fanlight;
use crate::support::process::{Process, free_port};
use crate::support::tls::{Authority, Certified};
use crate::support::wait::check;
use crate::support::{Node, NodeBuilder, Persistence, RedisServer, SseRequest, eventually, secs};

const PASSWORD: &str = "canary-5f1c/of@redis";
/// The same in a URL.
const ENCODED: &str = "canary-5f1c%2Fof%40redis";
const SENTINELS_PASSWORD: &str = "canary-90ab-of-sentinel";
const WRONG: &str = "canary-wrong";
/// What is said of it.
const AUTHENTICATION: &str = "Password authentication failed";

/// A Redis for nodes that come over TLS, or with a password, or both; the tests look at it over its plain port.
struct Guarded {
    redis: RedisServer,
    tls_port: u16,
}

impl Guarded {
    async fn start(certified: &Certified, extra: &[&str]) -> Self {
        let tls_port = free_port();
        let options = tls_options(certified, tls_port);
        let options: Vec<&str> = options.iter().map(String::as_str).chain(extra.iter().copied()).collect();
        Self { redis: RedisServer::start_with(Persistence::None, &options).await, tls_port }
    }

    /// The user `default` keeps no rights but those that the tests' `redis-cli` needs: it has no password.
    async fn with_a_user(self) -> Self {
        let user = ["ACL", "SETUSER", "shop", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"];
        assert_eq!(self.redis.cli(&user).await, "OK");
        self
    }

    fn url(&self, login: &str) -> String {
        format!("rediss://{login}localhost:{}", self.tls_port)
    }

    fn node(&self, login: &str, trusted: &Path) -> NodeBuilder {
        node(&self.url(login), self.redis.prefix(), trusted)
    }
}

fn tls_options(certified: &Certified, port: u16) -> Vec<String> {
    let file = |path: &Path| path.display().to_string();
    [
        ["--tls-port", &port.to_string()],
        ["--tls-cert-file", &file(&certified.certificate)],
        ["--tls-key-file", &file(&certified.key)],
        ["--tls-auth-clients", "no"],
    ]
    .concat()
    .iter()
    .map(ToString::to_string)
    .collect()
}

fn node(url: &str, prefix: &str, trusted: &Path) -> NodeBuilder {
    Node::builder()
        .redis_at(url, prefix)
        .set("SSL_CERT_FILE", trusted.display())
        .set("FANLIGHT_MAX_PER_IP", 2)
        .set("FANLIGHT_LOG", "trace")
}

/// What publishing straight into Redis prints and its exit code.
async fn published(url: &str, prefix: &str, trusted: &Path) -> (Option<i32>, String) {
    let mut publish = fanlight();
    publish.env("SSL_CERT_FILE", trusted);
    publish.args(["publish", "jobs", "1", "--event", "cli", "--redis-url", url, "--redis-prefix", prefix]);
    let output = tokio::task::spawn_blocking(move || publish.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

/// Two nodes share this Redis: events, the limit per address and the command line.
async fn serves(node: impl Fn() -> NodeBuilder, url: &str, prefix: &str, trusted: &Path) {
    let nodes = [node().start().await, node().start().await];
    let mut clients = [nodes[0].subscribe("/stream").await, nodes[1].subscribe("/stream").await];
    let refused = nodes[0].get("/stream").await;
    assert_eq!((refused.status(), refused.code()), (429, "ip_limit".into()));
    nodes[0].publish("jobs", "durable", &json!(1)).await;
    let (code, said) = published(url, prefix, trusted).await;
    assert_eq!(code, Some(0), "{said}");
    for client in &mut clients {
        client.expect("durable").await;
        client.expect("cli").await;
    }
    for node in &nodes {
        node.healthy(secs(20)).await;
        no_secret(&node.log());
    }
}

/// A node with these settings says `why` in its log and does not come to be ready; the command line ends
/// with the same. The node goes on trying.
async fn is_refused(node: NodeBuilder, why: &str, url: &str, prefix: &str, trusted: &Path) -> Node {
    let node = node.start_unready().await;
    eventually(&format!("the log says {why}"), secs(10), async || {
        let told = node.log().lines().any(|line| line.contains("WARN") && line.contains(why));
        check(told, node.log())
    })
    .await;
    assert_eq!(node.get("/readyz").await.status(), 503);
    let (code, said) = published(url, prefix, trusted).await;
    assert!(code == Some(1) && said.contains(why), "{code:?} {said}");
    let health = node.get("/health").await.text();
    no_secret(&(node.log() + &health + &said));
    node
}

/// What kept it from Redis is mended: it comes by itself.
async fn heals(node: &Node) {
    eventually("the node is ready", secs(20), async || {
        let status = node.get("/readyz").await.status();
        check(status == 200, node.log())
    })
    .await;
    node.publish("jobs", "healed", &json!(1)).await;
    no_secret(&node.log());
}

fn no_secret(text: &str) {
    let found = text.lines().find(|line| line.contains("canary"));
    assert_eq!(found, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_a_cluster_works_with_an_own_authority_and_a_user() {
    let authority = Authority::new();
    let trusted = authority.certificate();
    let guarded = Guarded::start(&authority.certify_loopback(), &[]).await.with_a_user().await;
    let login = format!("shop:{ENCODED}@");
    serves(|| guarded.node(&login, &trusted), &guarded.url(&login), guarded.redis.prefix(), &trusted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_stranger_or_for_another_name_is_refused() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let login = format!("shop:{ENCODED}@");
    let good = Guarded::start(&authority.certify_loopback(), &[]).await.with_a_user().await;
    let named = Guarded::start(&authority.certify("DNS:redis.example"), &[]).await.with_a_user().await;
    for (guarded, trusted, why) in [
        (&good, stranger.certificate(), "UnknownIssuer"),
        (&named, authority.certificate(), "not valid for name"),
    ] {
        let (url, prefix) = (guarded.url(&login), guarded.redis.prefix());
        is_refused(guarded.node(&login, &trusted), why, &url, prefix, &trusted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_password_is_told_without_it_and_the_right_one_serves() {
    let redis = RedisServer::start().await;
    let prefix = redis.prefix().to_owned();
    let trusted = Path::new("/etc/ssl/certs/ca-certificates.crt");
    let user = ["ACL", "SETUSER", "shop", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"];
    assert_eq!(redis.cli(&user).await, "OK");
    let url = |login: &str| format!("redis://{login}{}", redis.addr());
    for user in ["shop", "nobody"] {
        let url = url(&format!("{user}:{WRONG}@"));
        let refused = is_refused(node(&url, &prefix, trusted), AUTHENTICATION, &url, &prefix, trusted).await;
        let mended = ["ACL", "SETUSER", user, "on", &format!(">{WRONG}"), "~*", "&*", "+@all"];
        assert_eq!(redis.cli(&mended).await, "OK");
        heals(&refused).await;
    }
    // As `requirepass` does: the user `default` has a password.
    assert_eq!(redis.cli(&["CONFIG", "SET", "requirepass", PASSWORD]).await, "OK");
    is_refused(node(&url(""), &prefix, trusted), "NOAUTH", &url(""), &prefix, trusted).await;
    let wrong = url(&format!(":{WRONG}@"));
    is_refused(node(&wrong, &prefix, trusted), AUTHENTICATION, &wrong, &prefix, trusted).await;
    let right = url(&format!(":{ENCODED}@"));
    serves(|| node(&right, &prefix, trusted), &right, &prefix, trusted).await;
}

/// A sentinel that speaks TLS only and has a password, over a Redis that has another.
fn sentinel(dir: &TempDir, certified: &Certified, redis: &Guarded, trusted: &Path) -> (u16, Process) {
    let port = free_port();
    let file = dir.path().join("sentinel.conf");
    let options: String = tls_options(certified, port)
        .chunks(2)
        .map(|pair| format!("{} {}\n", &pair[0][2..], pair[1]))
        .collect();
    let lines = format!(
        "port 0\nbind 127.0.0.1\ndir {}\nlogfile sentinel.log\n{options}tls-ca-cert-file {}\ntls-replication yes\n\
         requirepass {SENTINELS_PASSWORD}\nsentinel monitor mymaster 127.0.0.1 {} 1\n\
         sentinel auth-user mymaster shop\nsentinel auth-pass mymaster {PASSWORD}\n",
        dir.path().display(),
        trusted.display(),
        redis.tls_port,
    );
    std::fs::write(&file, lines).unwrap();
    let mut command = Command::new("redis-sentinel");
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::null());
    (port, Process::spawn(&mut command))
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_sentinel_everything_may_be_over_tls_with_two_passwords() {
    let authority = Authority::new();
    let (trusted, certified) = (authority.certificate(), authority.certify_loopback());
    let redis = Guarded::start(&certified, &[]).await.with_a_user().await;
    let prefix = redis.redis.prefix();
    let dir = tempfile::tempdir().unwrap();
    let (port, _sentinel) = sentinel(&dir, &certified, &redis, &trusted);
    let url = |login: &str, password: &str| {
        format!("rediss+sentinel://{login}localhost:{port}/mymaster?sentinel_password={password}")
    };
    let right = url(&format!("shop:{ENCODED}@"), SENTINELS_PASSWORD);
    serves(|| node(&right, prefix, &trusted), &right, prefix, &trusted).await;

    // A connection that breaks finds the way again.
    let node_ = node(&right, prefix, &trusted).start().await;
    let mut client = SseRequest::new("/stream").open(node_.addr()).await;
    client.expect("connected").await;
    redis.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    // A durable one: a plain one that comes while the node fills what it missed is a gap.
    node_.publish("jobs", "again", &json!(1)).await;
    // Before it, the client may be told that it may have missed something.
    while client.next_event(secs(10)).await.unwrap().name() != "again" {}

    for (wrong, why) in [
        (url(&format!("shop:{ENCODED}@"), WRONG), AUTHENTICATION),
        (url(&format!("shop:{WRONG}@"), SENTINELS_PASSWORD), AUTHENTICATION),
    ] {
        is_refused(node(&wrong, prefix, &trusted), why, &wrong, prefix, &trusted).await;
    }
}
