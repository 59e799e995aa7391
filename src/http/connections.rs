//! Listing and closing connections, wherever in the cluster they are.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use uuid::Uuid;

use super::State as Shared;
use super::error::ApiError;
use crate::protocol::channel::ChannelName;
use crate::protocol::peer::{Filter, MAX_ROWS, Page};

/// Rows of a page that names no limit.
const DEFAULT_LIMIT: usize = 100;

/// The query of a listing or a kick. What is empty counts as not given; what is misspelt is refused, because without that
/// part a kick would close more than was meant.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Members {
    ip: String,
    session: String,
    channel: String,
    limit: String,
    cursor: String,
    /// Read by [`super::credentials`].
    #[serde(rename = "token")]
    _token: IgnoredAny,
}

type MembersQuery = Result<Query<Members>, QueryRejection>;

/// `GET /api/sse/connections`.
pub(super) async fn list(
    State(state): State<Arc<Shared>>,
    query: MembersQuery,
) -> Result<Response, ApiError> {
    let members = members(query)?;
    let page = Page { filter: members.filter()?, after: members.cursor()?, limit: members.limit()? };
    let page = state.node.connections(page).await?;
    let next = page.next.map(|id| id.to_string());
    let body = json!({ "connections": page.rows, "nextCursor": next, "partial": page.partial });
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// `DELETE /api/sse/connections/{id}`.
pub(super) async fn kick_one(
    State(state): State<Arc<Shared>>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::bad_request("The id of a connection is a UUID"))?;
    let kicked = state.node.kick(Filter { id: Some(id), ..Filter::default() }).await?;
    if kicked.count == 0 && !kicked.partial {
        return Err(ApiError::no_such("No connection of the cluster has this id"));
    }
    Ok(Json(json!({ "kicked": kicked.count, "partial": kicked.partial })).into_response())
}

/// `DELETE /api/sse/connections?session=…`; without a filter it would close every stream of the cluster, so one is
/// needed.
pub(super) async fn kick_matching(
    State(state): State<Arc<Shared>>,
    query: MembersQuery,
) -> Result<Response, ApiError> {
    let filter = members(query)?.filter()?;
    if filter == Filter::default() {
        return Err(ApiError::bad_request("Say which: ip=, session= or channel="));
    }
    let kicked = state.node.kick(filter).await?;
    Ok(Json(json!({ "kicked": kicked.count, "partial": kicked.partial })).into_response())
}

fn members(query: MembersQuery) -> Result<Members, ApiError> {
    query.map(|Query(members)| members).map_err(|_| {
        ApiError::bad_request("The query takes ip, session, channel, limit and cursor, each once")
    })
}

impl Members {
    fn filter(&self) -> Result<Filter, ApiError> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let ip = given(&self.ip).map(|ip| ip.parse()).transpose();
        let channel = given(&self.channel).map(|channel| ChannelName::parse(&channel)).transpose();
        Ok(Filter {
            id: None,
            ip: ip.map_err(|_| ApiError::bad_request("ip= takes an IPv4 or IPv6 address"))?,
            session: given(&self.session).map(String::into_boxed_str),
            channel: channel.map_err(|error| ApiError::bad_channel(error.to_string()))?,
        })
    }

    fn cursor(&self) -> Result<Option<Uuid>, ApiError> {
        let wrong = |_| ApiError::bad_request("cursor= takes the nextCursor of the page before");
        Some(self.cursor.as_str()).filter(|c| !c.is_empty()).map(Uuid::parse_str).transpose().map_err(wrong)
    }

    fn limit(&self) -> Result<usize, ApiError> {
        if self.limit.is_empty() {
            return Ok(DEFAULT_LIMIT);
        }
        let limit = self.limit.parse().ok().filter(|limit| (1..=MAX_ROWS).contains(limit));
        limit.ok_or_else(|| ApiError::bad_request(format!("limit= takes 1 to {MAX_ROWS}")))
    }
}
