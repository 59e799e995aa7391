//! What a node, or whoever stands in its place, answers: read within bounds, and refusals in one line that says what to
//! do.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

/// The largest answer that is read, in MiB: room for the statistics of some thousand nodes.
const MAX_MIB: usize = 32;

/// The same in bytes.
pub(super) const MAX_ANSWER: usize = MAX_MIB << 20;

/// The largest refusal that is read for its words, in bytes.
const MAX_REFUSAL: usize = 16 << 10;

/// How long the words of a refused stream may take; its status is known.
const REFUSAL_LIMIT: Duration = Duration::from_secs(5);

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Vec<u8>,
}

impl Answer {
    /// Reads it to its end; `place` is who answers, for the error.
    ///
    /// # Errors
    /// When it breaks off, or is too large.
    pub(super) async fn read(mut response: Response, place: &str) -> Result<Self> {
        let status = response.status();
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await;
            let Some(chunk) = chunk.map_err(|_| anyhow!("the answer of {place} breaks off"))? else { break };
            if chunk.len() > MAX_ANSWER - body.len() {
                bail!("{place} answers with more than {MAX_MIB} MiB; is this a Fanlight node?");
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Self { status, body })
    }

    /// How large it is, in bytes.
    pub(super) const fn len(&self) -> usize {
        self.body.len()
    }

    /// Its JSON; `None` when it is none, or of another form.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Its beginning, as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body[..self.body.len().min(MAX_REFUSAL)]).into_owned()
    }

    /// It as a refusal in one line: the node's own words if there are any, and what to do.
    pub(super) fn refusal(&self) -> String {
        worded(self.status, &self.body[..self.body.len().min(MAX_REFUSAL)])
    }
}

/// The same for a stream that was refused.
pub(super) async fn refusal(response: Response) -> String {
    let status = response.status();
    let mut words = Vec::new();
    // What there is after that time is what there is.
    let _ = timeout(REFUSAL_LIMIT, read_start(response, &mut words)).await;
    worded(status, &words)
}

async fn read_start(mut response: Response, start: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = response.chunk().await {
        start.extend_from_slice(&chunk[..chunk.len().min(MAX_REFUSAL - start.len())]);
        if start.len() == MAX_REFUSAL {
            break;
        }
    }
}

fn worded(status: StatusCode, words: &[u8]) -> String {
    let told: Option<serde_json::Value> = serde_json::from_slice(words).ok();
    let member = |name| told.as_ref().and_then(|body| body.get(name)).and_then(|value| value.as_str());
    let words = match (member("error"), member("code")) {
        (Some(error), Some(code)) => format!("{error} ({code}, {status})"),
        (Some(error), None) => format!("{error} ({status})"),
        (None, _) => status.to_string(),
    };
    match status {
        StatusCode::UNAUTHORIZED => {
            format!("refused: {words}; set --api-key (FANLIGHT_API_KEY) or --token (FANLIGHT_TOKEN)")
        }
        StatusCode::NOT_FOUND => format!(
            "refused: {words}; is this a Fanlight node, and the address that its FANLIGHT_ADMIN_LISTEN has, if it is set?"
        ),
        _ => format!("refused: {words}"),
    }
}
