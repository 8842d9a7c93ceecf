//! Whatever we give to a handler, a `hyper` server gives to its service: the same requests, and no other.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};

use crate::dice::Dice;
use crate::differential::high_minor;
use crate::reader::{DEFAULT, End, Seen, read_whole};

pub fn check(data: &[u8]) {
    let mut ours = read_whole(data, DEFAULT);
    // Where we refuse, we are stricter, and hyper may go on. Where we wait for more, or have closed, it may not.
    let mut may_go_on = matches!(ours.end, End::Refused(_));
    // Behind an answer that closes nothing is read, by us or by anybody.
    let closing = ours.requests.iter().position(|seen| !seen.keeps_alive);
    if let Some(last) = closing {
        ours.requests.truncate(last + 1);
        may_go_on = false;
    }
    // hyper passes over a Connection field that is not visible ASCII as a whole; the options in it that we do read may
    // say that the connection ends, or that it stays.
    if let Some(unread) = ours.requests.iter().position(|seen| !is_connection_text(&seen.head.fields)) {
        ours.requests.truncate(unread + 1);
        may_go_on = true;
    }
    // hyper keeps targets as URIs of the `http` crate, which refuses a few that are text all the same. Nobody is
    // misled by that: hyper refuses the request, and closes.
    let starts = std::iter::once(0).chain(ours.requests.iter().map(|seen| seen.end));
    let odd = starts.zip(&ours.requests).position(|(start, _)| !is_uri(data, start));
    if let Some(odd) = odd {
        ours.requests.truncate(odd);
        may_go_on = true;
    }

    let mut patched = data.to_vec();
    let mut start = 0;
    for seen in &ours.requests {
        if let Some(minor) = high_minor(&data[start..]) {
            patched[start + minor] = b'1';
        }
        start = seen.end;
    }
    if let (Some(minor), false) = (high_minor(&data[start..]), closing.is_some()) {
        patched[start + minor] = b'1';
    }
    let theirs = serve(patched, &mut Dice::of(data));
    assert!(theirs.len() >= ours.requests.len(), "hyper has read {} of {}", theirs.len(), ours.requests.len());
    for (ours, theirs) in ours.requests.iter().zip(&theirs) {
        compare(ours, theirs);
    }
    if !may_go_on {
        assert_eq!(theirs.len(), ours.requests.len(), "requests that hyper has read (left) beyond ours");
    }
}

/// A request as hyper reads it.
#[derive(Debug)]
struct Theirs {
    method: String,
    path_and_query: Option<String>,
    authority: Option<String>,
    is_1_1: bool,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

#[track_caller]
fn compare(ours: &Seen, theirs: &Theirs) {
    let head = &ours.head;
    assert_eq!(head.method, theirs.method, "method (hyper right)");
    assert_eq!(head.is_1_1, theirs.is_1_1, "version (hyper right)");
    let mut path_and_query = head.path.clone();
    if path_and_query == "*" && theirs.authority.is_some() {
        // RFC 9112 §3.2.4; of an absolute target hyper keeps a URI, whose path is `/` for whatever method.
        path_and_query = "/".to_owned();
    }
    if let Some(query) = &head.query {
        path_and_query = path_and_query + "?" + query;
    }
    assert_eq!(Some(&path_and_query), theirs.path_and_query.as_ref(), "path and query (hyper right)");
    if let Some(authority) = &theirs.authority {
        assert_eq!(head.host.as_ref(), Some(authority), "host (hyper right)");
    }
    // hyper sorts fields by name, and joins names that differ in case.
    let sorted = |fields: &[(String, Vec<u8>)]| {
        let mut fields: Vec<_> =
            fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        fields.sort_by(|one, two| one.0.cmp(&two.0));
        fields
    };
    assert_eq!(sorted(&head.fields), sorted(&theirs.fields), "fields (hyper right)");
    assert_eq!(ours.body, theirs.body, "body (hyper right)");
}

/// True if hyper can keep this request's target.
fn is_uri(data: &[u8], start: usize) -> bool {
    let mut words = data[start..].split(|byte| *byte == b' ');
    words.nth(1).is_some_and(|target| hyper::Uri::try_from(target).is_ok())
}

/// True if hyper reads this head's Connection fields.
fn is_connection_text(fields: &[(String, Vec<u8>)]) -> bool {
    let mut values = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("connection")).map(|(_, value)| value);
    values.all(|value| value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')))
}

/// What a hyper server gives its service when these bytes come, and then the end.
fn serve(data: Vec<u8>, dice: &mut Dice) -> Vec<Theirs> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let (head, body) = request.into_parts();
            // A body that breaks off is no request.
            if let Ok(body) = body.collect().await {
                let fields = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
                seen.lock().unwrap().push(Theirs {
                    method: head.method.to_string(),
                    path_and_query: head.uri.path_and_query().map(ToString::to_string),
                    authority: head.uri.authority().map(ToString::to_string),
                    is_1_1: head.version == Version::HTTP_11,
                    fields: fields.collect(),
                    body: body.to_bytes().to_vec(),
                });
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let pipe = Pipe { data, read: 0, piece_max: 1 + dice.below(4096) };
    let connection = http1::Builder::new().half_close(true).header_read_timeout(None).serve_connection(pipe, service);
    let mut connection = pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    // All that it may wait for is its own turn.
    let mut turns = 0;
    while connection.as_mut().poll(&mut context).is_pending() {
        turns += 1;
        assert!(turns < 10_000, "hyper goes on for ever");
    }
    let mut seen = seen.lock().unwrap();
    std::mem::take(&mut *seen)
}

/// The client: it has sent everything, and takes everything.
struct Pipe {
    data: Vec<u8>,
    read: usize,
    piece_max: usize,
}

impl Read for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let end = self.data.len().min(self.read + self.piece_max.min(buffer.remaining()));
        buffer.put_slice(&self.data[self.read..end]);
        self.read = end;
        Poll::Ready(Ok(()))
    }
}

impl Write for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
