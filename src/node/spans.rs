//! The spans of messaging, by OpenTelemetry's conventions (semantic conventions 1.42, messaging): `send` where an event is
//! published, one `process` for each node and event. Never one for a client.

use tracing::{Span, field};

use crate::protocol::event::Delivery;
use crate::protocol::position::Position;
use crate::protocol::request::PublishEvent;
use crate::trace;

/// A number as OpenTelemetry knows numbers; others would become texts.
fn count(n: impl TryInto<i64>) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// Publishing `events`, all of them in one span: they go to Redis in one round trip.
pub(super) fn send(events: &[PublishEvent]) -> Span {
    if trace::is_passed_over() {
        return Span::none();
    }
    let first = events.first().map_or("", |event| event.channel.as_str());
    tracing::info_span!(
        target: trace::TARGET,
        "send",
        otel.name = format!("send {first}"),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = "fanlight",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = first,
        messaging.batch.message_count = count(events.len()),
    )
}

/// Asking Redis whether a stream may open.
pub(super) fn admit() -> Span {
    tracing::info_span!(
        target: trace::TARGET,
        "admit",
        otel.kind = "client",
        db.system.name = "redis",
        db.operation.name = "EVALSHA",
    )
}

/// An event on its way to this node's streams: of the trace that it was published in, or in one of its own that points there.
pub(super) fn process(
    delivery: &Delivery,
    subscribers: impl FnOnce() -> u32,
    now_ms: impl FnOnce() -> u64,
    link: bool,
) -> Span {
    let published_in = delivery.event.traceparent.as_deref();
    if !trace::takes(published_in, link) {
        return Span::none();
    }
    let lag = |position: Position| count(now_ms().saturating_sub(position.unix_millis()));
    let span = tracing::info_span!(
        target: trace::TARGET,
        "process",
        otel.name = format!("process {}", delivery.channel),
        otel.kind = "consumer",
        messaging.system = "fanlight",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = delivery.channel.as_str(),
        messaging.message.id = delivery.position.map(field::display),
        messaging.message.body.size = count(delivery.event.data.len()),
        fanlight.subscribers = i64::from(subscribers()),
        fanlight.lag_ms = delivery.position.map(lag),
    );
    match published_in {
        Some(traceparent) if link => trace::link(&span, traceparent),
        Some(traceparent) => trace::continue_from(&span, traceparent),
        None => {}
    }
    span
}
