//! A client with one keep-alive connection, which speaks HTTP by way of `hyper`.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::HANG;
use crate::ask::{Answer, Ask, Body};

/// How long a body that rests does so between two pieces.
const REST: Duration = Duration::from_millis(1);

/// What goes wrong where nobody listens begins with this.
pub(crate) const NO_CONNECTION: &str = "no connection";

/// A client that has been quiet for this long may find its connection closed by a server that drains, which has not said
/// so: less than half of the idle grace.
const QUIET: Duration = Duration::from_millis(100);

/// Where a server or a proxy listens.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// A client of one server.
#[derive(Debug)]
pub(crate) struct Client {
    place: Place,
    /// The connection of the exchange before, if nobody has said that it is to be closed.
    connection: Option<Connection>,
    /// It speaks with a server and not with a proxy, and asks anew where that has closed a quiet connection.
    renews: bool,
    /// How many connections it has needed.
    pub(crate) connects: u64,
    /// How often it has asked anew.
    pub(crate) renewals: u64,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Upload>,
    task: JoinHandle<()>,
    /// Since its last answer.
    quiet_since: Instant,
    written: Written,
}

/// When the first byte was written since the last answer.
type Written = Arc<Mutex<Option<Instant>>>;

impl Client {
    pub(crate) fn new(place: impl Into<Place>) -> Self {
        Self { place: place.into(), connection: None, renews: false, connects: 0, renewals: 0 }
    }

    pub(crate) fn renewing(self) -> Self {
        Self { renews: true, ..self }
    }

    /// Closes its connection.
    pub(crate) fn leave(&mut self) {
        self.connection = None;
    }

    /// Sends a request and reads its answer whole, on the connection of the one before if that was kept.
    ///
    /// # Errors
    ///
    /// What went wrong, as a text: no connection, no answer, one cut short.
    pub(crate) async fn exchange(&mut self, ask: &Ask) -> Result<Answer, String> {
        let kept = self.connection.as_ref().map(|kept| (kept.quiet_since, Arc::clone(&kept.written)));
        let answer = self.attempt_in_time(ask).await;
        let (Err(_), Some((since, written)), true) = (&answer, kept, self.renews) else { return answer };
        // Nothing can be said of a client that was left standing, and has written late.
        let wrote_at = written.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_else(Instant::now);
        if wrote_at.duration_since(since) <= QUIET {
            return answer;
        }
        self.renewals += 1;
        self.attempt_in_time(ask).await
    }

    async fn attempt_in_time(&mut self, ask: &Ask) -> Result<Answer, String> {
        let exchanged = tokio::time::timeout(HANG, self.attempt(ask)).await;
        let answer = exchanged.unwrap_or_else(|_| Err(format!("no whole answer in {HANG:?}")));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn attempt(&mut self, ask: &Ask) -> Result<Answer, String> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let is_open = connection.sender.ready().await;
        is_open.map_err(|error| describe("the connection was closed, which the answer before did not say", &error))?;
        let (continued, gate) = oneshot::channel();
        let upload = Upload::new(&ask.body, gate);
        let mut request = Request::builder().method(&ask.method).uri(&ask.target).version(ask.version);
        request = request.header(HOST, "demo.test");
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(upload).map_err(|error| format!("no request: {error}"))?;
        let continued = Mutex::new(Some(continued));
        hyper::ext::on_informational(&mut request, move |interim| {
            let continued = continued.lock().ok().and_then(|mut continued| continued.take());
            if let Some(continued) = continued.filter(|_| interim.status() == 100) {
                let _ = continued.send(());
            }
        });
        let response = connection.sender.send_request(request).await.map_err(|error| describe("no answer", &error))?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| describe("the answer is cut short", &error))?.to_bytes();
        // A body that was never asked for stays unsent, and with it the connection ends. An answer that comes before
        // the body has been read is the last, too: nginx, where it passes requests on as they come, closes the
        // connection behind it without having said so.
        let is_early = head.status == StatusCode::PAYLOAD_TOO_LARGE || is_unserved(head.status);
        let is_unfinished = is_early || ask.body.waits && head.status != StatusCode::OK;
        let says_close = head.headers.get(CONNECTION).is_some_and(|value| value == "close");
        if !is_unfinished && !says_close {
            *connection.written.lock().unwrap_or_else(PoisonError::into_inner) = None;
            connection.quiet_since = Instant::now();
            self.connection = Some(connection);
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn connect(&mut self) -> Result<Connection, String> {
        self.connects += 1;
        let stream = open(&self.place).await.map_err(|error| format!("{NO_CONNECTION}: {error}"))?;
        let written = Written::default();
        let stream = Timed { stream, written: Arc::clone(&written) };
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| describe(NO_CONNECTION, &error))?;
        // How it ends is told to whoever waits for an answer on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, task, quiet_since: Instant::now(), written })
    }
}

async fn open(place: &Place) -> io::Result<Pin<Box<dyn Stream>>> {
    Ok(match place {
        Place::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::pin(stream)
        }
        Place::Unix(path) => Box::pin(UnixStream::connect(path).await?),
    })
}

trait Stream: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Stream for T {}

/// A stream that notes when a request's first byte was written.
struct Timed {
    stream: Pin<Box<dyn Stream>>,
    written: Written,
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(self.stream.as_mut().poll_write(cx, bytes));
        // Afterwards, so that a write that came late is seen to.
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        Poll::Ready(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

/// True of the statuses by which a proxy says that it has no answer of the server's.
pub(crate) fn is_unserved(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An error with its causes.
fn describe(what: &str, error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.fold(what.to_owned(), |text, cause| format!("{text}: {cause}"))
}

/// A request's body while it is sent.
struct Upload {
    pieces: std::vec::IntoIter<Bytes>,
    /// Bytes that are left, if the length is told.
    left: Option<u64>,
    trailers: Option<HeaderMap>,
    gate: Gate,
    rest: Option<Pin<Box<Sleep>>>,
}

/// What holds a body back until it is asked for.
enum Gate {
    Open,
    /// `100 Continue` opens it.
    Waiting(oneshot::Receiver<()>),
    /// The answer has come without `100 Continue`: the body is not sent at all.
    Shut,
}

impl Upload {
    fn new(body: &Body, gate: oneshot::Receiver<()>) -> Self {
        let length = body.pieces.iter().map(|piece| piece.len() as u64).sum();
        Self {
            pieces: body.pieces.clone().into_iter(),
            left: (!body.is_chunked).then_some(length),
            trailers: body.trailers.clone(),
            gate: if body.waits { Gate::Waiting(gate) } else { Gate::Open },
            rest: body.rests.then(|| Box::pin(tokio::time::sleep(REST))),
        }
    }
}

impl hyper::body::Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if let Gate::Waiting(gate) = &mut this.gate {
            let continued = ready!(Pin::new(gate).poll(cx));
            this.gate = if continued.is_ok() { Gate::Open } else { Gate::Shut };
        }
        if let Gate::Shut = this.gate {
            return Poll::Pending;
        }
        if let Some(rest) = &mut this.rest {
            ready!(rest.as_mut().poll(cx));
            rest.as_mut().reset(tokio::time::Instant::now() + REST);
        }
        let frame = match this.pieces.next() {
            Some(piece) => {
                this.left = this.left.map(|left| left - piece.len() as u64);
                Some(Frame::data(piece))
            }
            None => this.trailers.take().map(Frame::trailers),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
