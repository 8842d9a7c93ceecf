//! A handler that has been called: for which request, and when.

use std::borrow::Cow;
use std::time::Instant;

use super::buffer::ReadBuffer;
use super::streaming::Arriving;
use crate::http::{Method, Peer, Request, Response, Status};
use crate::sync::{self, Arc};

/// How many bytes of a path to keep, to report handlers that never returned.
const PATH_BYTES_MAX: usize = 256;

/// A handler that has been called. The report of handlers that never returned names it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As the client sent it; only the beginning if it is long.
    pub(crate) path: Vec<u8>,
    pub(crate) since: Instant,
    /// When the request had come: it may have waited for a permit.
    pub(crate) asked: Instant,
    /// What had been read after the request.
    pub(crate) behind: Vec<u8>,
    /// The request's body, if the handler reads it itself.
    pub(crate) body: Option<Arc<Arriving>>,
    /// The peer has reset, and nobody waits for the answer. The connection stays until the handler returns.
    pub(crate) is_deserted: bool,
}

impl Call {
    /// The path as text. It may have been cut in the middle of a character.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// How long ago it was called, in seconds with one decimal. Without floating point, whose code would enlarge a
    /// small binary.
    pub(crate) fn age(&self) -> String {
        let age = sync::now() - self.since;
        let tenths = age.as_secs() * 10 + u64::from(age.subsec_millis() / 100);
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    /// A handler that is called at `now`, for a request that had come at `asked`.
    pub(crate) fn new(request: &Request<'_>, asked: Instant, now: Instant) -> Self {
        let (method, path) = (request.method(), kept_path(request).to_vec());
        Self { method, path, since: now, asked, behind: Vec::new(), body: None, is_deserted: false }
    }

    /// At the deadline: true if the whole request has come, so that its answer is owed.
    pub(crate) fn is_owed(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.has_come())
    }
}

/// The handler that is being called. Each call reuses the same memory and allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// `None` before the first.
    current: Option<(Method, Instant)>,
    path: Vec<u8>,
    /// What had been read after requests of one load of the buffer, from the first request that had something after it.
    /// Copied once for all of them, since a handler's thread has the buffer while it runs.
    behind: Vec<u8>,
    /// Which load that is (0: none), and where in it the copy begins.
    version: u64,
    start: usize,
    /// Where in the copy the bytes after the current request begin.
    from: usize,
}

impl Calls {
    /// Takes the current call, for the connection to keep.
    pub(crate) fn take(&mut self) -> Option<Call> {
        let (method, since) = self.current.take()?;
        let behind = self.behind.get(self.from..).unwrap_or_default().to_vec();
        // The thread that runs the loop from now on has another buffer, whose loads have the same numbers.
        (self.version, self.from) = (0, self.behind.len());
        let path = std::mem::take(&mut self.path);
        Some(Call { method, path, since, asked: since, behind, body: None, is_deserted: false })
    }

    /// Notes that the handler is called for the request in the buffer.
    pub(crate) fn note(&mut self, buffer: &ReadBuffer, peer: &Peer, now: Instant) {
        let request = buffer.request(peer);
        self.path.clear();
        self.path.extend_from_slice(kept_path(&request));
        self.current = Some((request.method(), now));
        self.note_behind(buffer);
    }

    fn note_behind(&mut self, buffer: &ReadBuffer) {
        let (load, bytes, end) = buffer.contents();
        if end == bytes.len() {
            self.from = self.behind.len();
            return;
        }
        if self.version != load {
            self.behind.clear();
            self.behind.extend_from_slice(bytes.get(end..).unwrap_or_default());
            (self.version, self.start) = (load, end);
        }
        self.from = end - self.start;
    }
}

/// As much of a path as is kept.
pub(crate) fn kept_path<'a>(request: &Request<'a>) -> &'a [u8] {
    let path = request.raw_path_bytes();
    path.get(..PATH_BYTES_MAX).unwrap_or(path)
}

/// The answer to a request whose handler has failed.
pub(crate) fn internal_error() -> Response {
    Response::text("internal server error\n").with_status(Status::INTERNAL_SERVER_ERROR).last()
}
