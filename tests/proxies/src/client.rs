//! A client with one keep-alive connection, which speaks HTTP by way of `hyper`.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONNECTION, HOST};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::HANG;
use crate::ask::{Answer, Ask, Body};

/// How long a body that rests does so between two pieces.
const REST: Duration = Duration::from_millis(1);

/// A client of one server.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    /// The connection of the exchange before, if nobody has said that it is to be closed.
    connection: Option<Connection>,
    /// How many connections it has needed.
    pub(crate) connects: u64,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Upload>,
    task: JoinHandle<()>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None, connects: 0 }
    }

    /// Sends a request and reads its answer whole, on the connection of the one before if that was kept.
    ///
    /// # Errors
    ///
    /// What went wrong, as a text: no connection, no answer, one cut short.
    pub(crate) async fn exchange(&mut self, ask: &Ask) -> Result<Answer, String> {
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
            self.connection = Some(connection);
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn connect(&mut self) -> Result<Connection, String> {
        self.connects += 1;
        let stream = TcpStream::connect(self.address).await.map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).map_err(|error| format!("no connection: {error}"))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| describe("no connection", &error))?;
        // How it ends is told to whoever waits for an answer on it.
        let task = tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, task })
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
