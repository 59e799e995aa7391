//! The usual program: axum's `Sse` over a `tokio::sync::broadcast` that one Redis subscriber feeds.
//!
//! Written as the examples of axum and tokio-stream write it: no tuning in either direction.
//!
//! `axum-sse LISTEN REDIS_URL CHANNEL`

use std::convert::Infallible;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::{Stream, StreamExt};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

#[tokio::main]
async fn main() -> Result<()> {
    let [listen, redis, channel] = std::env::args()
        .skip(1)
        .collect::<Vec<_>>()
        .try_into()
        .ok()
        .context("axum-sse LISTEN REDIS_URL CHANNEL")?;
    let (events, _) = broadcast::channel(1024);
    let mut subscriber = redis::Client::open(redis)?.get_async_pubsub().await?;
    subscriber.subscribe(channel).await?;
    tokio::spawn(forward(subscriber, events.clone()));
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    axum::serve(listener, Router::new().route("/stream", get(stream)).with_state(events)).await?;
    Ok(())
}

async fn forward(mut subscriber: redis::aio::PubSub, events: broadcast::Sender<String>) {
    let mut messages = subscriber.on_message();
    while let Some(message) = messages.next().await {
        if let Ok(payload) = message.get_payload() {
            let _ = events.send(payload);
        }
    }
}

async fn stream(
    State(events): State<broadcast::Sender<String>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let connected = futures_util::stream::iter([Ok(Event::default().event("connected").data("{}"))]);
    let live = BroadcastStream::new(events.subscribe())
        .filter_map(async |message| message.ok())
        .map(|payload| Ok(Event::default().event("bench").data(payload)));
    Sse::new(connected.chain(live)).keep_alive(KeepAlive::default())
}
