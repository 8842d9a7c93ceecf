//! What answers requests.

use super::request::Request;
use super::response::Response;
use super::streamed::BodyReader;

/// Answers requests: a function from a [`Request`] to a [`Response`], called on many threads at once.
///
/// Any `Fn(&Request<'_>) -> R` is one whose `R` is `Into<Response>`, and so is [`Router`](crate::Router).
pub trait Handler: Send + Sync + 'static {
    /// Answers a whole request. A panic is caught: the client gets 500 and its connection closes.
    fn handle(&self, request: &Request<'_>) -> Response;

    /// Asked before a client that waits for `100 Continue` is told to send its body (RFC 9110 §10.1.1): an answer
    /// that does not need the body, a 404 for example. `None`: send it. The body of this request is empty.
    fn refuse(&self, request: &Request<'_>) -> Option<Response> {
        let _ = request;
        None
    }

    /// True for a request that [`handle`](Self::handle) answers without blocking. It is then called even if
    /// [`Config::threads`](crate::Config::threads) handlers run already, and before requests that wait for one of them
    /// to end: for what must be heard when everything is busy, such as health checks, a request to stop, metrics. It is
    /// called on the thread of an event loop, whose other clients wait meanwhile, and must not stream its answer.
    fn is_at_once(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// True for a request whose body is to be read as it arrives: then [`handle_streaming`](Self::handle_streaming) is
    /// called, once the head has come, and the limit of a body held in memory does not hold. Asked for each request
    /// that has a body; the body of this one is empty.
    fn streams(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Answers a request whose body is read as it arrives. What is left of the body when this returns is not read, and
    /// the connection closes.
    fn handle_streaming(&self, request: &Request<'_>, body: &mut BodyReader<'_>) -> Response {
        let _ = body;
        self.handle(request)
    }
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
