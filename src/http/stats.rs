//! The statistics, once or every second.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::State as Shared;
use super::error::ApiError;
use super::query;
use super::streams::with_stream_headers;
use crate::node::Node;

/// Between two events of a stream.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a stream of statistics lasts; a browser that still looks opens another one. It bounds what a forgotten page costs.
const LIFE: Duration = Duration::from_secs(3600);

/// How many may be open at once on a node. They are ordinary responses, which cost more than streams of events.
pub(super) const MAX_STREAMS: usize = 64;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    this_node: bool,
    stream: bool,
}

/// `GET /api/sse/stats`.
pub(super) async fn stats(State(state): State<Arc<Shared>>, uri: Uri) -> Result<Response, ApiError> {
    let wish = Wish::of(&uri)?;
    if wish.stream {
        return stream_of(&state, wish);
    }
    let mut response = Json(read(&state.node, wish).await).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn read(node: &Node, wish: Wish) -> crate::node::Stats {
    if wish.this_node { node.own_stats().await } else { node.stats().await }
}

fn stream_of(state: &Shared, wish: Wish) -> Result<Response, ApiError> {
    let place = Arc::clone(&state.stats_streams).try_acquire_owned();
    let place = place.map_err(|_| ApiError::too_many_stats_streams(MAX_STREAMS))?;
    let now = Instant::now();
    let watcher = Watcher { node: Arc::clone(&state.node), wish, next: now, end: now + LIFE, _place: place };
    Ok(with_stream_headers(Body::from_stream(stream::unfold(watcher, Watcher::event))))
}

/// One open stream of statistics.
struct Watcher {
    node: Arc<Node>,
    wish: Wish,
    next: Instant,
    end: Instant,
    _place: OwnedSemaphorePermit,
}

impl Watcher {
    /// The next event, when its time has come. A node that drains ends its streams: whoever looks comes back to another one.
    async fn event(mut self) -> Option<(Result<String, Infallible>, Self)> {
        sleep_until(self.next).await;
        if self.next >= self.end || self.node.is_draining() {
            return None;
        }
        // JSON on one line, so that it is one line of data. Numbers and strings always can be written.
        let json = serde_json::to_string(&read(&self.node, self.wish).await).unwrap_or_default();
        self.next = Instant::now().max(self.next + INTERVAL);
        Some((Ok(format!("data: {json}\n\n")), self))
    }
}

impl Wish {
    fn of(uri: &Uri) -> Result<Self, ApiError> {
        let this_node = match query::member(uri, "scope")?.as_deref() {
            None | Some("" | "cluster") => false,
            Some("node") => true,
            Some(_) => return Err(ApiError::bad_request("scope= takes cluster or node")),
        };
        let stream = match query::member(uri, "stream")?.as_deref() {
            None | Some("" | "0" | "false") => false,
            Some("1" | "true") => true,
            Some(_) => return Err(ApiError::bad_request("stream= takes 0 or 1")),
        };
        Ok(Self { this_node, stream })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wished_is_read_from_the_query_and_nothing_is_guessed() {
        let wish = |uri: &'static str| Wish::of(&Uri::from_static(uri));
        assert_eq!(wish("/"), Ok(Wish { this_node: false, stream: false }));
        assert_eq!(wish("/?scope=node&stream=1"), Ok(Wish { this_node: true, stream: true }));
        assert_eq!(wish("/?scope=cluster&stream=0"), Ok(Wish { this_node: false, stream: false }));
        for wrong in ["/?scope=all", "/?stream=yes", "/?scope=node&scope=node"] {
            assert!(wish(wrong).is_err(), "{wrong}");
        }
    }
}
