//! An SSE client that records every byte, and its own decoder, written from the HTML standard (section 9.2) and not from
//! Fanlight's encoder.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::http::{connect, read_head};
use super::wait::secs;
use super::wire::{Framing, Head};

/// What stands between two empty lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// The `event:` field.
    pub(crate) event: Option<String>,
    /// The `data:` lines, joined by LF.
    pub(crate) data: Option<String>,
    /// The `id:` field.
    pub(crate) id: Option<String>,
    /// The `retry:` field.
    pub(crate) retry: Option<u64>,
    /// The comments, without the colon and one space.
    pub(crate) comments: Vec<String>,
}

impl Block {
    /// The event's type; `message` when it has none.
    pub(crate) fn name(&self) -> &str {
        self.event.as_deref().unwrap_or("message")
    }

    /// The data; empty when there is none.
    pub(crate) fn text(&self) -> &str {
        self.data.as_deref().unwrap_or_default()
    }

    /// The data as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// A browser would dispatch it.
    pub(crate) fn is_event(&self) -> bool {
        self.data.is_some()
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "" => self.comments.push(value.to_owned()),
            "event" => self.event = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => *data = format!("{data}\n{value}"),
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|b| b.is_ascii_digit()) => self.retry = value.parse().ok(),
            _ => {}
        }
    }
}

/// From body bytes to blocks, wherever the bytes are cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    after_cr: bool,
    block: Block,
    lines: usize,
}

impl Decoder {
    /// Appends the blocks that `bytes` complete to `blocks`.
    ///
    /// # Panics
    /// When a line is not UTF-8.
    pub(crate) fn push(&mut self, bytes: &[u8], blocks: &mut VecDeque<Block>) {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else {
                self.line.extend_from_slice(rest);
                return;
            };
            self.line.extend_from_slice(&rest[..end]);
            self.end_line(blocks);
            self.after_cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
        }
    }

    fn end_line(&mut self, blocks: &mut VecDeque<Block>) {
        let line = String::from_utf8(std::mem::take(&mut self.line)).expect("UTF-8 on the wire");
        if !line.is_empty() {
            self.block.field(&line);
            self.lines += 1;
        } else if std::mem::take(&mut self.lines) > 0 {
            blocks.push_back(std::mem::take(&mut self.block));
        }
    }
}

/// How a stream ended, or that it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing came in time; the stream is open.
    TimedOut,
    /// Closed as its framing says: the last chunk, or plain end of an HTTP/1.0 answer.
    Clean,
    /// Closed in the middle of a chunked answer.
    Truncated,
    /// The connection was reset.
    Reset,
}

/// A stream to be opened.
#[derive(Clone, Debug)]
pub(crate) struct SseRequest {
    path: String,
    version: &'static str,
    headers: Vec<(String, String)>,
    from: Option<IpAddr>,
    receive_buffer: Option<u32>,
    last_event_id: Option<String>,
    record: bool,
}

impl SseRequest {
    /// `GET path` in HTTP/1.1.
    pub(crate) fn new(path: &str) -> Self {
        Self {
            path: path.to_owned(),
            version: "1.1",
            headers: Vec::new(),
            from: None,
            receive_buffer: None,
            last_event_id: None,
            record: true,
        }
    }

    /// In HTTP/1.0, as nginx asks by default.
    pub(crate) fn http10(mut self) -> Self {
        self.version = "1.0";
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// From this source address, any of 127.0.0.0/8.
    pub(crate) fn from(mut self, ip: impl Into<IpAddr>) -> Self {
        self.from = Some(ip.into());
        self
    }

    /// With a socket that takes little while nobody reads.
    pub(crate) fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// With the header `Last-Event-ID`.
    pub(crate) fn last_event_id(mut self, id: &str) -> Self {
        self.last_event_id = Some(id.to_owned());
        self
    }

    /// Keeps no raw bytes: for thousands of clients.
    pub(crate) fn unrecorded(mut self) -> Self {
        self.record = false;
        self
    }

    /// Opens it, whatever the status; `Err` when there is no answer at all within 20 s.
    pub(crate) async fn try_open(&self, to: SocketAddr) -> Result<SseClient, String> {
        let deadline = Instant::now() + secs(20);
        let opened = timeout_at(deadline, async {
            let mut stream =
                connect(to, self.from, self.receive_buffer).await.map_err(|e| format!("connect: {e}"))?;
            stream.write_all(self.head(to).as_bytes()).await.map_err(|e| format!("write: {e}"))?;
            let (head, rest) = read_head(&mut stream).await?;
            Ok::<_, String>((stream, head, rest))
        });
        let (stream, head, rest) = opened.await.map_err(|_| "no answer within 20 s".to_owned())??;
        let framing = head.framing();
        let mut client = SseClient {
            request: self.clone(),
            to,
            stream,
            head,
            framing,
            decoder: Decoder::default(),
            blocks: VecDeque::new(),
            wire: Vec::new(),
            body: Vec::new(),
            ended: None,
            last_event_id: self.last_event_id.clone(),
        };
        client.take(&rest);
        Ok(client)
    }

    /// Opens it.
    ///
    /// # Panics
    /// When it is not answered with 200.
    pub(crate) async fn open(&self, to: SocketAddr) -> SseClient {
        let client = self.try_open(to).await.unwrap_or_else(|e| panic!("GET {} from {to}: {e}", self.path));
        assert_eq!(client.head.status, 200, "GET {}: {:?} {:?}", self.path, client.head, client.body_text());
        client
    }

    fn head(&self, to: SocketAddr) -> String {
        let mut text =
            format!("GET {} HTTP/{}\r\nHost: {to}\r\nAccept: text/event-stream\r\n", self.path, self.version);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if let Some(id) = &self.last_event_id {
            text += &format!("Last-Event-ID: {id}\r\n");
        }
        text + "\r\n"
    }
}

/// An open stream. It reads only while it is asked for something: leave it alone and it is a reader that stopped.
#[derive(Debug)]
pub(crate) struct SseClient {
    request: SseRequest,
    to: SocketAddr,
    stream: TcpStream,
    /// The answer's head.
    pub(crate) head: Head,
    framing: Framing,
    decoder: Decoder,
    blocks: VecDeque<Block>,
    wire: Vec<u8>,
    body: Vec<u8>,
    ended: Option<End>,
    last_event_id: Option<String>,
}

impl SseClient {
    /// Opens `path` in HTTP/1.1.
    ///
    /// # Panics
    /// When it is not answered with 200.
    pub(crate) async fn open(to: SocketAddr, path: &str) -> Self {
        SseRequest::new(path).open(to).await
    }

    /// The next block of any kind, comments too.
    pub(crate) async fn next_block(&mut self, within: Duration) -> Result<Block, End> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return Ok(block);
            }
            if let Some(end) = self.ended {
                return Err(end);
            }
            self.read(deadline).await?;
        }
    }

    /// The next block with data.
    pub(crate) async fn next_event(&mut self, within: Duration) -> Result<Block, End> {
        let deadline = Instant::now() + within;
        loop {
            let block = self.next_block(deadline.saturating_duration_since(Instant::now())).await?;
            if block.is_event() {
                return Ok(block);
            }
        }
    }

    /// The next event, which must be named `name`.
    ///
    /// # Panics
    /// When another comes, or none within 10 s.
    pub(crate) async fn expect(&mut self, name: &str) -> Block {
        match self.next_event(secs(10)).await {
            Ok(event) if event.name() == name => event,
            other => panic!("expected {name}, got {other:?}; the stream so far:\n{}", self.body_text()),
        }
    }

    /// Every block up to the end of the stream, and that end.
    pub(crate) async fn rest(&mut self, within: Duration) -> (Vec<Block>, End) {
        let deadline = Instant::now() + within;
        let mut blocks = Vec::new();
        loop {
            match self.next_block(deadline.saturating_duration_since(Instant::now())).await {
                Ok(block) => blocks.push(block),
                Err(end) => return (blocks, end),
            }
        }
    }

    /// The answer's body bytes on the wire so far, with chunk frames.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The body so far, without chunk frames, as text.
    pub(crate) fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The sizes of the chunks so far; none in HTTP/1.0.
    pub(crate) fn chunk_sizes(&self) -> &[usize] {
        if let Framing::Chunked(chunks) = &self.framing { &chunks.sizes } else { &[] }
    }

    /// The id of the last event that had one.
    pub(crate) fn last_event_id(&self) -> Option<&str> {
        self.last_event_id.as_deref()
    }

    /// The client's own address.
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// The same request again on a new connection, with the last id, as a browser does.
    pub(crate) async fn reconnect(&self) -> Self {
        self.request_again().open(self.to).await
    }

    /// The request that [`reconnect`](Self::reconnect) sends.
    pub(crate) fn request_again(&self) -> SseRequest {
        SseRequest { last_event_id: self.last_event_id.clone(), ..self.request.clone() }
    }

    /// Closes with RST instead of FIN.
    pub(crate) fn reset(self) {
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    async fn read(&mut self, deadline: Instant) -> Result<(), End> {
        let mut bytes = Vec::with_capacity(16 * 1024);
        match timeout_at(deadline, self.stream.read_buf(&mut bytes)).await {
            Err(_) => return Err(End::TimedOut),
            Ok(Ok(0)) if matches!(self.framing, Framing::Chunked(_)) => self.ended = Some(End::Truncated),
            Ok(Ok(0)) => self.ended = Some(End::Clean),
            Ok(Ok(_)) => self.take(&bytes),
            Ok(Err(_)) => self.ended = Some(End::Reset),
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        let body = self.framing.decode(bytes);
        let seen = self.blocks.len();
        self.decoder.push(&body, &mut self.blocks);
        for block in self.blocks.range(seen..) {
            if let Some(id) = &block.id {
                self.last_event_id = Some(id.clone());
            }
        }
        if self.framing.is_complete() {
            self.ended = Some(End::Clean);
        }
        if self.request.record {
            self.wire.extend_from_slice(bytes);
            self.body.extend_from_slice(&body);
        }
    }
}

mod tests {
    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<Block> {
        let (mut decoder, mut blocks) = (Decoder::default(), VecDeque::new());
        pieces.iter().for_each(|piece| decoder.push(piece, &mut blocks));
        blocks.into()
    }

    #[test]
    fn blocks_are_the_same_however_the_bytes_are_cut() {
        let bytes = b": ping\n\nretry: 5\r\nevent: a\rdata: 1\ndata:2\nid: x\r\n\r\ndata\n\n";
        let whole = decode(&[bytes]);
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0].comments, ["ping"]);
        assert_eq!((whole[1].name(), whole[1].text(), whole[1].retry), ("a", "1\n2", Some(5)));
        assert_eq!(whole[1].id.as_deref(), Some("x"));
        assert_eq!((whole[2].name(), whole[2].data.as_deref()), ("message", Some("")));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&[&bytes[..cut], &bytes[cut..]]), whole);
        }
    }

    #[tokio::test]
    async fn a_client_tells_a_clean_end_from_a_cut_one() {
        for (body, end) in [("4\r\n:a\n\n\r\n0\r\n\r\n", End::Clean), ("4\r\n:a\n\n\r\n", End::Truncated)] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().unwrap();
            let server = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            };
            let (mut client, ()) = tokio::join!(SseClient::open(addr, "/"), server);
            let (blocks, seen) = client.rest(secs(5)).await;
            assert_eq!((blocks.len(), seen), (1, end));
            assert_eq!(client.wire(), body.as_bytes());
        }
    }
}
