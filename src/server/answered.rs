//! What is told of each answer once it has left, or is lost. It travels with the answer, and is told when that is
//! dropped: exactly once, whatever becomes of it. While nobody listens, there is none.

use std::time::{Duration, Instant};

use super::buffer::ReadBuffer;
use super::call::{Call, keep_whole_target};
use super::connection::Connection;
use super::notice::Answered;
use super::phase::Phase;
use super::shared::Shared;
use crate::http::{Method, Peer, Request, Response, Version};
use crate::sync::{self, Arc};

/// What an answer is for.
pub(crate) struct Asked {
    request: Option<(Method, Version)>,
    /// Path and query.
    target: Vec<u8>,
    /// When it had come, and how long it waited.
    at: Instant,
    waited: Duration,
}

impl Asked {
    /// No request that could be understood.
    pub(crate) fn nothing(now: Instant) -> Self {
        Self { request: None, target: Vec::new(), at: now, waited: Duration::ZERO }
    }

    /// A request whose head is complete. It had come at `at`, and its handler was called at `called`.
    pub(crate) fn by(request: &Request<'_>, at: Instant, called: Instant) -> Self {
        let mut target = Vec::new();
        keep_whole_target(request, &mut target);
        let waited = called.saturating_duration_since(at);
        Self { request: Some((request.method(), request.version())), target, at, waited }
    }

    /// What is refused before it is whole: as much of it as has been understood.
    pub(crate) fn in_part(buffer: &ReadBuffer, connection: &Connection, now: Instant) -> Self {
        let is_begun = matches!(connection.phase(), Phase::Head | Phase::Body);
        let at = if is_begun { connection.since() } else { now };
        if buffer.is_known() { Self::by(&buffer.request(connection.peer()), at, at) } else { Self::nothing(at) }
    }

    /// What a handler was called for that has let its loop go on.
    pub(crate) fn of(call: &Call) -> Self {
        let waited = call.since.saturating_duration_since(call.asked);
        Self { request: Some((call.method, call.version)), target: call.target.clone(), at: call.asked, waited }
    }

    /// From here on the answer will be told of. `is_head`: its body is not sent.
    #[cold]
    pub(crate) fn tell_with(self, response: &mut Response, is_head: bool, peer: &Peer, shared: &Arc<Shared>) {
        let has_body = !is_head && !response.status().is_bodiless();
        let held = if has_body { response.body().len() as u64 } else { 0 };
        let (shared, peer, status) = (Arc::clone(shared), peer.clone(), response.status());
        response.tell_end(move |streamed, is_whole| {
            let target = String::from_utf8_lossy(&self.target);
            let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
            let (method, version) = self.request.unzip();
            let (bytes, took) = (held + streamed, sync::now().saturating_duration_since(self.at));
            let (peer, waited) = (&peer, self.waited);
            shared.tell_answer(&Answered { peer, method, path, query, version, status, bytes, waited, took, is_whole });
        });
    }
}
