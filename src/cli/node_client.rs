//! What every command that talks to a node shares: where it is, the key, and errors that say what to do.

use std::time::Duration;

use anyhow::anyhow;
use clap::{Arg, ArgMatches};
use reqwest::redirect::Policy;
use reqwest::{Method, RequestBuilder, Response};
use tokio::time::timeout;
use url::{Host, Url};

use super::answer::Answer;
use super::{Failure, flag_or_variable};
use crate::config::Environment;
use crate::protocol::secret::Secret;

const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Until the connection stands. Longer than two lost SYNs (1 s, then 2 s more).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that vanished without a word is noticed after about this, and three probes of it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A node, as seen from outside.
#[derive(Clone, Debug)]
pub(super) struct NodeClient {
    http: reqwest::Client,
    base: Url,
    api_key: Option<Secret>,
    token: Option<Secret>,
}

/// `--url`, `--api-key` and `--token`.
pub(super) fn arguments() -> [Arg; 3] {
    let url = Arg::new("url")
        .long("url")
        .value_name("URL")
        .help(format!("The node, or what stands before it [env: FANLIGHT_URL] [default: {DEFAULT_URL}]"));
    let key = Arg::new("api-key")
        .long("api-key")
        .value_name("KEY")
        .help("Key for publishing and administration; prefer the variable [env: FANLIGHT_API_KEY]");
    let token = Arg::new("token")
        .long("token")
        .value_name("TOKEN")
        .help("Token for what it allows; prefer the variable [env: FANLIGHT_TOKEN]");
    [url, key, token]
}

impl NodeClient {
    pub(super) fn parse(matches: &ArgMatches, environment: &Environment) -> Result<Self, Failure> {
        let given = flag_or_variable(matches, "url", environment, "FANLIGHT_URL");
        let base = given.as_deref().unwrap_or(DEFAULT_URL);
        let api_key = flag_or_variable(matches, "api-key", environment, "FANLIGHT_API_KEY");
        let token = flag_or_variable(matches, "token", environment, "FANLIGHT_TOKEN");
        let client = Self::new(base, api_key.map(Secret::new))?;
        Ok(Self { token: token.map(Secret::new), ..client })
    }

    /// A client for the node at `base`, which may have a path of its own (a proxy's prefix).
    pub(super) fn new(base: &str, api_key: Option<Secret>) -> Result<Self, Failure> {
        let allowed =
            || Failure::Usage("--url must be like http://127.0.0.1:8080 or https://example.com/live".into());
        let mut base = Url::parse(base).map_err(|_| allowed())?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(allowed());
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("fanlight/", env!("CARGO_PKG_VERSION")))
            // A node redirects nobody, and whoever does would be sent the key.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(KEEPALIVE);
        if is_this_machine(&base) {
            http = http.no_proxy(); // HTTP_PROXY is about other machines
        }
        let http = http.build().map_err(|error| Failure::Failed(error.into()))?;
        Ok(Self { http, base, api_key, token: None })
    }

    /// A request to `path`, which is relative to the base (`api/events`).
    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let url = self.base.join(path).map_err(|error| Failure::Usage(format!("--url: {error}")))?;
        let request = self.http.request(method, url);
        let request = match &self.api_key {
            Some(key) => request.header("x-api-key", key.expose()),
            None => request,
        };
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        })
    }

    /// Sends a request and reads the whole answer, both within `limit`.
    ///
    /// # Errors
    /// When there is no answer in time, or it is too large.
    pub(super) async fn ask(&self, request: RequestBuilder, limit: Duration) -> anyhow::Result<Answer> {
        let place = self.place();
        let asking = async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            Answer::read(response, &place).await
        };
        timeout(limit, asking).await.unwrap_or_else(|_| Err(self.late("given its whole answer", limit)))
    }

    /// Sends a request for a stream and waits for the head of the answer.
    ///
    /// # Errors
    /// When there is none within `limit`.
    pub(super) async fn open(&self, request: RequestBuilder, limit: Duration) -> anyhow::Result<Response> {
        match timeout(limit, request.send()).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(&error)),
            Err(_) => Err(self.late("answered", limit)),
        }
    }

    fn late(&self, what: &str, limit: Duration) -> anyhow::Error {
        anyhow!("{} has not {what} within {}", self.place(), humantime::format_duration(limit))
    }

    /// Says that the node could not be reached, and what to do about it.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let place = self.place();
        if error.is_timeout() {
            return self.late("taken a connection", CONNECT_TIMEOUT);
        }
        let cause = root_cause(error);
        if error.is_connect() && cause.contains("refused") {
            return anyhow!(
                "is a node running at {place}? The connection is refused; start one with `fanlight`"
            );
        }
        anyhow!("cannot talk to {place}: {cause}")
    }

    /// The base URL without what may be secret in it.
    pub(super) fn place(&self) -> String {
        format!("{}{}", self.base.origin().ascii_serialization(), self.base.path().trim_end_matches('/'))
    }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// The innermost error: the outer ones repeat the URL, which may hold a token.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_before_the_api_is_kept() {
        let client = NodeClient::new("https://user:canary@example.com/live", None).unwrap();
        let request = client.request(Method::GET, "api/events").unwrap().build().unwrap();
        assert_eq!(request.url().path(), "/live/api/events");
        assert_eq!(client.place(), "https://example.com/live");
    }

    #[test]
    fn what_is_no_http_url_is_refused() {
        for bad in ["", "localhost:8080", "ftp://x", "8080", "http://"] {
            assert!(matches!(NodeClient::new(bad, None), Err(Failure::Usage(_))), "{bad}");
        }
    }
}
