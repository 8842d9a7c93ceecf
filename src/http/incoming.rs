//! A request as it arrives: head, then body, in one run of bytes that the caller owns and appends to.
//!
//! ```text
//! Head ──complete──▶ Body ──complete──▶ whole: `request()` may be read, `len()` bytes are spent
//!          └──▶ Begun, if a body is to come ──`hold_body`──▶ Body
//!                                           ├─`refuse_body`─▶ whole, without a body
//!                                           └─`stream_body`─▶ given away
//! ```

use super::body::{Body, BodyLimits};
use super::framing::{Facts, Framing, examine};
use super::handler::BodyPlan;
use super::head::{Head, HeadLimits};
use super::method::{Method, Version};
use super::reject::Reject;
use super::request::{Peer, Request};
use super::target::{Target, dissect};

/// The limits of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) head: HeadLimits,
    pub(crate) body: BodyLimits,
}

/// How much of a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Only empty lines, or nothing.
    Nothing,
    /// Part of the head.
    Head,
    /// The head, which announces a body: the caller must now hold or stream it.
    Begun,
    /// The head, and part of the body.
    Body,
    /// All of it.
    Whole,
}

/// One request as it arrives. After a reject, clear it before using it again.
#[derive(Debug)]
pub(crate) struct Incoming {
    head: Head,
    /// What the head says, once it is complete.
    known: Option<(Facts, Target)>,
    /// The caller has decided how to read the body.
    has_body_begun: bool,
    body: Body,
    /// The client waits for `100 Continue` before it sends the body, and none of the body has come.
    awaits_continue: bool,
}

impl Incoming {
    pub(crate) const fn new() -> Self {
        Self { head: Head::new(), known: None, has_body_begun: false, body: Body::new(), awaits_continue: false }
    }

    /// Makes it ready for the next request; the tables keep their memory.
    pub(crate) fn clear(&mut self) {
        self.head.clear();
        (self.known, self.has_body_begun) = (None, false);
    }

    /// Reads on in `bytes`, which begin where the request begins.
    ///
    /// # Errors
    ///
    /// What is wrong with the request, as far as it has come.
    pub(crate) fn advance(&mut self, bytes: &mut [u8], limits: &Limits) -> Result<Progress, Reject> {
        if self.known.is_none() {
            if !self.head.advance(bytes, &limits.head)? {
                return Ok(if self.head.has_begun() { Progress::Head } else { Progress::Nothing });
            }
            let target = dissect(&self.head, bytes)?;
            let facts = examine(&self.head, bytes)?;
            self.body.clear();
            self.known = Some((facts, target));
            if facts.framing == Framing::Length(0) {
                (self.has_body_begun, self.awaits_continue) = (true, false);
                return Ok(Progress::Whole);
            }
            self.awaits_continue = facts.expects_continue;
        }
        if !self.has_body_begun {
            return Ok(Progress::Begun);
        }
        let content = bytes.get_mut(self.head.len()..).unwrap_or_default();
        let whole = self.body.advance(content, &limits.body)?;
        self.awaits_continue &= !whole && self.body.raw() == 0;
        Ok(if whole { Progress::Whole } else { Progress::Body })
    }

    /// Does with the body what its handler wants. Returns false if somebody else is to read it. `is_bare`: nothing has
    /// come behind the head.
    ///
    /// # Errors
    ///
    /// Those of [`hold_body`](Self::hold_body).
    pub(crate) fn follow(&mut self, plan: BodyPlan, is_bare: bool, limits: &BodyLimits) -> Result<bool, Reject> {
        match plan {
            BodyPlan::Stream => return Ok(false),
            // RFC 9110 §10.1.1: the client is asked for the body only if somebody will read it.
            BodyPlan::Refuse if self.awaits_continue && is_bare => self.refuse_body(),
            BodyPlan::HoldUpTo(bytes) => self.hold_body(&BodyLimits { body_bytes: bytes as u64, ..*limits })?,
            BodyPlan::Hold | BodyPlan::Refuse => self.hold_body(limits)?,
        }
        Ok(true)
    }

    /// Holds the body in memory.
    ///
    /// # Errors
    ///
    /// [`Reject::BodyTooLarge`] for a declared length over the limit.
    pub(crate) fn hold_body(&mut self, limits: &BodyLimits) -> Result<(), Reject> {
        let framing = self.known.map_or(Framing::Length(0), |(facts, _)| facts.framing);
        self.body.start(framing, limits)?;
        self.has_body_begun = true;
        Ok(())
    }

    /// The client waits to be told to send the body, and will not be. It may send it all the same, and then nobody
    /// could tell the body from the next request: so this request is the last.
    fn refuse_body(&mut self) {
        if let Some((facts, _)) = &mut self.known {
            facts.keep_alive = false;
        }
        (self.has_body_begun, self.awaits_continue) = (true, false);
    }

    /// Returns a decoder for the body, for somebody else to read it with: from now on this is a request without a body.
    pub(crate) fn stream_body(&mut self, limits: &BodyLimits) -> Body {
        let framing = self.known.map_or(Framing::Length(0), |(facts, _)| facts.framing);
        let mut body = Body::new();
        // Cannot fail: a stream has no limit on its length.
        let _ = body.start(framing, &limits.of_stream());
        self.has_body_begun = true;
        body
    }

    /// True if the head is complete, and the caller has yet to hold or stream its body.
    pub(crate) fn is_begun(&self) -> bool {
        self.known.is_some() && !self.has_body_begun
    }

    /// True if the head is complete, and nothing is wrong with it.
    pub(crate) fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// The head's length in bytes, once it is complete.
    pub(crate) fn head_len(&self) -> usize {
        self.head.len()
    }

    /// True if the client waits for `100 Continue`; but only the first time that this is asked.
    pub(crate) fn take_awaits_continue(&mut self) -> bool {
        std::mem::take(&mut self.awaits_continue)
    }

    /// True if the client waits for `100 Continue`, and `take_awaits_continue` has not been asked yet.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// The client is willing to send another request on this connection.
    pub(crate) fn keeps_alive(&self) -> bool {
        self.known.is_some_and(|(facts, _)| facts.keep_alive)
    }

    /// True if the head announces a body.
    pub(crate) fn has_body(&self) -> bool {
        self.known.is_some_and(|(facts, _)| facts.framing != Framing::Length(0))
    }

    /// How many bytes of memory the body takes: all of it if its length is known, else what has come.
    pub(crate) fn body_bytes(&self) -> usize {
        match self.known {
            Some((Facts { framing: Framing::Length(length), .. }, _)) if !self.body.is_whole() => {
                usize::try_from(length).unwrap_or(usize::MAX)
            }
            _ => self.body.decoded(),
        }
    }

    pub(crate) fn version(&self) -> Version {
        self.head.version()
    }

    /// True if this is a HEAD request, as far as it has come: then a reject must have no body either.
    pub(crate) fn is_head_request(&self) -> bool {
        self.head.method() == Method::Head
    }

    /// How many bytes of a whole request are still there: the chunked coding's own, once compacted, are not.
    pub(crate) fn len(&self) -> usize {
        self.head.len().saturating_add(self.body.raw())
    }

    /// Removes the spent bytes of a chunked body, so that the buffer is never much larger than the content.
    pub(crate) fn compact(&mut self, bytes: &mut Vec<u8>) {
        if self.known.is_some() {
            let from = self.head.len().saturating_add(self.body.decoded());
            bytes.drain(from..self.len());
            self.body.compacted();
        }
    }

    /// The request, as far as it has come. The head must be complete.
    pub(crate) fn request<'a>(&'a self, bytes: &'a [u8], peer: &'a Peer) -> Request<'a> {
        let start = self.head.len();
        let body = bytes.get(start..start.saturating_add(self.body.decoded())).unwrap_or_default();
        let target = self.known.as_ref().map_or(&Target::NONE, |(_, target)| target);
        Request::new(&self.head, target, bytes, body, peer)
    }
}
