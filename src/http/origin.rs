//! Which web pages may talk to the node.
//!
//! A browser sends a page's cookies along with an `EventSource`, and lets any page open one: without a look at `Origin`
//! a foreign page could use up its visitor's slots. So a foreign Origin is refused before anything else is done. Requests
//! without the header do not come from a page's script and pass.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header, request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::State as Shared;
use super::error::ApiError;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How long a browser may remember the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Which origins besides the node's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// None.
    Same,
    /// All, but never with credentials.
    Any,
    /// Exactly these.
    These(Arc<[Box<str>]>),
}

impl AllowedOrigins {
    /// Whether a page of this origin may talk to the node that it addressed by these headers.
    fn allows(&self, origin: &[u8], headers: &HeaderMap) -> bool {
        let listed = match self {
            Self::Same => false,
            Self::Any => true,
            Self::These(list) => list.iter().any(|allowed| allowed.as_bytes() == origin),
        };
        listed || is_same(origin, headers)
    }

    /// Whether cookies of the request are its visitor's will: the page that made the browser send them may use this
    /// server in its visitor's name. `*` lets any page in, but in nobody's name.
    pub(super) fn allow_cookies(&self, headers: &HeaderMap) -> bool {
        match headers.get(header::ORIGIN) {
            None => !is_from_another_site(headers),
            Some(origin) if *self == Self::Any => is_same(origin.as_bytes(), headers),
            Some(origin) => self.allows(origin.as_bytes(), headers),
        }
    }

    /// Whether pages of this host are named.
    fn list_host(&self, host: &HeaderValue) -> bool {
        let Self::These(list) = self else { return false };
        let names = |origin: &str| {
            origin.split_once("://").is_some_and(|(_, name)| name.as_bytes() == host.as_bytes())
        };
        list.iter().any(|origin| names(origin))
    }

    /// The layer that answers preflights and marks the answers to pages of other origins.
    pub(super) fn cors(&self) -> CorsLayer {
        let layer = CorsLayer::new()
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::CACHE_CONTROL,
                HeaderName::from_static("last-event-id"),
                HeaderName::from_static("x-session-token"),
                HeaderName::from_static("x-api-key"),
            ])
            .expose_headers([HeaderName::from_static("x-sse-connection-id"), header::RETRY_AFTER])
            .max_age(PREFLIGHT_AGE);
        match self {
            Self::Any => layer.allow_origin(tower_http::cors::Any),
            Self::Same => layer.allow_origin(AllowOrigin::predicate(same)),
            Self::These(_) => {
                let allowed = self.clone();
                let allows = move |origin: &HeaderValue, parts: &request::Parts| {
                    allowed.allows(origin.as_bytes(), &parts.headers)
                };
                layer.allow_origin(AllowOrigin::predicate(allows)).allow_credentials(true)
            }
        }
    }
}

fn same(origin: &HeaderValue, parts: &request::Parts) -> bool {
    is_same(origin.as_bytes(), &parts.headers)
}

/// The scheme is not compared: a balancer in front may speak TLS where the node does not. A page of the same host and
/// port but the other scheme is the site's own doing. Where a proxy has put another name into `Host`, the browser's own
/// word counts, which no page can set.
fn is_same(origin: &[u8], headers: &HeaderMap) -> bool {
    if headers.get(FETCH_SITE).is_some_and(|site| site == "same-origin") {
        return true;
    }
    let Some(host) = headers.get(header::HOST) else { return false };
    let after_scheme = |prefix: &[u8]| origin.strip_prefix(prefix);
    after_scheme(b"http://").or_else(|| after_scheme(b"https://")).is_some_and(|o| o == host.as_bytes())
}

/// Whether the browser says that a page of another origin made it send this (Fetch Metadata, section 2.4).
fn is_from_another_site(headers: &HeaderMap) -> bool {
    headers.get(FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site")
}

/// Refuses streams that a page of another origin loads as an image, a frame or the like. Such a request says no Origin,
/// but takes cookies and the visitor's slots all the same; no client of streams is written like that.
pub(super) async fn refuse_embedded(
    State(state): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let any = state.allowed_origins == AllowedOrigins::Any;
    if !any && !headers.contains_key(header::ORIGIN) && is_from_another_site(headers) {
        return ApiError::forbidden("A stream cannot be embedded into a page of another site")
            .into_response();
    }
    next.run(request).await
}

/// Refuses pages of foreign origins.
pub(super) async fn refuse_foreign(
    State(state): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let foreign = |origin: &HeaderValue| !state.allowed_origins.allows(origin.as_bytes(), request.headers());
    if request.headers().get(header::ORIGIN).is_some_and(foreign) {
        let message = "Pages of this origin may not use this server; see FANLIGHT_ALLOWED_ORIGINS";
        return ApiError::forbidden(message).into_response();
    }
    next.run(request).await
}

/// Where nobody is asked for a key, publishing and administration are not for pages from elsewhere. `*` lets every page
/// read, and no more. And where only this machine can connect, the name that was asked for must be one of this machine's:
/// a page can point a name of its own at 127.0.0.1 (DNS rebinding), and then is no foreign one to the browser.
pub(super) async fn refuse_strangers(
    State(state): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let origins = &state.allowed_origins;
    let foreign =
        |origin: &HeaderValue| *origins == AllowedOrigins::Any && !is_same(origin.as_bytes(), headers);
    let rebound = |host: &HeaderValue| !is_of_this_machine(host) && !origins.list_host(host);
    let refused = state.recognition.asks_nobody()
        && (headers.get(header::ORIGIN).is_some_and(foreign)
            || state.for_this_machine && headers.get(header::HOST).is_some_and(rebound));
    if refused {
        let message = "Without keys this is only for callers on this machine, by the names 127.0.0.1 and localhost, and \
                       for pages named in FANLIGHT_ALLOWED_ORIGINS; see FANLIGHT_API_KEYS";
        return ApiError::forbidden(message).into_response();
    }
    next.run(request).await
}

/// `localhost` and what is below it (RFC 6761, section 6.3), or an address, which no DNS can point elsewhere.
fn is_of_this_machine(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let name = authority.host().to_ascii_lowercase();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_dns_can_point_here_is_not_of_this_machine() {
        for (host, own) in [
            ("localhost", true),
            ("LocalHost:8080", true),
            ("app.localhost:8080", true),
            ("127.0.0.1:8080", true),
            ("[::1]:8080", true),
            ("192.168.1.7", true),
            ("evil.example", false),
            ("localhost.evil.example:8080", false),
            ("notlocalhost", false),
            ("127.0.0.1.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_of_this_machine(&HeaderValue::from_static(host)), own, "{host}");
        }
    }

    fn allows(origins: &AllowedOrigins, origin: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("app.example.com:8080"));
        origins.allows(origin.as_bytes(), &headers)
    }

    #[test]
    fn only_the_same_host_and_port_are_the_same_origin() {
        for (origin, same) in [
            ("http://app.example.com:8080", true),
            ("https://app.example.com:8080", true),
            ("http://app.example.com", false),
            ("http://evil.example.com:8080", false),
            ("http://app.example.com:8080.evil.com", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(allows(&AllowedOrigins::Same, origin), same, "{origin}");
        }
    }

    #[test]
    fn the_browsers_word_on_the_same_origin_counts_where_a_proxy_renamed_the_host() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("backend:8080"));
        let own = |headers: &HeaderMap| AllowedOrigins::Same.allows(b"https://app.example.com", headers);
        assert!(!own(&headers));
        for (site, same) in
            [("same-origin", true), ("same-site", false), ("cross-site", false), ("none", false)]
        {
            headers.insert(FETCH_SITE, HeaderValue::from_static(site));
            assert_eq!(own(&headers), same, "{site}");
        }
    }

    #[test]
    fn a_list_is_exact_and_does_not_shut_out_the_own_origin() {
        let list = AllowedOrigins::These([Box::from("https://a.example")].into());
        assert!(allows(&list, "https://a.example") && allows(&list, "https://app.example.com:8080"));
        assert!(!allows(&list, "https://a.example.evil.com") && !allows(&list, "http://a.example"));
    }
}
