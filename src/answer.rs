//! A handler's answer without a socket, for tests.

use std::io::{Read, Result as IoResult};

use crate::http::{BodyWriter, Handler, Incoming, Limits, Method, Peer, Progress, ReadBody};
use crate::http::{Reject, Response};
use crate::server::Config;
use crate::sync::Mutex;

/// What a handler answers to the bytes of one request: a router, a wrapper, anything of one's own in a unit test. The
/// request is read as a [`Server`](crate::Server) reads it, by the limits of [`Config::default`]; what else has been
/// sent behind it is left alone.
///
/// Bodies are held and streamed as the handler wants them. A response that is streamed is written to its end, and has
/// its body in [`Response::body`]; where there is none on the wire, to HEAD for example, it is empty. What is to be
/// called [on sending](Response::on_sent) is called when the response is dropped.
///
/// ```
/// use allout::{Peer, Response, Router, Status, answer};
///
/// let router = Router::new().get("/users/{id}", |request| {
///     Response::text(format!("user {}\n", request.param("id").unwrap_or_default()))
/// });
///
/// let request = "GET /users/7 HTTP/1.1\r\nHost: test\r\n\r\n";
/// let response = answer(&router, request, &Peer::Unix)?;
/// assert_eq!(response.body(), b"user 7\n");
/// let request = "GET /nobody HTTP/1.1\r\nHost: test\r\n\r\n";
/// let response = answer(&router, request, &Peer::Unix)?;
/// assert_eq!(response.status(), Status::NOT_FOUND);
/// # Ok::<(), allout::Reject>(())
/// ```
///
/// # Errors
///
/// [`Reject`], if a server would have refused the request; [`Reject::Timeout`], if it is not all there.
///
/// # Panics
///
/// If the handler panics, or if what writes a streamed body fails.
pub fn answer(handler: &(impl Handler + ?Sized), request: impl AsRef<[u8]>, peer: &Peer) -> Result<Response, Reject> {
    let (limits, mut bytes, mut incoming) = (Config::default().limits(), request.as_ref().to_vec(), Incoming::new());
    let is_streamed = read(handler, &mut incoming, &mut bytes, &limits, peer)?;
    let request = incoming.request(&bytes, peer);
    let streamed = Streamed(Mutex::new(request.body()));
    let mut response = if is_streamed { handler.handle(&request.reading(&streamed)) } else { handler.handle(&request) };
    let has_body = request.method() != Method::Head && !response.status().is_bodiless();
    let write = response.take_write();
    if let (Some(write), true) = (write, has_body) {
        let (mut body, length) = (Vec::new(), response.length());
        if let Some(Err(failure)) = write.call(&mut BodyWriter::new(&mut body, length)) {
            panic!("the stream failed: {failure}");
        }
        response.hold(body);
    }
    if !has_body {
        response.hold(Vec::new());
    }
    Ok(response)
}

/// Reads a whole request. True if its handler wants the body as it arrives.
fn read(
    handler: &(impl Handler + ?Sized),
    incoming: &mut Incoming,
    bytes: &mut [u8],
    limits: &Limits,
    peer: &Peer,
) -> Result<bool, Reject> {
    let mut is_streamed = false;
    loop {
        match incoming.advance(bytes, limits)? {
            Progress::Whole => return Ok(is_streamed),
            Progress::Begun => {
                let plan = handler.body_plan(&incoming.request(bytes, peer));
                is_streamed = !incoming.follow(plan, bytes.len() == incoming.head_len(), &limits.body)?;
                if is_streamed {
                    incoming.hold_body(&limits.body.of_stream())?;
                }
            }
            Progress::Nothing | Progress::Head | Progress::Body => return Err(Reject::Timeout),
        }
    }
}

/// A body that has come, for whoever reads it as it arrives.
struct Streamed<'a>(Mutex<&'a [u8]>);

impl ReadBody for Streamed<'_> {
    fn read(&self, buffer: &mut [u8]) -> IoResult<usize> {
        self.0.lock().read(buffer)
    }
}
