//! The subscribers: thousands of streams in one poller, each event counted by its number.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::checker::{Checker, Receipt};
use super::marker::{Carry, Scanner};
use super::response::{Part, ResponseReader};
use super::target::source;
use super::tracker::{Tracker, histogram};

/// What one `recv` may bring; shared by all connections.
const READ_BYTES: usize = 256 << 10;

/// `EINPROGRESS` on Linux: a connection that is being made.
const IN_PROGRESS: i32 = 115;

/// In a request: the number of the connection, from 0. Gives each a forwarded address or a session of its own.
pub(super) const NUMBER: &str = "{i}";

/// What the swarm needs to know about the server.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Where it listens.
    pub(super) address: SocketAddr,
    /// The bytes that ask for a stream; [`NUMBER`] in them stands for the number of the connection.
    pub(super) request: Vec<u8>,
    /// How many streams.
    pub(super) connections: usize,
    /// Over how many source addresses they are spread; 1 leaves the choice to the system.
    pub(super) sources: usize,
    /// What the numbers of this run's events begin with.
    pub(super) first_id: u64,
}

impl Plan {
    fn request_of(&self, index: usize) -> Cow<'_, [u8]> {
        if memchr::memmem::find(&self.request, NUMBER.as_bytes()).is_none() {
            return Cow::Borrowed(&self.request);
        }
        let request = String::from_utf8_lossy(&self.request);
        Cow::Owned(request.replace(NUMBER, &index.to_string()).into_bytes())
    }
}

#[derive(Debug)]
struct Connection {
    /// None once it has ended.
    socket: Option<TcpStream>,
    stage: Stage,
    reader: ResponseReader,
    carry: Carry,
    started: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Asked,
    Streaming,
    Ended,
}

/// What came of the connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// Streams that are open.
    pub(super) open: usize,
    /// Attempts that came to nothing, by their reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// Streams that ended before the run did.
    pub(super) closed: u64,
    /// Events of other runs or publishers.
    pub(super) foreign: u64,
    /// Bytes that were read.
    pub(super) bytes: u64,
}

/// All subscribers.
#[derive(Debug)]
pub(super) struct Swarm {
    plan: Plan,
    connections: Vec<Connection>,
    scanner: Scanner,
    buffer: Box<[u8]>,
    /// Of the whole run.
    pub(super) checker: Checker,
    /// So far.
    pub(super) counts: Counts,
    /// Until the TCP connection stood, in microseconds.
    pub(super) connect: Histogram<u64>,
    /// Until the first byte of the answer, in microseconds.
    pub(super) first_byte: Histogram<u64>,
}

impl Swarm {
    pub(super) fn new(plan: Plan) -> Result<Self> {
        Ok(Self {
            connections: Vec::with_capacity(plan.connections),
            scanner: Scanner::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            checker: Checker::new(plan.connections, 0),
            counts: Counts::default(),
            connect: histogram()?,
            first_byte: histogram()?,
            plan,
        })
    }

    /// How many connections have been begun.
    pub(super) fn begun(&self) -> usize {
        self.connections.len()
    }

    /// How many have an outcome: a stream or a refusal.
    pub(super) fn decided(&self) -> usize {
        let refused: u64 = self.counts.refused.values().sum();
        self.counts.open + (self.counts.closed + refused) as usize
    }

    /// Begins the next connection; its token is its index.
    pub(super) fn begin(&mut self, registry: &Registry, now: u64) {
        let index = self.connections.len();
        let mut connection = Connection {
            socket: None,
            stage: Stage::Connecting,
            reader: ResponseReader::default(),
            carry: Carry::default(),
            started: now,
        };
        match connect(&self.plan, index, registry) {
            Ok(socket) => connection.socket = Some(socket),
            Err(error) => {
                connection.stage = Stage::Ended;
                self.refuse(&error);
            }
        }
        self.connections.push(connection);
    }

    fn refuse(&mut self, why: &anyhow::Error) {
        *self.counts.refused.entry(format!("{why:#}")).or_default() += 1;
    }

    /// Something has happened on connection `index`.
    pub(super) fn ready(&mut self, index: usize, event: &Event, now: u64, tracker: &mut Tracker) {
        let outcome = self.advance(index, event, now, tracker);
        if !matches!(outcome, Ok(true)) {
            self.end(index, outcome.err(), tracker);
        }
    }

    /// Whether the connection lives on.
    fn advance(&mut self, index: usize, event: &Event, now: u64, tracker: &mut Tracker) -> Result<bool> {
        let connection = &mut self.connections[index];
        let Some(socket) = &mut connection.socket else {
            return Ok(true); // an event that was under way when it ended
        };
        if connection.stage == Stage::Connecting {
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
            if !event.is_writable() {
                return Ok(true);
            }
            self.connect.saturating_record(now.saturating_sub(connection.started));
            // A fresh socket takes more than a request at once.
            socket.write_all(&self.plan.request_of(index))?;
            connection.stage = Stage::Asked;
        }
        if event.is_readable() || event.is_read_closed() {
            return self.read(index, event.is_read_closed(), now, tracker);
        }
        Ok(true)
    }

    /// Reads what is there. A read that does not fill the buffer has emptied the socket (epoll(7), question 9), which
    /// saves a second system call for every delivery; only a closed one is read to its end.
    fn read(&mut self, index: usize, closed: bool, now: u64, tracker: &mut Tracker) -> Result<bool> {
        loop {
            let connection = &mut self.connections[index];
            let Some(socket) = &mut connection.socket else {
                return Ok(false);
            };
            let read = match socket.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if connection.stage == Stage::Asked {
                self.first_byte.saturating_record(now.saturating_sub(connection.started));
            }
            self.counts.bytes += read as u64;
            if !self.take(index, read, now, tracker)? {
                return Ok(false);
            }
            if read < self.buffer.len() && !closed {
                return Ok(true);
            }
        }
    }

    /// Takes what has been read; false at the end of the answer.
    fn take(&mut self, index: usize, read: usize, now: u64, tracker: &mut Tracker) -> Result<bool> {
        let Self { connections, buffer, scanner, checker, counts, plan, .. } = self;
        let Connection { stage, reader, carry, .. } = &mut connections[index];
        let stream = &mut checker.streams[index];
        let mut on_number = |id: u64| match id.checked_sub(plan.first_id) {
            Some(n) if n < tracker.published() => {
                if stream.receive(n) != Receipt::Duplicate {
                    tracker.delivered(n, now);
                }
            }
            _ => counts.foreign += 1,
        };
        let mut ended = false;
        reader.feed(&buffer[..read], &mut |part| {
            match part {
                Part::Head { status: 200 } => {
                    *stage = Stage::Streaming;
                    counts.open += 1;
                }
                Part::Head { status } => anyhow::bail!("HTTP status {status}"),
                Part::Payload(payload) => scanner.scan(carry, payload, &mut on_number),
                Part::End => ended = true,
            }
            Ok(())
        })?;
        Ok(!ended)
    }

    /// Accounts for the end of a connection.
    fn end(&mut self, index: usize, why: Option<anyhow::Error>, tracker: &mut Tracker) {
        let connection = &mut self.connections[index];
        connection.socket = None; // closes it, which takes it out of the poller
        match std::mem::replace(&mut connection.stage, Stage::Ended) {
            Stage::Streaming => {
                self.counts.open -= 1;
                self.counts.closed += 1;
                let stream = &self.checker.streams[index];
                let missed: Vec<_> = tracker.range().filter(|n| !stream.has(*n)).collect();
                missed.into_iter().for_each(|n| tracker.forgive(n));
            }
            Stage::Ended => {}
            Stage::Connecting | Stage::Asked => {
                self.refuse(&why.unwrap_or_else(|| anyhow::anyhow!("closed without an answer")));
            }
        }
    }

    /// Closes everything at once, without leaving ports in TIME-WAIT for the next run.
    pub(super) fn close(self) {
        for socket in self.connections.into_iter().filter_map(|connection| connection.socket) {
            // What fails here fails because the socket has gone already.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }
}

fn connect(plan: &Plan, index: usize, registry: &Registry) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(plan.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if plan.sources > 1 {
        socket.bind(&source(index % plan.sources).into())?;
    }
    match socket.connect(&plan.address.into()) {
        Err(error) if error.raw_os_error() != Some(IN_PROGRESS) => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let mut socket = TcpStream::from_std(socket.into());
    registry.register(&mut socket, Token(index), Interest::READABLE | Interest::WRITABLE)?;
    Ok(socket)
}
