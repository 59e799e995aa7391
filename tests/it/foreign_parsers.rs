//! What the encoder writes is read by parsers that are not ours, exactly: 10,000 generated events and control events
//! between them, through `eventsource-parser` (npm), `httpx-sse` and `sseclient-py` (PyPI).

use std::path::Path;
use std::process::Command;

use fanlight::protocol::channel::ChannelName;
use fanlight::protocol::close::{CloseReason, GapReason};
use fanlight::protocol::control::{self, Hello};
use fanlight::protocol::event::{Event, EventType};
use fanlight::protocol::position::Position;
use fanlight::protocol::sse::{Block, Framing};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const EVENTS: usize = 10_000;
const SEED: u64 = 0x005e_ed0f_fa91;

/// An event as a parser's driver prints it.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
struct Read {
    event: String,
    data: String,
    id: Option<String>,
}

struct Parser {
    program: &'static str,
    script: &'static str,
    /// Whether it reports the stream's last id with every event, or only the id in the event's own block.
    remembers_id: bool,
    /// Whether a comment fires nothing. `httpx-sse` 0.4.3 fires an empty event for any block once it has seen an id.
    skips_comments: bool,
}

#[test]
fn eventsource_parser_reads_what_was_written() {
    let script = "eventsource-parser.mjs";
    check(&Parser { program: "node", script, remembers_id: false, skips_comments: true });
}

#[test]
fn httpx_sse_reads_what_was_written() {
    let script = "httpx_sse_parser.py";
    check(&Parser { program: ".venv/bin/python", script, remembers_id: true, skips_comments: false });
}

#[test]
fn sseclient_py_reads_what_was_written() {
    let script = "sseclient_parser.py";
    check(&Parser { program: ".venv/bin/python", script, remembers_id: false, skips_comments: true });
}

fn check(parser: &Parser) {
    let mut rng = StdRng::seed_from_u64(SEED);
    let (mut stream, mut expected, mut last_id) = (Vec::new(), Vec::new(), None);
    for n in 0..EVENTS {
        if parser.skips_comments && rng.random_bool(0.1) {
            stream.extend_from_slice(Block::comment("ping").bytes(Framing::Bare));
        }
        let (block, mut read) = if n % 100 == 0 { control_event(&mut rng) } else { event(&mut rng, n) };
        stream.extend_from_slice(block.bytes(Framing::Bare));
        last_id = read.id.clone().or(last_id);
        if parser.remembers_id {
            read.id.clone_from(&last_id);
        }
        expected.push(read);
    }
    let read = parser.run(&stream);
    for (n, (read, expected)) in read.iter().zip(&expected).enumerate() {
        assert_eq!(read, expected, "event {n} of seed {SEED:#x}");
    }
    assert_eq!(read.len(), expected.len());
}

impl Parser {
    fn run(&self, stream: &[u8]) -> Vec<Read> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), stream).unwrap();
        let program = if self.program.contains('/') { home.join(self.program) } else { self.program.into() };
        let output = Command::new(program).arg(home.join(self.script)).arg(file.path()).output();
        let output = output
            .unwrap_or_else(|e| panic!("{} cannot be started ({e}): run `make test-deps`", self.program));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{} failed; is it installed (`make test-deps`)?\n{complaint}",
            self.script
        );
        let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

fn event(rng: &mut StdRng, n: usize) -> (Block, Read) {
    const KINDS: [&str; 6] = ["job_progress", "data", "id", ":", " spaced ", "тип 🦀\u{2028}"];
    let kind = rng.random_bool(0.7).then(|| *KINDS.choose(rng).unwrap());
    let position = rng.random_bool(0.5).then_some(Position { epoch: 0x198_0000_0000, n: n as u64 });
    let data = data(rng);
    let read = Read {
        event: kind.unwrap_or("message").to_owned(),
        data: data.replace("\r\n", "\n").replace('\r', "\n"),
        id: position.map(|position| position.to_string()),
    };
    let kind = kind.map(|kind| EventType::parse(kind).unwrap());
    (Block::event(&Event { kind, ..Event::unnamed(data) }, position), read)
}

/// Texts in which everything that could matter to a parser is frequent, from none to some thousand bytes.
fn data(rng: &mut StdRng) -> String {
    const PARTS: [&str; 24] = [
        "\r",
        "\n",
        "\r\n",
        "\n\r",
        "\0",
        "\u{feff}",
        "\u{2028}",
        "\u{2029}",
        "\u{85}",
        "\u{b}",
        "\u{c}",
        "\u{1c}",
        "🦀",
        "é",
        ":",
        " ",
        "  ",
        "data: ",
        "id: 7",
        "event: x",
        "retry: 1",
        ": ping",
        "{\"id\":\"42\"}",
        "\t",
    ];
    let longest = if rng.random_bool(0.02) { 2000 } else { 12 };
    let mut text = String::new();
    for _ in 0..rng.random_range(0..=longest) {
        match rng.random_bool(0.7) {
            true => text.push_str(PARTS.choose(rng).unwrap()),
            false => text.push(rng.random::<char>()),
        }
    }
    text
}

fn control_event(rng: &mut StdRng) -> (Block, Read) {
    let (retry_ms, jobs) = (rng.random_range(0..60_000), ChannelName::parse("jobs").unwrap());
    let channels = std::slice::from_ref(&jobs);
    let hello = Hello {
        retry_ms,
        named: false,
        connection_id: "c",
        node: "n\r\n",
        channels,
        recovered: Some(true),
        position: None,
    };
    let (block, event, data) = match rng.random_range(0..4) {
        0 => {
            let data =
                r#"{"type":"hello","connectionId":"c","node":"n\r\n","channels":["jobs"],"recovered":true}"#;
            (hello.block(), "message", data.to_owned())
        }
        1 => {
            let data = format!(r#"{{"reason":"max_age","reconnect":true,"retryMs":{retry_ms}}}"#);
            (control::bye(CloseReason::MaxAge, retry_ms), "bye", data)
        }
        2 => {
            let data = r#"{"channel":"jobs","reason":"history_lost"}"#;
            (control::gap(&jobs, GapReason::HistoryLost), "gap", data.to_owned())
        }
        _ => {
            let data = format!(r#"{{"code":"ip_limit","retryMs":{retry_ms}}}"#);
            (control::limit("ip_limit", retry_ms), "limit", data)
        }
    };
    (block, Read { event: event.to_owned(), data, id: None })
}
