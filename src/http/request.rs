//! A whole request, as a handler sees it: borrowed from the bytes that it came in.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use super::grammar::unescaped;
use super::head::Head;
use super::headers::Headers;
use super::method::{Method, Version};
use super::pattern::Pattern;
use super::streamed::{BodyReader, ReadBody, Source};
use super::target::Target;

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Peer {
    /// Over TCP, from this address.
    Tcp(SocketAddr),
    /// Over a Unix socket, whose file permissions say who may.
    Unix,
}

impl Peer {
    /// True if the peer is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            // An IPv4 peer of a dual-stack listener comes as ::ffff:127.0.0.1.
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix socket"),
        }
    }
}

/// Whether a client is still there, whoever can tell.
pub(crate) trait Presence: Sync {
    fn present(&self) -> Present;
}

/// How much of a client is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Present {
    There,
    /// It has ended its side: it may have closed, or still read.
    Ended,
    /// Nobody will read the answer.
    Gone,
}

/// A whole request. It is cheap to copy: all of it is borrowed.
///
/// ```
/// use allout::{Request, Response, Status};
///
/// // POST /shelves/7/books?copies=2
/// fn add(request: &Request<'_>) -> Result<Response, Status> {
///     let shelf = request.param("shelf").ok_or(Status::NOT_FOUND)?;
///     let copies = request.query().and_then(|query| query.strip_prefix("copies="));
///     let kind = request.headers().get_str("content-type").unwrap_or_default();
///     let book = std::str::from_utf8(request.body()).map_err(|_| Status::BAD_REQUEST)?;
///     let text = format!("{copies:?} of {book} ({kind}) on shelf {shelf}\n");
///     Ok(Response::text(text).with_status(Status::CREATED))
/// }
///
/// let router = allout::Router::new().post("/shelves/{shelf}/books", add);
/// ```
#[derive(Clone, Copy)]
pub struct Request<'a> {
    head: &'a Head,
    target: &'a Target,
    /// From the request's first byte on; what was found in them is told by positions.
    bytes: &'a [u8],
    body: Source<'a>,
    peer: &'a Peer,
    pattern: Option<&'a Pattern>,
    /// `None`: nobody can tell.
    client: Option<&'a dyn Presence>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(head: &'a Head, target: &'a Target, bytes: &'a [u8], body: &'a [u8], peer: &'a Peer) -> Self {
        Self { head, target, bytes, body: Source::Held(body), peer, pattern: None, client: None }
    }

    /// The same request, its path matched by a pattern with captures, if by any.
    pub(crate) fn matched(self, pattern: Option<&'a Pattern>) -> Self {
        Self { pattern: pattern.or(self.pattern), ..self }
    }

    /// The same request, its body still to be read.
    pub(crate) fn reading(self, source: &'a dyn ReadBody) -> Self {
        Self { body: Source::Arriving(source), ..self }
    }

    /// The same request, of a client that can be looked at.
    pub(crate) fn of(self, client: &'a dyn Presence) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The method.
    pub fn method(&self) -> Method {
        self.head.method()
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.head.version()
    }

    /// The path with its escapes decoded; `*` for a server-wide `OPTIONS`. `%2F` becomes a slash like any other here:
    /// to tell them apart, use [`raw_path`](Self::raw_path) or a capture of the router.
    pub fn path(&self) -> Cow<'a, str> {
        decoded(self.raw_path())
    }

    /// The path as it was sent. An absolute target without a path has `/` (RFC 9110 §4.2.3); for `OPTIONS`, if there is
    /// no query either, `*` (RFC 9112 §3.2.4).
    pub fn raw_path(&self) -> &'a str {
        self.text(self.raw_path_bytes())
    }

    /// The same, for those who compare or keep it: to look at it as text takes time.
    pub(crate) fn raw_path_bytes(&self) -> &'a [u8] {
        match self.target.path.of(self.bytes) {
            [] if self.method() == Method::Options && self.target.query.is_none() => b"*",
            [] => b"/",
            path => path,
        }
    }

    /// What stood behind the first `?`, as it was sent.
    pub fn query(&self) -> Option<&'a str> {
        self.target.query.map(|span| self.text(span.of(self.bytes)))
    }

    /// The decoded part of the path that a route's `{name}` stands for.
    pub fn param(&self, name: &str) -> Option<Cow<'a, str>> {
        self.pattern.and_then(|pattern| pattern.capture(self.raw_path(), name)).map(decoded)
    }

    /// The host and port that the request is for: of an absolute target, else of `Host` (RFC 9112 §3.3). None only on
    /// HTTP/1.0.
    pub fn host(&self) -> Option<&'a str> {
        match self.target.authority {
            Some(span) => Some(self.text(span.of(self.bytes))),
            None => self.headers().get_str("host"),
        }
    }

    /// The header fields.
    pub fn headers(&self) -> Headers<'a> {
        Headers::new(self.head.fields(), self.bytes)
    }

    /// The body, whole, its transfer coding removed; at most as large as the limit that holds for it. Empty if it is
    /// streamed.
    pub fn body(&self) -> &'a [u8] {
        match self.body {
            Source::Held(bytes) => bytes,
            Source::Arriving(_) => &[],
        }
    }

    /// Reads the body: as it arrives, if it is [streamed](crate::BodyPlan::Stream), on from where any other reader of
    /// it has come to; else what [`body`](Self::body) has, from its beginning.
    pub fn body_reader(&self) -> BodyReader<'a> {
        BodyReader::new(self.body)
    }

    /// Who sent it.
    pub fn peer(&self) -> &'a Peer {
        self.peer
    }

    /// True once nobody can read the answer: the client has reset its connection, or the server has closed it at the
    /// deadline of a stop. For a handler that works long, to ask now and then.
    ///
    /// Over TCP, a client that closes is not known to have gone before it resets: at first it sends the same as one
    /// that ends its own side alone and waits for the answer. [`client_has_ended`](Self::client_has_ended) is true for
    /// both. A client that closes a Unix socket has gone at once. A client whose machine vanishes is never known to
    /// have gone. Behind a proxy, the client is the proxy.
    ///
    /// The first call takes some milliseconds, unless the body is [streamed](crate::BodyPlan::Stream), and each other
    /// one system call. False where nobody can tell: in [`answer()`](crate::answer()), and in a handler that answers
    /// [at once](crate::Handler::is_at_once) while all others are busy. Without the feature `sys`, and on other systems
    /// than Linux, also on Unix sockets, and while bytes that nobody has read hide the reset; there, a call may take a
    /// second while the body is streamed.
    ///
    /// ```
    /// use allout::{Response, Router, Status};
    ///
    /// let router = Router::new().get("/report", |request| {
    ///     let mut sum = 0_u64;
    ///     for part in 0..1000 {
    ///         if request.client_has_gone() {
    ///             return Err(Status::REQUEST_TIMEOUT); // nobody will see it
    ///         }
    ///         sum += part; // takes its time
    ///     }
    ///     Ok(Response::text(sum.to_string()))
    /// });
    /// ```
    pub fn client_has_gone(&self) -> bool {
        self.present() == Present::Gone
    }

    /// True once the client has ended its side, or [has gone](Self::client_has_gone): it sends nothing more. Nearly all
    /// clients that do so have closed, and read no answer; a few wait for one, and get it. Costs and exceptions are
    /// those of [`client_has_gone`](Self::client_has_gone).
    pub fn client_has_ended(&self) -> bool {
        self.present() >= Present::Ended
    }

    fn present(&self) -> Present {
        self.client.map_or(Present::There, Presence::present)
    }

    // A target and a valid Host are ASCII, so that they are always text.
    fn text(&self, bytes: &'a [u8]) -> &'a str {
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method())
            .field("path", &self.raw_path())
            .field("query", &self.query())
            .field("headers", &self.headers())
            .field("body_bytes", &self.body().len())
            .field("peer", self.peer())
            .finish()
    }
}

/// A path or a part of one, decoded. It was found to be UTF-8 when the head was read.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('%') {
        Cow::Owned(String::from_utf8_lossy(&unescaped(text.as_bytes())).into_owned())
    } else {
        Cow::Borrowed(text)
    }
}
