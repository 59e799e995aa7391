//! The publisher: one non-blocking connection in the same poller as the subscribers, so that nothing is handed between
//! threads and an event's time is that of its own bytes. It pipelines, over HTTP and to Redis alike.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::response::{Part, ResponseReader};

/// Events that may wait for their answer; the pace waits beyond it.
const MAX_PENDING: usize = 256;

/// Stands for the event's data in a template.
pub(super) const PLACEHOLDER: &str = "{data}";

/// How events are published.
#[derive(Clone, Debug)]
pub(super) enum Way {
    /// `POST`, answered with any 2xx.
    Http(super::target::Target, Vec<String>),
    /// `PUBLISH` on this channel, after these commands.
    Redis {
        /// Where it listens.
        address: SocketAddr,
        /// The whole channel, prefix included.
        channel: String,
        /// `AUTH`, `SELECT`.
        prelude: Vec<Vec<String>>,
    },
}

/// What the server said to one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It took it.
    Accepted,
    /// It did not, with its reason.
    Refused(String),
}

/// A publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    way: Way,
    template: String,
    token: Token,
    socket: TcpStream,
    replies: Replies,
    out: Vec<u8>,
    written: usize,
    /// Numbers and bytes of what has no answer yet.
    pending: VecDeque<(u64, Vec<u8>)>,
    answered_here: bool,
    /// When the oldest of them began to wait alone for its answer, in microseconds.
    waiting_since: u64,
    /// How often the connection was made again: servers end kept connections after so many requests.
    pub(super) reconnects: u64,
}

impl Publisher {
    /// Connects; `template` is the body or payload, with [`PLACEHOLDER`] where the data goes.
    ///
    /// # Errors
    /// When no connection can be begun.
    pub(super) fn new(way: Way, template: String, token: Token, registry: &Registry) -> Result<Self> {
        let socket = connect(&way, token, registry)?;
        let replies = Replies::new(&way);
        let out = way.prelude();
        Ok(Self {
            way,
            template,
            token,
            socket,
            replies,
            out,
            written: 0,
            pending: VecDeque::new(),
            answered_here: false,
            waiting_since: 0,
            reconnects: 0,
        })
    }

    /// How many events it takes now.
    pub(super) fn room(&self) -> u64 {
        (MAX_PENDING - self.pending.len().min(MAX_PENDING)) as u64
    }

    /// How many events have no answer yet.
    pub(super) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// For how long the server has answered nothing, though it owes an answer; in microseconds.
    pub(super) fn unanswered_for(&self, now: u64) -> u64 {
        if self.pending.is_empty() { 0 } else { now.saturating_sub(self.waiting_since) }
    }

    /// Takes event `n`; [`flush`](Self::flush) sends it.
    pub(super) fn push(&mut self, n: u64, data: &str, now: u64) {
        if self.pending.is_empty() {
            self.waiting_since = now;
        }
        let bytes = self.way.encode(&self.template.replace(PLACEHOLDER, data));
        self.out.extend_from_slice(&bytes);
        self.pending.push_back((n, bytes));
    }

    /// Sends what the socket takes; the rest goes when it is writable again.
    ///
    /// # Errors
    /// When the connection is broken and cannot be made again.
    pub(super) fn flush(&mut self, registry: &Registry) -> Result<()> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.reconnect(registry, error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Something has happened on its socket: sends, reads, and calls `on` for every answer.
    ///
    /// # Errors
    /// When the connection is broken and cannot be made again, or the answers make no sense.
    pub(super) fn ready(
        &mut self,
        registry: &Registry,
        now: u64,
        on: &mut impl FnMut(u64, Answer),
    ) -> Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return self.reconnect(registry, error.into());
        }
        self.flush(registry)?;
        let mut buffer = [0; 16 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return self.reconnect(registry, anyhow::anyhow!("it closes the connection")),
                Ok(read) => {
                    self.take(&buffer[..read], on)?;
                    self.waiting_since = now;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.reconnect(registry, error.into()),
            }
        }
    }

    fn take(&mut self, bytes: &[u8], on: &mut impl FnMut(u64, Answer)) -> Result<()> {
        let Self { replies, pending, answered_here, .. } = self;
        replies.feed(bytes, &mut |answer| {
            let (n, _) = pending.pop_front().context("the publisher got an answer to nothing")?;
            *answered_here = true;
            on(n, answer);
            Ok(())
        })
    }

    /// Connects again and repeats what has no answer, in its order. A server that closes before it has answered anything
    /// is not asked for ever.
    fn reconnect(&mut self, registry: &Registry, why: anyhow::Error) -> Result<()> {
        if !std::mem::take(&mut self.answered_here) {
            return Err(why.context(format!("cannot publish to {}", self.way.address())));
        }
        self.reconnects += 1;
        self.socket = connect(&self.way, self.token, registry)?;
        self.replies = Replies::new(&self.way);
        self.out = self.way.prelude();
        self.written = 0;
        self.pending.iter().for_each(|(_, bytes)| self.out.extend_from_slice(bytes));
        Ok(())
    }
}

fn connect(way: &Way, token: Token, registry: &Registry) -> Result<TcpStream> {
    let address = way.address();
    let mut socket = TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
    socket.set_nodelay(true)?;
    registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok(socket)
}

impl Way {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Http(target, _) => target.address,
            Self::Redis { address, .. } => *address,
        }
    }

    fn prelude(&self) -> Vec<u8> {
        match self {
            Self::Http(..) => Vec::new(),
            Self::Redis { prelude, .. } => prelude.iter().flat_map(|command| resp(command)).collect(),
        }
    }

    fn encode(&self, body: &str) -> Vec<u8> {
        match self {
            Self::Http(target, headers) => target.post(headers, body),
            Self::Redis { channel, .. } => resp(&["PUBLISH", channel, body]),
        }
    }
}

/// A Redis command (RESP, array of bulk strings).
fn resp(words: &[impl AsRef<str>]) -> Vec<u8> {
    let words = words.iter().map(AsRef::as_ref);
    let head = format!("*{}\r\n", words.len());
    words.fold(head, |text, word| format!("{text}${}\r\n{word}\r\n", word.len())).into_bytes()
}

/// Reads answers.
#[derive(Debug)]
enum Replies {
    Http(ResponseReader, u16),
    Redis {
        /// Of a line that is not complete.
        line: Vec<u8>,
        /// Answers to the prelude that are still to come.
        prelude: usize,
    },
}

impl Replies {
    fn new(way: &Way) -> Self {
        match way {
            Way::Http(..) => Self::Http(ResponseReader::default(), 0),
            Way::Redis { prelude, .. } => Self::Redis { line: Vec::new(), prelude: prelude.len() },
        }
    }

    fn feed(&mut self, bytes: &[u8], on: &mut impl FnMut(Answer) -> Result<()>) -> Result<()> {
        match self {
            Self::Http(reader, last) => reader.feed(bytes, &mut |part| match part {
                Part::Head { status } => {
                    *last = status;
                    Ok(())
                }
                Part::Payload(_) => Ok(()),
                Part::End => match *last {
                    100..200 => Ok(()),
                    200..300 => on(Answer::Accepted),
                    status => on(Answer::Refused(format!("HTTP status {status}"))),
                },
            }),
            Self::Redis { line, prelude } => {
                for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
                    line.extend_from_slice(piece);
                    if line.ends_with(b"\r\n") {
                        redis_reply(line, prelude, on)?;
                        line.clear();
                    }
                }
                Ok(())
            }
        }
    }
}

fn redis_reply(line: &[u8], prelude: &mut usize, on: &mut impl FnMut(Answer) -> Result<()>) -> Result<()> {
    let text = String::from_utf8_lossy(&line[..line.len() - 2]);
    let answer = match text.as_bytes().first() {
        Some(b'+' | b':') => Answer::Accepted,
        Some(b'-') => Answer::Refused(text[1..].to_owned()),
        _ => bail!("Redis answers something unexpected: {text:?}"),
    };
    match (*prelude, answer) {
        (0, answer) => on(answer),
        (_, Answer::Refused(why)) => bail!("Redis refuses the login: {why}"),
        (left, Answer::Accepted) => {
            *prelude = left - 1;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(way: &Way, chunks: &[&str]) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let mut replies = Replies::new(way);
        for chunk in chunks {
            replies.feed(chunk.as_bytes(), &mut |answer| {
                answers.push(answer);
                Ok(())
            })?;
        }
        Ok(answers)
    }

    fn redis(prelude: &[&[&str]]) -> Way {
        let prelude =
            prelude.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect()).collect();
        Way::Redis { address: ([127, 0, 0, 1], 6379).into(), channel: "fanlight:jobs".into(), prelude }
    }

    #[test]
    fn a_redis_command_is_encoded_with_its_lengths_in_bytes() {
        let expected = "*3\r\n$7\r\nPUBLISH\r\n$13\r\nfanlight:jobs\r\n$2\r\nü\r\n";
        assert_eq!(redis(&[]).encode("ü"), expected.as_bytes());
        assert_eq!(redis(&[&["SELECT", "1"]]).prelude(), b"*2\r\n$6\r\nSELECT\r\n$1\r\n1\r\n");
    }

    #[test]
    fn redis_answers_are_read_wherever_they_are_cut() {
        let way = redis(&[&["SELECT", "1"]]);
        let read = answers(&way, &["+O", "K\r\n:1\r", "\n:0\r\n-OOM no", "\r\n"]).unwrap();
        assert_eq!(read, [Answer::Accepted, Answer::Accepted, Answer::Refused("OOM no".into())]);
        assert!(answers(&way, &["-WRONGPASS\r\n"]).is_err());
        assert!(answers(&way, &["$5\r\n"]).is_err());
    }

    #[test]
    fn http_answers_are_told_by_their_status() {
        let target = super::super::target::Target::http("http://127.0.0.1:1/api/events").unwrap();
        let way = Way::Http(target, Vec::new());
        let text =
            "HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n";
        let read = answers(&way, &[text]).unwrap();
        assert_eq!(read, [Answer::Accepted, Answer::Refused("HTTP status 413".into())]);
    }
}
