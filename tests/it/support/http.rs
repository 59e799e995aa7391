//! One request on one connection, with every byte under the test's control.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::wait::secs;
use super::wire::{Framing, Head};

/// How long an answer may take before a test gives up.
const PATIENCE: Duration = secs(20);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    /// `GET path`.
    pub(crate) fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// `POST path` with JSON.
    pub(crate) fn post(path: &str, json: &Value) -> Self {
        Self::new("POST", path).header("Content-Type", "application/json").body(json.to_string())
    }

    /// Any method.
    pub(crate) fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and reads the whole answer; `Err` when there is none within 20 s.
    pub(crate) async fn send(&self, to: SocketAddr) -> Result<Response, String> {
        let mut text = format!("{} {} HTTP/1.1\r\nConnection: close\r\n", self.method, self.path);
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            text += &format!("Host: {to}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" {
            text += &format!("Content-Length: {}\r\n", self.body.len());
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        exchange(to, &bytes, self.method == "HEAD").await
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    /// Its head.
    pub(crate) head: Head,
    /// Its body, without its framing.
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// 200.
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("text")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {:?}", self.text()))
    }

    /// The contract's `code` of a refusal.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends `bytes` as they stand and reads one whole answer.
pub(crate) async fn exchange(to: SocketAddr, bytes: &[u8], head_only: bool) -> Result<Response, String> {
    let talk = async {
        let mut stream = TcpStream::connect(to).await.map_err(|e| format!("connect: {e}"))?;
        // The server may answer (413, 431) and stop reading before all is written: the answer still counts.
        let written = stream.write_all(bytes).await;
        let (head, mut buffer) =
            read_head(&mut stream).await.map_err(|e| format!("{e} (written: {written:?})"))?;
        let mut framing = if head_only { Framing::Length(0) } else { head.framing() };
        let mut body = framing.decode(&buffer);
        while !framing.is_complete() {
            buffer.clear();
            match stream.read_buf(&mut buffer).await {
                Ok(0) if matches!(framing, Framing::UntilClose) => break,
                Ok(0) => return Err(format!("the body ends early: {head:?}")),
                Ok(_) => body.extend(framing.decode(&buffer)),
                Err(e) => return Err(format!("read: {e}")),
            }
        }
        Ok(Response { head, body })
    };
    timeout(PATIENCE, talk).await.map_err(|_| format!("no whole answer within {PATIENCE:?}"))?
}

/// Reads up to the end of a head; also returns what came after it.
pub(crate) async fn read_head(stream: &mut TcpStream) -> Result<(Head, Vec<u8>), String> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        match stream.read_buf(&mut buffer).await {
            Ok(0) => return Err(format!("closed before a head: {:?}", String::from_utf8_lossy(&buffer))),
            Ok(_) => {}
            Err(e) => return Err(format!("read: {e}")),
        }
        if let Some(head) = Head::take(&mut buffer) {
            return Ok((head, buffer));
        }
    }
}

/// Connects, from the address `from` (any of 127.0.0.0/8) and with a receive buffer of that size, where given.
pub(crate) async fn connect(
    to: SocketAddr,
    from: Option<IpAddr>,
    receive_buffer: Option<u32>,
) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(ip) = from {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
