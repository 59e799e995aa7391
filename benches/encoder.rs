//! What encoding costs: once per node and event, whatever the number of subscribers.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fanlight::protocol::channel::ChannelName;
use fanlight::protocol::durable::{self, Frame};
use fanlight::protocol::envelope::parse_plain;
use fanlight::protocol::event::{Event, EventType};
use fanlight::protocol::position::Position;
use fanlight::protocol::sse::Block;

const POSITION: Position = Position { epoch: 0x198_0000_0001, n: 3_600_000_000_000_000 };

fn job_event(data: String) -> Event {
    Event { kind: Some(EventType::parse("job_progress").unwrap()), ..Event::unnamed(data) }
}

/// The event of the delivery benchmarks: a job's progress in 190 bytes.
fn small() -> Event {
    let head = r#"{"id":"42","status":"in_progress","progress":17,"message":""#;
    job_event(format!("{head}{}\"}}", "x".repeat(190 - head.len() - 2)))
}

/// 4 KiB of indented JSON: some hundred lines.
fn multi_line() -> Event {
    job_event("    \"field\": \"some value\",\n".repeat(158)[..4096].to_owned())
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    for (name, event) in [("190 B", small()), ("4 KiB of lines", multi_line())] {
        group.throughput(Throughput::Bytes(event.data.len() as u64));
        group.bench_function(name, |b| b.iter(|| Block::event(black_box(&event), Some(POSITION))));
    }
    group.finish();
}

fn merge(c: &mut Criterion) {
    let blocks = vec![Block::event(&small(), Some(POSITION)); 64];
    c.bench_function("merge 64 blocks of 190 B", |b| b.iter(|| Block::merge(black_box(&blocks))));
}

fn parse(c: &mut Criterion) {
    let jobs = ChannelName::parse("jobs").unwrap();
    let plain = format!(r#"{{"event":"job_progress","data":{}}}"#, small().data);
    c.bench_function("parse a plain envelope", |b| {
        b.iter(|| parse_plain(black_box(plain.as_bytes()), &jobs, 1 << 18).unwrap());
    });
    let frame = durable::encode(POSITION, Some(POSITION.n - 1), &small());
    c.bench_function("parse a durable frame", |b| {
        b.iter(|| Frame::parse(black_box(&frame)).unwrap().event(&jobs, 1 << 18).unwrap());
    });
}

criterion_group!(benches, encode, merge, parse);
criterion_main!(benches);
