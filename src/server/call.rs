//! A handler that has been called: what for, and since when.

use std::borrow::Cow;
use std::time::Instant;

use super::buffer::ReadBuffer;
use super::streaming::Arriving;
use crate::http::{Method, Peer, Request, Response, Status};
use crate::sync::{self, Arc};

/// Bytes of a path that are kept for the report of handlers that never returned.
const PATH_BYTES_MAX: usize = 256;

/// A handler that has been called, for the report of those that never returned.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// As it was sent; the beginning, if it is long.
    pub(crate) path: Vec<u8>,
    pub(crate) since: Instant,
    /// What had been read behind the request.
    pub(crate) behind: Vec<u8>,
    /// The body, if the handler reads it itself.
    pub(crate) body: Option<Arc<Arriving>>,
    /// The peer has reset, and nobody waits for the answer. The connection stays until the handler returns.
    pub(crate) is_deserted: bool,
}

impl Call {
    /// As text. Where it was cut may have been in the middle of a character.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.path)
    }

    /// For how long, in seconds with one decimal. Without floating point, which takes its place in a small binary.
    pub(crate) fn age(&self) -> String {
        let tenths = (sync::now() - self.since).as_millis() / 100;
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    /// A handler that is called now.
    pub(crate) fn new(request: &Request<'_>, now: Instant) -> Self {
        let (method, path) = (request.method(), kept_path(request).to_vec());
        Self { method, path, since: now, behind: Vec::new(), body: None, is_deserted: false }
    }

    /// The deadline has come: true if the request has too, wholly, so that its answer is owed.
    pub(crate) fn is_owed(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.has_come())
    }
}

/// The handler that is being called. Written over and over in the same memory: a call allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// `None` before the first.
    current: Option<(Method, Instant)>,
    path: Vec<u8>,
    /// What has been read behind requests of the buffer's load, from the first on that had something behind it. Copied
    /// once for all of them: while a handler runs, its thread has the buffer.
    behind: Vec<u8>,
    /// Which load that is, none if 0, and where in it the copy begins.
    version: u64,
    start: usize,
    /// What is behind the current request begins here in the copy.
    from: usize,
}

impl Calls {
    /// What the handler was called for; somebody else needs it now.
    pub(crate) fn take(&mut self) -> Option<Call> {
        let (method, since) = self.current.take()?;
        let behind = self.behind.get(self.from..).unwrap_or_default().to_vec();
        // Whoever turns the loop from now on has another buffer, whose loads have the same numbers.
        (self.version, self.from) = (0, self.behind.len());
        Some(Call { method, path: std::mem::take(&mut self.path), since, behind, body: None, is_deserted: false })
    }

    /// The handler is called for the request in the buffer.
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

fn kept_path<'a>(request: &Request<'a>) -> &'a [u8] {
    let path = request.raw_path_bytes();
    path.get(..PATH_BYTES_MAX).unwrap_or(path)
}

/// The answer to a request whose handler has failed.
pub(crate) fn internal_error() -> Response {
    Response::text("internal server error\n").with_status(Status::INTERNAL_SERVER_ERROR).last()
}
