//! What a handler answers.

use std::borrow::Cow;
use std::fmt;

use super::given::{AfterAnswer, OnFault};
use super::grammar::{is_tchar, is_value};
use super::status::Status;
use super::streamed::{BodyWriter, WriteBody};

/// A header field that cannot be put into a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FieldError {
    /// The name is not a token (RFC 9110 §5.1).
    Name,
    /// The value has a line break or another control character, which would let whoever wrote it forge a response.
    Value,
    /// `Connection`, `Content-Length`, `Date`, `Keep-Alive`, `Trailer`, `Transfer-Encoding` and `Upgrade` are the
    /// server's to write.
    Reserved,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the field name is not a token",
            Self::Value => "the field value has a control character",
            Self::Reserved => "the server itself writes this field",
        })
    }
}

impl std::error::Error for FieldError {}

const RESERVED: [&str; 7] =
    ["connection", "content-length", "date", "keep-alive", "trailer", "transfer-encoding", "upgrade"];

/// What [`Response::text`] has.
const TEXT: &str = "text/plain; charset=utf-8";
const CONTENT_TYPE: &str = "Content-Type";

/// What becomes of the connection after a response, unless its client or the server has other reasons to close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Then {
    Keep,
    /// It closes, after the responses to what the client has sent behind the request already.
    CloseInOrder,
    /// It closes, whatever has been sent behind the request.
    CloseNow,
}

/// A response. `Date`, the length and `Connection` are added when it is sent, and the body is left out where HTTP
/// forbids one: on HEAD, 204 and 304.
#[derive(Debug)]
#[must_use]
pub struct Response {
    status: Status,
    fields: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    content_type: ContentType,
    body: Body,
    then: Then,
    after: AfterAnswer,
}

impl Response {
    /// A response without a body.
    pub const fn new(status: Status) -> Self {
        Self {
            status,
            fields: Vec::new(),
            content_type: ContentType::None,
            body: Body::Whole(Cow::Borrowed(&[])),
            then: Then::Keep,
            after: AfterAnswer::new(),
        }
    }

    /// 200 with plain text in UTF-8.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            content_type: ContentType::Text,
            body: Body::Whole(Content::from(text.into()).0),
            ..Self::new(Status::OK)
        }
    }

    /// 200 with content of a media type: of a `String`, a `Vec<u8>`, or what is there for ever.
    ///
    /// ```
    /// let response = allout::Response::bytes("application/json", r#"{"answer": 42}"#);
    /// ```
    ///
    /// # Panics
    ///
    /// If the media type has a control character, as [`with_field`](Self::with_field).
    #[track_caller]
    pub fn bytes(content_type: impl Into<Cow<'static, str>>, content: impl Into<Content>) -> Self {
        let body = Body::Whole(content.into().0);
        Self { body, ..Self::new(Status::OK) }.with_field(CONTENT_TYPE, content_type)
    }

    /// 200 with a body that `write` makes: sent as it is written, chunked on HTTP/1.1 (RFC 9112 §7.1) and until the
    /// connection's end on 1.0. For HEAD, `write` is not called.
    ///
    /// `write` runs on the handler's thread, behind the handler, and counts as one with it: it may block, and a stop
    /// waits for it until the deadline. Its length can be said before it is made: [`with_length`](Self::with_length).
    /// The head is sent with the first 16 KiB of the body, or when `write` flushes or has returned. If it fails or
    /// panics before, the client is answered 500; after that, the connection is closed without the body's end, so that
    /// the client sees that something is missing. Either is told
    /// ([`Notice::StreamFailed`](crate::Notice::StreamFailed)).
    ///
    /// ```
    /// use std::io::Write;
    /// use allout::{Response, Router};
    ///
    /// let router = Router::new().get("/numbers", |_| {
    ///     Response::stream("text/plain; charset=utf-8", |out| {
    ///         for n in 0..1_000_000 {
    ///             writeln!(out, "{n}")?;
    ///         }
    ///         Ok(())
    ///     })
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// As [`bytes`](Self::bytes).
    #[track_caller]
    pub fn stream(
        content_type: impl Into<Cow<'static, str>>,
        write: impl FnOnce(&mut BodyWriter<'_>) -> std::io::Result<()> + Send + 'static,
    ) -> Self {
        let body = Body::Streamed(Box::new(Streamed { write: Some(WriteBody::new(write)), length: None }));
        Self { body, ..Self::new(Status::OK) }.with_field(CONTENT_TYPE, content_type)
    }

    /// How many bytes the body of [`stream`](Self::stream) is going to have: it is sent with a `Content-Length` in
    /// place of chunks, which HEAD gets too, and which lets a client of HTTP/1.0 keep its connection. If it turns out
    /// to be another length, if it fails or panics, or if a stop's deadline comes before its end, the connection is
    /// closed short of that length, so that every client and proxy sees that something is missing. A write of more
    /// than was said fails.
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::{self, Read};
    /// use allout::{Response, Status};
    ///
    /// fn download(path: &str) -> Result<Response, Status> {
    ///     let file = File::open(path).map_err(|_| Status::NOT_FOUND)?;
    ///     let length = file.metadata().map_err(|_| Status::NOT_FOUND)?.len();
    ///     let response = Response::stream("application/octet-stream", move |out| {
    ///         io::copy(&mut file.take(length), out).map(drop)
    ///     });
    ///     Ok(response.with_length(length))
    /// }
    /// ```
    ///
    /// A body that is not streamed has its own length, whatever is said here.
    pub fn with_length(mut self, bytes: u64) -> Self {
        if let Body::Streamed(streamed) = &mut self.body {
            streamed.length = Some(bytes);
        }
        self
    }

    /// Plain text in UTF-8 as the body, in place of any other, and of what `Content-Type` there was.
    pub fn with_text(mut self, text: impl Into<Cow<'static, str>>) -> Self {
        self.content_type = ContentType::Text;
        self.body = Body::Whole(Content::from(text.into()).0);
        self
    }

    /// Another status.
    pub fn with_status(self, status: Status) -> Self {
        Self { status, ..self }
    }

    /// One more header field; a `Content-Type` replaces that which there was.
    ///
    /// # Panics
    ///
    /// If the field cannot be sent; for a value that comes from outside, use [`try_field`](Self::try_field).
    #[track_caller]
    pub fn with_field(self, name: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) -> Self {
        match self.try_field(name, value) {
            Ok(response) => response,
            Err(error) => panic!("cannot add a header field: {error}"),
        }
    }

    /// One more header field; a `Content-Type` replaces that which there was.
    ///
    /// # Errors
    ///
    /// [`FieldError`] if the field cannot be sent.
    pub fn try_field(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, FieldError> {
        let (name, value) = (name.into(), value.into());
        if name.is_empty() || !name.bytes().all(is_tchar) {
            return Err(FieldError::Name);
        }
        if !value.bytes().all(is_value) {
            return Err(FieldError::Value);
        }
        if RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(FieldError::Reserved);
        }
        // A response says what it is at most once (RFC 9110 §8.3).
        if name.eq_ignore_ascii_case(CONTENT_TYPE) {
            self.content_type = ContentType::Other(value);
        } else {
            self.fields.push((name, value));
        }
        Ok(self)
    }

    /// Closes the connection after this response, and after those to requests that the client has sent behind it
    /// already: the last of them says `Connection: close`.
    pub fn closing(self) -> Self {
        Self { then: self.then.max(Then::CloseInOrder), ..self }
    }

    /// Calls `then` once the whole response has been handed to the operating system, or can no longer be. Several are
    /// called in order.
    ///
    /// It runs on the thread of an event loop and must not block. A panic in it is caught and told
    /// ([`Notice::HandlerPanicked`](crate::Notice::HandlerPanicked)), and costs nobody else anything.
    pub fn on_sent(mut self, then: impl FnOnce() + Send + 'static) -> Self {
        self.after.push(then);
        self
    }

    /// The status.
    pub fn status(&self) -> Status {
        self.status
    }

    /// The body, as it would be answered to GET; empty if it is streamed.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Whole(bytes) => bytes,
            Body::Streamed(_) => &[],
        }
    }

    /// The value of the first field of this name that was added, without regard to case.
    ///
    /// ```
    /// let response = allout::Response::text("moved").with_field("Location", "/new");
    /// assert_eq!(response.field("location"), Some("/new"));
    /// ```
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The header fields that were added, `Content-Type` first.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let content_type = match &self.content_type {
            ContentType::None => None,
            ContentType::Text => Some(TEXT),
            ContentType::Other(text) => Some(text.as_ref()),
        };
        content_type.map(|value| (CONTENT_TYPE, value)).into_iter().chain(self.other_fields())
    }

    /// The header fields without `Content-Type`.
    pub(crate) fn other_fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    pub(crate) fn content_type(&self) -> &ContentType {
        &self.content_type
    }

    /// The length of the body, if it is known before it is made.
    pub(crate) fn length(&self) -> Option<u64> {
        match &self.body {
            Body::Whole(bytes) => Some(bytes.len() as u64),
            Body::Streamed(streamed) => streamed.length,
        }
    }

    /// Closes the connection after this response, whatever has been sent behind its request.
    pub(crate) fn last(self) -> Self {
        Self { then: Then::CloseNow, ..self }
    }

    pub(crate) fn then(&self) -> Then {
        self.then
    }

    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.body, Body::Streamed(_))
    }

    /// True if a body is still to be written behind the head.
    pub(crate) fn needs_writing(&self, head_only: bool) -> bool {
        self.is_streamed() && !head_only && !self.status.is_bodiless()
    }

    /// What writes the body of a streamed response, once.
    pub(crate) fn take_write(&mut self) -> Option<WriteBody> {
        match &mut self.body {
            Body::Whole(_) => None,
            Body::Streamed(streamed) => streamed.write.take(),
        }
    }

    /// The body has been written.
    pub(crate) fn hold(&mut self, body: Vec<u8>) {
        self.body = Body::Whole(Cow::Owned(body));
    }

    /// Has the end of this answer told: how many bytes of a streamed body have left, and whether all of it has.
    pub(crate) fn tell_end(&mut self, tell: impl FnOnce(u64, bool) + Send + 'static) {
        self.after.tell_end(tell);
    }

    pub(crate) fn take_after(&mut self) -> AfterAnswer {
        std::mem::take(&mut self.after)
    }

    /// True if closures of the handler's come with it.
    pub(crate) fn has_closures(&self) -> bool {
        !self.after.is_empty() || matches!(&self.body, Body::Streamed(streamed) if streamed.write.is_some())
    }

    /// The handler has given the response away: from now on, `on_fault` hears of what its closures do wrong.
    pub(crate) fn tell_faults(&mut self, on_fault: &OnFault) {
        self.after.tell(on_fault);
        if let Body::Streamed(streamed) = &mut self.body {
            streamed.write.iter_mut().for_each(|write| write.tell(on_fault));
        }
    }
}

/// A status alone, without a body.
impl From<Status> for Response {
    fn from(status: Status) -> Self {
        Self::new(status)
    }
}

/// What went well, or the answer to what did not: so that a handler can use `?`.
impl<T: Into<Self>, E: Into<Self>> From<Result<T, E>> for Response {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(Into::into, Into::into)
    }
}

/// What the body of a response is made from: text or bytes, owned or there for ever. See [`Response::bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content(Cow<'static, [u8]>);

macro_rules! contents {
    ($($from:ty, $content:ident => $cow:expr;)*) => {
        $(impl From<$from> for Content {
            fn from($content: $from) -> Self {
                Self($cow)
            }
        })*
    };
}

contents! {
    &'static str, text => Cow::Borrowed(text.as_bytes());
    String, text => Cow::Owned(text.into_bytes());
    &'static [u8], bytes => Cow::Borrowed(bytes);
    Vec<u8>, bytes => Cow::Owned(bytes);
    Cow<'static, [u8]>, bytes => bytes;
    Cow<'static, str>, text => match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    };
}

impl<const N: usize> From<&'static [u8; N]> for Content {
    fn from(bytes: &'static [u8; N]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

/// What a response says that its body is.
#[derive(Debug)]
pub(crate) enum ContentType {
    None,
    /// That of nearly all short answers.
    Text,
    Other(Cow<'static, str>),
}

#[derive(Debug)]
enum Body {
    Whole(Cow<'static, [u8]>),
    /// In a box, so that those that are not streamed are no larger for it.
    Streamed(Box<Streamed>),
}

#[derive(Debug)]
struct Streamed {
    /// Until it is taken.
    write: Option<WriteBody>,
    length: Option<u64>,
}
