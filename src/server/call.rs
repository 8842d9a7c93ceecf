//! A handler that has been called: for which request, and when.

use std::borrow::Cow;
use std::time::Instant;

use super::buffer::ReadBuffer;
use super::streaming::Arriving;
use crate::http::{Method, Peer, Request, Response, Status, Version};
use crate::sync::{self, Arc, AtomicUsize, Ordering};

/// How many bytes of a path to keep, to report handlers that never returned.
const PATH_BYTES_MAX: usize = 256;

/// A handler that has been called. The report of handlers that never returned names it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// The path as the client sent it: only the beginning if it is long. If each answer is told of, the whole, with the
    /// query.
    pub(crate) target: Vec<u8>,
    pub(crate) since: Instant,
    /// When the request had come: it may have waited for a permit.
    pub(crate) asked: Instant,
    /// What had been read after the request.
    pub(crate) behind: Vec<u8>,
    /// The request's body, if the handler reads it itself.
    pub(crate) body: Option<Arc<Arriving>>,
    /// If the handler sends its answer itself: how many answers before that have gone along to its thread, and have not
    /// left.
    pub(crate) ahead: Option<Arc<AtomicUsize>>,
    /// The peer has reset, and nobody waits for the answer. The connection stays until the handler returns.
    pub(crate) is_deserted: bool,
}

impl Call {
    /// The beginning of the path, as text. It may have been cut in the middle of a character.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        let path = self.target.split(|byte| *byte == b'?').next().unwrap_or_default();
        String::from_utf8_lossy(beginning(path))
    }

    /// How long ago it was called, in seconds with one decimal. Without floating point, whose code would enlarge a
    /// small binary.
    pub(crate) fn age(&self) -> String {
        let age = sync::now() - self.since;
        let tenths = age.as_secs() * 10 + u64::from(age.subsec_millis() / 100);
        format!("{}.{}", tenths / 10, tenths % 10)
    }

    /// A handler that is called at `now`, for a request that had come at `asked`.
    pub(crate) fn new(request: &Request<'_>, is_told: bool, asked: Instant, now: Instant) -> Self {
        let (method, version, mut target) = (request.method(), request.version(), Vec::new());
        if is_told {
            keep_whole_target(request, &mut target);
        } else {
            target.extend_from_slice(beginning(request.raw_path_bytes()));
        }
        let (behind, body, ahead) = (Vec::new(), None, None);
        Self { method, version, target, since: now, asked, behind, body, ahead, is_deserted: false }
    }

    /// At the deadline: how many answers are owed here. Its own is one if the whole request has come. To find out takes
    /// until `until` at most.
    pub(crate) fn owed(&self, until: Instant) -> usize {
        let ahead = self.ahead.as_ref().map_or(0, |ahead| ahead.load(Ordering::Relaxed));
        ahead + usize::from(self.body.as_ref().is_none_or(|body| body.has_come(until)))
    }
}

/// The handler that is being called. Each call reuses the same memory and allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// `None` before the first.
    current: Option<(Method, Instant)>,
    target: Vec<u8>,
    /// The version, if each answer is told of.
    told: Option<Version>,
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
    pub(crate) fn new(is_told: bool) -> Self {
        Self { told: is_told.then_some(Version::Http11), ..Self::default() }
    }

    /// Takes the current call, for the connection to keep.
    pub(crate) fn take(&mut self) -> Option<Call> {
        let (method, since) = self.current.take()?;
        let behind = self.behind.get(self.from..).unwrap_or_default().to_vec();
        // The thread that runs the loop from now on has another buffer, whose loads have the same numbers.
        (self.version, self.from) = (0, self.behind.len());
        let (version, target) = (self.told.unwrap_or(Version::Http11), std::mem::take(&mut self.target));
        let (body, ahead) = (None, None);
        Some(Call { method, version, target, since, asked: since, behind, body, ahead, is_deserted: false })
    }

    /// Notes that the handler is called for the request in the buffer.
    pub(crate) fn note(&mut self, buffer: &ReadBuffer, peer: &Peer, now: Instant) {
        let request = buffer.request(peer);
        self.target.clear();
        if self.told.is_some() {
            self.note_whole_target(buffer, peer);
        } else {
            self.target.extend_from_slice(beginning(request.raw_path_bytes()));
        }
        self.current = Some((request.method(), now));
        self.note_behind(buffer);
    }

    /// Apart, and with a request of its own, so that it costs the others nothing.
    #[cold]
    fn note_whole_target(&mut self, buffer: &ReadBuffer, peer: &Peer) {
        let request = buffer.request(peer);
        self.told = Some(request.version());
        keep_whole_target(&request, &mut self.target);
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
pub(crate) fn beginning(path: &[u8]) -> &[u8] {
    path.get(..PATH_BYTES_MAX).unwrap_or(path)
}

/// Keeps a request's path, and its query.
#[cold]
pub(crate) fn keep_whole_target(request: &Request<'_>, target: &mut Vec<u8>) {
    target.extend_from_slice(request.raw_path_bytes());
    if let Some(query) = request.query() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
}

/// The answer to a request whose handler has failed.
pub(crate) fn internal_error() -> Response {
    Response::text("internal server error\n").with_status(Status::INTERNAL_SERVER_ERROR).last()
}
