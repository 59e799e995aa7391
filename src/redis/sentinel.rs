//! Redis under Sentinel: the URL that names the sentinels, and the way from them to the master.
//!
//! Asking the sentinels and checking a master's `ROLE` is redis-rs' work. What it finds is never kept: every connection
//! asks anew, so that whoever connects after a failover reaches the new master.

use std::fmt;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisError, TlsMode};
use tokio::time::timeout;
use url::Url;

use super::config::ConfigError;

/// For asking a sentinel and the master that it names. redis-rs gives each of these connections a second; a stopped one
/// must leave a command, which has two, some time.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1500);

/// Where sentinels listen unless told otherwise.
const DEFAULT_PORT: u16 = 26379;

/// The sentinels of one service. Printing it shows no password.
#[derive(Clone)]
pub(super) struct Sentinels {
    addresses: Vec<ConnectionAddr>,
    service: String,
    user: Option<String>,
    password: Option<String>,
    /// How to connect to the master, but for its address.
    redis: ConnectionInfo,
}

/// `redis+sentinel://LOGIN@HOSTS/PATH?QUERY`, taken apart. A list of hosts with ports is no URL by RFC 3986, so what is
/// around it is cut off here, and the rest is read by those who read the URL of one server.
struct Parts<'a> {
    tls: bool,
    login: &'a str,
    hosts: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let tls = match scheme {
            "redis+sentinel" => false,
            "rediss+sentinel" => true,
            _ => return None,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) =
            authority.rfind('@').map_or(("", authority), |at| authority.split_at(at + '@'.len_utf8()));
        Some(Self { tls, login, hosts, path, query })
    }

    /// The URL of one server of these.
    fn server(&self, host: &str, db: &str) -> Result<ConnectionInfo, RedisError> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://{}{host}/{db}", self.login).into_connection_info()
    }
}

impl Sentinels {
    /// Reads a `redis+sentinel://` or `rediss+sentinel://` URL; `None` for any other.
    ///
    /// # Errors
    /// What is wrong with it, without its secrets.
    pub(super) fn parse(url: &str) -> Option<Result<Self, ConfigError>> {
        let parts = Parts::of(url)?;
        Some(Self::read(&parts).map_err(|why| ConfigError(why.to_owned())))
    }

    fn read(parts: &Parts<'_>) -> Result<Self, &'static str> {
        let (service, db) = parts.path.split_once('/').unwrap_or((parts.path, ""));
        if service.is_empty() {
            return Err("the name of the service is missing after the hosts: …/mymaster");
        }
        if !db.chars().all(|c| c.is_ascii_digit()) {
            return Err("the database after the service is not a number");
        }
        let hosts: Vec<&str> = parts.hosts.split(',').collect();
        let addresses: Option<Vec<_>> = hosts.iter().map(|host| address(parts, host)).collect();
        let addresses = addresses.ok_or("one of the sentinels is not HOST[:PORT]")?;
        let redis =
            parts.server(hosts[0], db).map_err(|_| "the user or the password is not percent-encoded")?;
        let (mut user, mut password) = (None, None);
        for (name, value) in url::form_urlencoded::parse(parts.query.as_bytes()) {
            match &*name {
                "sentinel_user" => user = Some(value.into_owned()),
                "sentinel_password" => password = Some(value.into_owned()),
                _ => return Err("after ? only sentinel_user and sentinel_password are known"),
            }
        }
        Ok(Self { addresses, service: service.to_owned(), user, password, redis })
    }

    /// The login, the database and the sockets' settings.
    pub(super) fn redis(&self) -> &ConnectionInfo {
        &self.redis
    }

    /// The same with these sockets' settings.
    pub(super) fn set_redis(&mut self, redis: ConnectionInfo) {
        self.redis = redis;
    }

    /// The sentinels' own password.
    pub(super) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// The master of this moment. All sentinels are asked at once and the first that leads to a server which says that
    /// it is a master is believed: one after the other, as redis-rs would, each stopped one costs every connection a
    /// second.
    ///
    /// # Errors
    /// When none does so in time, with the reasons of all; they may hold secrets.
    pub(super) async fn master(&self) -> Result<ConnectionInfo, RedisError> {
        let asked = self.addresses.iter().map(|sentinel| async move {
            let answer = timeout(LOOKUP_TIMEOUT, self.ask(sentinel)).await;
            answer.map_or_else(
                |_| Err(format!("{sentinel}: no answer in time")),
                |found| found.map_err(|error| format!("{sentinel}: {error}")),
            )
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut reasons = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(master) => return Ok(master),
                Err(why) => reasons.push(why),
            }
        }
        let told = format!("{:?}, {}", self.service, reasons.join("; "));
        Err((ErrorKind::Io, "no sentinel of FANLIGHT_REDIS_URL leads to a master", told).into())
    }

    async fn ask(&self, sentinel: &ConnectionAddr) -> Result<ConnectionInfo, RedisError> {
        let (redis, tcp) = (self.redis.redis_settings(), self.redis.tcp_settings());
        let mut client =
            SentinelClientBuilder::new([sentinel.clone()], &self.service, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp.clone())
                .set_client_to_sentinel_tcp_settings(tcp.clone())
                .set_client_to_redis_db(redis.db())
                .set_client_to_redis_protocol(redis.protocol());
        if matches!(sentinel, ConnectionAddr::TcpTls { .. }) {
            client = client.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(user) = redis.username() {
            client = client.set_client_to_redis_username(user);
        }
        if let Some(password) = redis.password() {
            client = client.set_client_to_redis_password(password);
        }
        if let Some(user) = &self.user {
            client = client.set_client_to_sentinel_username(user);
        }
        if let Some(password) = &self.password {
            client = client.set_client_to_sentinel_password(password);
        }
        let master = client.build()?.async_get_client().await?;
        Ok(master.get_connection_info().clone())
    }
}

/// A sentinel's address; `None` when it is none.
fn address(parts: &Parts<'_>, host: &str) -> Option<ConnectionAddr> {
    let port = Url::parse(&format!("redis://{host}")).ok()?.port().unwrap_or(DEFAULT_PORT);
    let plain = Parts { login: "", ..*parts };
    Some(match plain.server(host, "").ok()?.addr().clone() {
        ConnectionAddr::Tcp(host, _) => ConnectionAddr::Tcp(host, port),
        ConnectionAddr::TcpTls { host, insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure, tls_params }
        }
        _ => return None,
    })
}

impl fmt::Display for Sentinels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let redis = self.redis.redis_settings();
        let tls = matches!(self.redis.addr(), ConnectionAddr::TcpTls { .. });
        f.write_str(if tls { "rediss+sentinel://" } else { "redis+sentinel://" })?;
        if redis.password().is_some() {
            write!(f, "{}:****@", redis.username().unwrap_or_default())?;
        }
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        write!(f, "{}/{}/{}", addresses.join(","), self.service, redis.db())?;
        match (&self.user, &self.password) {
            (Some(user), Some(_)) => write!(f, "?sentinel_user={user}&sentinel_password=****"),
            (None, Some(_)) => f.write_str("?sentinel_password=****"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Sentinels, ConfigError> {
        Sentinels::parse(url).unwrap()
    }

    #[test]
    fn everything_in_the_url_is_used_and_no_password_is_printed() {
        let url = "rediss+sentinel://shop:can%40ry@a,b:7000,[::1]/mymaster/2?sentinel_user=s&sentinel_password=canary2";
        let sentinels = parse(url).unwrap();
        let shown = "rediss+sentinel://shop:****@a:26379,b:7000,::1:26379/mymaster/2?sentinel_user=s&sentinel_password=****";
        assert_eq!(sentinels.to_string(), shown);
        let redis = sentinels.redis().redis_settings();
        assert_eq!((redis.username(), redis.password(), redis.db()), (Some("shop"), Some("can@ry"), 2));
        assert_eq!(sentinels.password(), Some("canary2"));
        assert_eq!(parse("redis+sentinel://a/m").unwrap().to_string(), "redis+sentinel://a:26379/m/0");
    }

    #[test]
    fn a_mistake_is_named_without_the_password() {
        for (url, named) in [
            ("redis+sentinel://:canary@a:1,b:2", "service"),
            ("redis+sentinel://:canary@a:1,b:2/", "service"),
            ("redis+sentinel://:canary@a:1/m/x", "database"),
            ("redis+sentinel://:canary@a:1,,b/m", "sentinels"),
            ("redis+sentinel://:canary@/m", "sentinels"),
            ("redis+sentinel://:canary@a:99999/m", "sentinels"),
            ("redis+sentinel://:canary@a/m?master=canary", "sentinel_password"),
        ] {
            let error = parse(url).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("canary"), "{url}: {error}");
        }
        assert!(Sentinels::parse("redis://a/0").is_none());
    }

    #[tokio::test]
    async fn without_a_sentinel_the_error_names_the_setting_and_each_sentinel() {
        let sentinels = parse("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster").unwrap();
        let error = sentinels.master().await.unwrap_err().to_string();
        for part in ["FANLIGHT_REDIS_URL", "mymaster", "127.0.0.1:1", "127.0.0.1:2"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
