//! `GET /api/jobs/{id}`: the last known state of one job, for whoever polls.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::value::RawValue;

use super::State as Shared;
use super::error::ApiError;
use crate::node::{Client, JobRefusal};
use crate::protocol::event::Key;
use crate::protocol::position::Position;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    id: &'a str,
    status: &'a str,
    terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    data: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    updated_at: String,
}

pub(super) async fn job(
    State(state): State<Arc<Shared>>,
    Extension(client): Extension<Client>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let id = job_id(id)?;
    let job = state.node.job(&client, &id).await?.ok_or_else(unknown)?;
    let text;
    let data = match serde_json::from_str(&job.data) {
        Ok(data) => data,
        // Published as plain text: a JSON string then.
        Err(_) => {
            text = serde_json::value::to_raw_value(&job.data).unwrap_or_default();
            &*text
        }
    };
    let body = Body {
        id: id.as_str(),
        status: &job.word,
        terminal: job.status.is_terminal(),
        event: job.kind.as_ref().map(|kind| kind.as_str()),
        data,
        position: job.position,
        updated_at: timestamp(job.updated_at),
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

fn unknown() -> ApiError {
    ApiError::no_such("No job of this id is known; a job is forgotten some time after its last event")
}

/// The id in the path.
pub(super) fn job_id(id: Result<Path<String>, PathRejection>) -> Result<Key, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::bad_request("The job's id is not valid UTF-8"))?;
    Key::parse(&id).map_err(|error| ApiError::bad_request(format!("The job's id {error}")))
}

/// RFC 3339 with milliseconds, of Unix milliseconds; those after the year 9999, which nobody means, are cut to it.
fn timestamp(unix_millis: u64) -> String {
    const YEAR_9999: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(unix_millis.min(YEAR_9999));
    humantime::format_rfc3339_millis(time).to_string()
}

impl From<JobRefusal> for ApiError {
    fn from(refusal: JobRefusal) -> Self {
        match refusal {
            JobRefusal::Forbidden => Self::forbidden("Jobs cannot be read"),
            JobRefusal::Unavailable(reason) => Self::broker_unavailable(reason),
        }
    }
}
