//! What answers requests.

use super::request::Request;
use super::response::Response;

/// Answers requests: a function from a [`Request`] to a [`Response`], called on many threads at once.
///
/// Any `Fn(&Request<'_>) -> R` is one whose `R` is `Into<Response>`, and so are a [`Router`](crate::Router) and what
/// [`around`] makes. By hand it is written where there is more to say than that:
///
/// ```
/// use std::io;
/// use allout::{BodyPlan, Handler, Request, Response, Status};
///
/// /// Counts the bytes of a body of any length, if its sender may.
/// struct Count;
///
/// impl Handler for Count {
///     fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
///         if may(request) { BodyPlan::Stream } else { BodyPlan::Refuse }
///     }
///
///     fn handle(&self, request: &Request<'_>) -> Response {
///         if !may(request) {
///             return Status::FORBIDDEN.into();
///         }
///         match io::copy(&mut request.body_reader(), &mut io::sink()) {
///             Ok(bytes) => Response::text(format!("{bytes}\n")),
///             // Not sent: the body's own fault is answered.
///             Err(_) => Status::BAD_REQUEST.into(),
///         }
///     }
/// }
///
/// fn may(request: &Request<'_>) -> bool {
///     request.headers().get("x-key") == Some(b"secret")
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    note = "a handler is a function from `&Request<'_>` to what is `Into<Response>`, or a `Router`, which can be cloned"
)]
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. A panic is caught: the client gets 500 and its connection closes.
    fn handle(&self, request: &Request<'_>) -> Response;

    /// Asked for each request that has a body, once its head has come, maybe more than once: what is to become of the
    /// body. That of this request is empty. It is called on the thread of an event loop, whose other clients wait
    /// meanwhile.
    fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
        let _ = request;
        BodyPlan::Hold
    }

    /// True for a request that [`handle`](Self::handle) answers without blocking. It is then called even if
    /// [`Config::handlers_max`](crate::Config::handlers_max) handlers run already, and before requests that wait for
    /// one of them to end: for what must be heard when everything is busy, such as health checks, a request to stop,
    /// metrics. It is called on the thread of an event loop, whose other clients wait meanwhile, and must not stream
    /// its answer.
    fn is_at_once(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }
}

/// What is to become of a request's body, as its [`Handler::body_plan`] has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyPlan {
    /// It is held in memory: [`Handler::handle`] is called once it has come, and finds it in
    /// [`Request::body`](crate::Request::body). One of more than
    /// [`Config::body_bytes_max`](crate::Config::body_bytes_max) bytes is answered 413.
    #[default]
    Hold,
    /// The same with a limit of its own, in bytes. All bodies together have theirs,
    /// [`Config::bodies_bytes_max`](crate::Config::bodies_bytes_max).
    HoldUpTo(usize),
    /// It is read as it arrives, of any length: [`Handler::handle`] is called at once, and reads it by
    /// [`Request::body_reader`](crate::Request::body_reader). What is left of it when that returns is not read, and the
    /// connection closes.
    Stream,
    /// It is not needed. A client that waits for `100 Continue` is not told to send it (RFC 9110 §10.1.1):
    /// [`Handler::handle`] is called without a body, to answer 404 for example, and the connection closes. Whatever
    /// else comes is held as ever.
    Refuse,
}

impl<F, R> Handler for F
where
    F: Fn(&Request<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    fn handle(&self, request: &Request<'_>) -> Response {
        self(request).into()
    }
}

/// What a wrapper calls to have a request answered by what it is [`around`].
pub type Next<'a> = dyn Fn(&Request<'_>) -> Response + 'a;

/// A handler around another: whatever that answers passes through `wrap`, which can answer in its place, add to its
/// answer, or look on. A refusal that needs no body passes through it too, and a body that is streamed reaches the
/// inner handler. Where the inner one [answers at once](Handler::is_at_once), `wrap` must not block either.
///
/// ```
/// use allout::{Response, Router, Status, around};
///
/// let router = Router::new().get("/secret", |_| Response::text("42"));
/// let guarded = around(router, |request, next| {
///     if request.headers().get("authorization") != Some(b"Bearer token") {
///         return Response::new(Status::UNAUTHORIZED)
///             .with_field("WWW-Authenticate", "Bearer");
///     }
///     next(request).with_field("Cache-Control", "no-store")
/// });
/// ```
///
/// What the server itself refuses, a malformed request for example, reaches no handler and no wrapper.
#[doc(alias = "middleware")]
pub fn around<R: Into<Response>>(
    inner: impl Handler,
    wrap: impl Fn(&Request<'_>, &Next<'_>) -> R + Send + Sync + 'static,
) -> impl Handler {
    Around { inner, wrap }
}

struct Around<H, F> {
    inner: H,
    wrap: F,
}

impl<H, F, R> Handler for Around<H, F>
where
    H: Handler,
    F: Fn(&Request<'_>, &Next<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    fn handle(&self, request: &Request<'_>) -> Response {
        (self.wrap)(request, &|request| self.inner.handle(request)).into()
    }

    fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
        self.inner.body_plan(request)
    }

    fn is_at_once(&self, request: &Request<'_>) -> bool {
        self.inner.is_at_once(request)
    }
}
