//! Looking: one stream, from the request to its end or to the end of the wait. It notes times and judges nothing.

use std::time::Duration;

use anyhow::anyhow;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, SERVER, VIA,
};
use reqwest::{Method, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};

use crate::cli::Failure;
use crate::cli::answer::refusal;
use crate::cli::node_client::NodeClient;
use crate::protocol::sse_decoder::SseDecoder;

/// For the head, and again for the first block. What holds a stream back for longer holds it back for good.
const PATIENCE: Duration = Duration::from_secs(15);

/// The largest block that is read, in bytes.
const MAX_BLOCK: usize = 64 << 20;

/// What was seen of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// `Server` and `Via`, which tell who stands between.
    pub(super) between: String,
    /// From the request to the head of the answer; none when it never came.
    pub(super) head: Option<Duration>,
    /// From the request to the first block; none when it never came.
    pub(super) first_block: Option<Duration>,
    /// How a browser's request is compressed on the way.
    pub(super) compression: Option<String>,
    /// `Cache-Control` as it arrived.
    pub(super) cache_control: String,
    /// How often something came after the first block.
    pub(super) signs_of_life: u32,
    /// The longest time without a byte that the stream outlived.
    pub(super) longest_silence: Duration,
    /// How long it was watched after its first block.
    pub(super) watched: Duration,
    /// How it ended, if it did.
    pub(super) end: Option<End>,
}

/// How a stream ended while it was watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The node said `bye`, or its answer was complete.
    ByTheNode,
    /// Somebody between cut it, so long after the request and so long after the last byte.
    Cut {
        /// Since the request.
        age: Duration,
        /// Since the last byte.
        silence: Duration,
    },
}

/// Opens a stream at `node` and watches it for at most `wait` after its first block.
///
/// # Errors
/// When the node cannot be reached, or answers with something else than a stream.
pub(super) async fn examine(node: &NodeClient, wait: Duration) -> Result<Seen, Failure> {
    let progress = Progress::start(wait);
    progress.say("asking as a browser does");
    let Some(as_browser) = open(node, Some("gzip, br, zstd")).await? else { return kept_back(node).await };
    let compression = header(as_browser.head.headers(), CONTENT_ENCODING.as_str());
    let opened = if compression.is_empty() {
        Some(as_browser)
    } else {
        // It cannot be read; what else is wrong is looked for without.
        drop(as_browser);
        open(node, None).await?
    };
    let Some(opened) = opened else { return kept_back(node).await };
    let headers = opened.head.headers();
    let seen = Seen {
        between: between(headers),
        head: Some(opened.took),
        compression: Some(compression).filter(|coding| !coding.is_empty()),
        cache_control: header(headers, CACHE_CONTROL.as_str()),
        ..Seen::default()
    };
    Watch {
        seen,
        at: opened.at,
        last: opened.at + opened.took,
        decoder: SseDecoder::new(MAX_BLOCK),
        bye: false,
    }
    .watch(opened.head, wait, &progress)
    .await
}

/// No stream came: when another answer of the same node does, it is only streams that somebody keeps back.
async fn kept_back(node: &NodeClient) -> Result<Seen, Failure> {
    let answer = node.open(node.request(Method::GET, "livez")?, PATIENCE).await?;
    if answer.status().is_server_error() {
        return Err(anyhow!(refused(answer).await).into());
    }
    Ok(Seen { head: None, between: between(answer.headers()), ..Seen::default() })
}

/// Who names himself in the answer.
fn between(headers: &HeaderMap) -> String {
    [SERVER, VIA].map(|name| header(headers, name.as_str())).join(" ").trim().to_owned()
}

/// A stream whose head is here.
struct Opened {
    head: Response,
    at: Instant,
    took: Duration,
}

/// `None` when no head came in time, for us or for the proxy: somebody keeps the whole answer.
async fn open(node: &NodeClient, encoding: Option<&str>) -> Result<Option<Opened>, Failure> {
    let mut request = node.request(Method::GET, "api/sse/stream")?.header(ACCEPT, "text/event-stream");
    if let Some(encoding) = encoding {
        request = request.header(ACCEPT_ENCODING, encoding);
    }
    let at = Instant::now();
    let Ok(answer) = timeout(PATIENCE, request.send()).await else { return Ok(None) };
    let head = answer.map_err(|error| node.unreachable(&error))?;
    let took = at.elapsed();
    if head.status() == StatusCode::GATEWAY_TIMEOUT {
        return Ok(None);
    }
    if head.status() != StatusCode::OK {
        return Err(anyhow!(refused(head).await).into());
    }
    let kind = header(head.headers(), CONTENT_TYPE.as_str());
    if !kind.starts_with("text/event-stream") {
        let place = node.place();
        return Err(anyhow!(
            "{place} answers with {kind:?} and not with an event stream: is this a Fanlight node?"
        )
        .into());
    }
    Ok(Some(Opened { head, at, took }))
}

/// What a proxy says for itself is told from what the node says.
async fn refused(answer: Response) -> String {
    let status = answer.status();
    let by_proxy = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
    let words = refusal(answer).await;
    if by_proxy { format!("{words}: the proxy got no answer from a node in time") } else { words }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// A stream that is being watched.
struct Watch {
    seen: Seen,
    at: Instant,
    last: Instant,
    decoder: SseDecoder,
    bye: bool,
}

impl Watch {
    async fn watch(
        mut self,
        mut stream: Response,
        wait: Duration,
        progress: &Progress,
    ) -> Result<Seen, Failure> {
        progress.say("waiting for the first block");
        let first = self.next(&mut stream, Instant::now() + PATIENCE).await?;
        if first == Step::Waited {
            return Ok(self.seen);
        }
        let opened = Instant::now();
        if first == Step::Bytes {
            self.seen.first_block = Some(self.at.elapsed());
            progress.begin();
            while self.next(&mut stream, opened + wait).await? == Step::Bytes {
                self.seen.signs_of_life += 1;
                progress.say(&format!("{} heartbeats or events so far", self.seen.signs_of_life));
            }
        }
        self.seen.watched = opened.elapsed();
        Ok(self.seen)
    }

    /// Waits for the next bytes and notes when they came.
    async fn next(&mut self, stream: &mut Response, until: Instant) -> Result<Step, Failure> {
        let chunk = match timeout_at(until, stream.chunk()).await {
            Err(_) => return Ok(Step::Waited),
            Ok(Ok(Some(chunk))) => chunk,
            // Cut in the middle of a chunk, or reset: to a stream that is as good as an end.
            Ok(Ok(None) | Err(_)) => {
                let cut = End::Cut { age: self.at.elapsed(), silence: self.last.elapsed() };
                self.seen.end = Some(if self.bye { End::ByTheNode } else { cut });
                return Ok(Step::Ended);
            }
        };
        if self.seen.first_block.is_some() {
            self.seen.longest_silence = self.seen.longest_silence.max(self.last.elapsed());
        }
        self.last = Instant::now();
        let mut events = Vec::new();
        self.decoder.feed(&chunk, &mut events).map_err(|error| Failure::Failed(error.into()))?;
        self.bye |= events.iter().any(|event| event.kind == "bye" && event.id.is_none());
        Ok(Step::Bytes)
    }
}

/// What waiting for bytes led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Bytes,
    Ended,
    Waited,
}

/// A bar on a terminal, nothing elsewhere.
struct Progress(ProgressBar);

impl Progress {
    fn start(wait: Duration) -> Self {
        let bar = ProgressBar::new(wait.as_secs());
        let style = ProgressStyle::with_template("{bar:24} {elapsed}/{len} s  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(Duration::from_millis(500));
        Self(bar)
    }

    fn begin(&self) {
        self.0.reset_elapsed();
    }

    fn say(&self, words: &str) {
        self.0.set_position(self.0.elapsed().as_secs());
        self.0.set_message(words.to_owned());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
