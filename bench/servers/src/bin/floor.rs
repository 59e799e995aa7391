//! The floor: one thread that takes each message from Redis and calls `send()` once for every subscriber.
//!
//! No HTTP parsing, no queues, no time-outs, no way to leave: what remains is what the kernel asks for a delivery. Nothing
//! that delivers one event per write can be cheaper.
//!
//! `floor LISTEN REDIS CHANNEL`

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};

const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nevent: connected\ndata: {}\n\n";

fn main() -> Result<()> {
    let [listen, redis, channel] =
        std::env::args().skip(1).collect::<Vec<_>>().try_into().ok().context("floor LISTEN REDIS CHANNEL")?;
    let listener = bind(listen.parse()?)?;
    let (accepted, arrivals) = sync_channel(65_536);
    std::thread::spawn(move || accept(&listener, &accepted));
    fan_out(&mut subscribe(&redis, &channel)?, &arrivals)
}

/// Listens with a backlog that takes a storm.
fn bind(listen: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Answers every request with the same head, whatever it asks for.
fn accept(listener: &TcpListener, accepted: &SyncSender<TcpStream>) {
    for stream in listener.incoming() {
        if let Ok(stream) = stream.and_then(greet) {
            let _ = accepted.send(stream);
        }
    }
}

fn greet(mut stream: TcpStream) -> std::io::Result<TcpStream> {
    let mut request = [0; 4096];
    let mut length = 0;
    while !request[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut request[length..])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            n => length += n,
        }
    }
    stream.write_all(HEAD)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Subscribes and reads the confirmation: `*3`, `$9`, `subscribe`, `$n`, the channel, `:1`.
fn subscribe(redis: &str, channel: &str) -> Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(redis)?;
    write!(stream, "SUBSCRIBE {channel}\r\n")?;
    let mut reader = BufReader::new(stream);
    for _ in 0..6 {
        line(&mut reader)?;
    }
    Ok(reader)
}

fn fan_out(redis: &mut BufReader<TcpStream>, arrivals: &Receiver<TcpStream>) -> Result<()> {
    let mut subscribers = Vec::new();
    let mut block = Vec::new();
    loop {
        let payload = next_message(redis)?;
        subscribers.extend(arrivals.try_iter());
        block.clear();
        block.extend_from_slice(b"event: bench\ndata: ");
        block.extend_from_slice(&payload);
        block.extend_from_slice(b"\n\n");
        subscribers.retain_mut(|stream| match stream.write(&block) {
            Ok(_) => true,
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        });
    }
}

/// The payload of the next message: `*3`, `$7`, `message`, `$n`, the channel, `$n`, the payload.
fn next_message(redis: &mut BufReader<TcpStream>) -> Result<Vec<u8>> {
    for _ in 0..5 {
        line(redis)?;
    }
    let length: usize = line(redis)?.trim_start_matches('$').parse()?;
    let mut payload = vec![0; length + 2];
    redis.read_exact(&mut payload)?;
    payload.truncate(length);
    Ok(payload)
}

fn line(redis: &mut BufReader<TcpStream>) -> Result<String> {
    let mut text = String::new();
    if redis.read_line(&mut text)? == 0 {
        bail!("Redis closed the connection");
    }
    text.truncate(text.trim_end().len());
    Ok(text)
}
