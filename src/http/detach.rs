//! Taking a socket away from hyper once the head of a stream's answer is written.
//!
//! hyper keeps some 16 KiB of buffers and a task for every open response; a bare socket in the hub costs a few hundred
//! bytes. So: the stream route answers with a [`StreamBody`]. hyper polls a body for its first frame after it has encoded
//! the head; that first poll moves the [`Attachment`] into the [`Handover`] that the driver of the connection watches. As
//! soon as hyper has flushed all it had, `into_parts` gives the socket back and hyper's buffers go.
//!
//! The first poll comes before the flush in the same turn, and the flush may have to wait. [`Watched`] tells when it is
//! through: hyper calls `poll_flush` on its transport only with an empty buffer of its own.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use bytes::Bytes;
use http_body::Frame;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::node::{Attachment, Socket};
use crate::protocol::sse::Framing;

/// A request's head must have arrived within this, also the first one and the next on a kept connection.
const HEADER_LIMIT: Duration = Duration::from_secs(10);

/// The greatest head of a request, in bytes; more is answered 431.
const MAX_HEAD: usize = 16 * 1024;

/// Header lines of a request; more is answered 431.
const MAX_HEADERS: usize = 100;

/// How long the head of a stream's answer may take to leave.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// How long a client may take nothing at all of an answer that waits for it; then its socket, which others may need, is
/// closed. Streams are not meant: the hub has limits of its own for them.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Where the attachment waits between the body and the driver of the connection. Handlers get it as request extension.
#[derive(Clone, Default)]
pub(super) struct Handover(Arc<Shared>);

#[derive(Default)]
struct Shared {
    attachment: Mutex<Option<(Attachment, Framing)>>,
    flushed: AtomicBool,
}

impl Handover {
    /// The body of the stream's answer. Dropped before its first poll (the client left, or only asked for the head) it
    /// gives the attachment back.
    pub(super) fn body(&self, attachment: Attachment, framing: Framing) -> Body {
        Body::new(StreamBody { attachment: Some((attachment, framing)), handover: self.clone() })
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<(Attachment, Framing)>> {
        self.0.attachment.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct StreamBody {
    attachment: Option<(Attachment, Framing)>,
    handover: Handover,
}

impl http_body::Body for StreamBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(attachment) = self.attachment.take() {
            *self.handover.slot() = Some(attachment);
        }
        Poll::Pending
    }
}

/// Serves requests on a socket until it ends (`None`) or is to become a stream.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    stop: CancellationToken,
) -> Option<(Attachment, Socket)> {
    // Fails on a dead socket, which the first read reports.
    let _ = stream.set_nodelay(true);
    let handover = Handover::default();
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(handover.clone());
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let io = Watched { io: TokioIo::new(stream), handover: handover.clone(), stalled: None };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(io, service);
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let mut flush_limit = pin!(sleep(Duration::MAX));
    let mut limited = false;
    let detached = poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        // An error here is the client's doing (garbage, a time-out, a reset): hyper has answered what can be answered.
        let ended = Pin::new(&mut connection).poll(cx).is_ready();
        if handover.slot().is_some() {
            if handover.0.flushed.load(Ordering::Relaxed) {
                return Poll::Ready(true);
            }
            if !limited {
                limited = true;
                flush_limit.set(sleep(FLUSH_LIMIT));
            }
            if flush_limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(false);
            }
        }
        if ended { Poll::Ready(false) } else { Poll::Pending }
    })
    .await;
    if !detached {
        return None;
    }
    let (attachment, framing) = handover.slot().take()?;
    let stream = connection.into_parts().io.io.into_inner().into_std().ok()?;
    Some((attachment, Socket { stream, framing }))
}

/// The transport, which remembers whether everything written to it was flushed, and for how long nothing could be.
struct Watched {
    io: TokioIo<TcpStream>,
    handover: Handover,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    fn note(&self, flushed: bool) {
        self.handover.0.flushed.store(flushed, Ordering::Relaxed);
    }

    /// An error instead of waiting for ever.
    fn limited(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_LIMIT)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.note(false);
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.limited(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.note(matches!(flushed, Poll::Ready(Ok(()))));
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note(false);
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.limited(cx, written)
    }
}
