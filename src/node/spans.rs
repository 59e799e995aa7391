//! The spans of messaging, by OpenTelemetry's conventions (semantic conventions 1.44, messaging): `send` where an event is
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

/// Publishing `events`, all of them in one span: they go to Redis in one round trip. What is not the same for all of them is
/// not told.
pub(super) fn send(events: &[PublishEvent]) -> Span {
    if trace::is_passed_over() {
        return Span::none();
    }
    let first = events.first().map(|event| event.channel.as_str());
    let channel = first.filter(|first| events.iter().all(|event| event.channel.as_str() == *first));
    let (alone, many) = if let [event] = events { (Some(event), None) } else { (None, Some(events.len())) };
    tracing::info_span!(
        target: trace::TARGET,
        "send",
        otel.name = channel.map_or_else(|| "send".to_owned(), |channel| format!("send {channel}")),
        otel.kind = "producer",
        otel.status_code = field::Empty,
        error.type = field::Empty,
        messaging.system = "fanlight",
        messaging.operation.name = "send",
        messaging.operation.type = "send",
        messaging.destination.name = channel,
        messaging.batch.message_count = many.map(count),
        messaging.message.id = field::Empty,
        messaging.message.body.size = alone.map(|event| count(event.event.data.len())),
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
