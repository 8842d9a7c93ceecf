//! A thread's read buffer: scratch memory, and the request that is being read from it.
//!
//! A read goes into the scratch memory and is parsed there in place. Only the rest of an incomplete request moves to
//! memory of the connection's own ([`Partial`]), which the buffer loads again when more has come. So an idle connection
//! has no memory for reading, and a request that comes whole is never copied.

use super::budget::{Budget, Reserved};
use super::stream::{Moved, Stream};
use super::table::Token;
use crate::http::{Body, BodyPlan, Incoming, Limits, Peer, Progress, Reject, Request, Response, Version, WriteBody};
use crate::sync::Arc;

/// Bytes of one read. A socket's receive buffer holds more, but a larger read only evicts the caches.
const SCRATCH_BYTES: usize = 64 * 1024;
/// To read on after unparsed bytes pays only with at least this much room.
const ROOM_BYTES_MIN: usize = 16 * 1024;

/// An incomplete request, kept by its connection: its bytes from the first on, and how far they have been parsed.
#[derive(Debug)]
pub(crate) struct Partial {
    bytes: Vec<u8>,
    incoming: Incoming,
    /// What its body has reserved of the memory for all bodies.
    reserved: Option<Reserved>,
}

impl Partial {
    /// The bytes that have come after a request, if any.
    pub(crate) fn behind(bytes: &[u8]) -> Option<Box<Self>> {
        let new = || Box::new(Self { bytes: bytes.to_vec(), incoming: Incoming::new(), reserved: None });
        (!bytes.is_empty()).then(new)
    }

    /// The request, whose head is complete.
    pub(crate) fn request<'a>(&'a self, peer: &'a Peer) -> Request<'a> {
        self.incoming.request(&self.bytes, peer)
    }
}

/// What is needed to send the answer to a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exchange {
    pub(crate) is_head: bool,
    pub(crate) version: Version,
    /// Another request may follow.
    pub(crate) keeps_alive: bool,
    /// The client has said that it sends nothing after this request, and there is no body that it might still send.
    pub(crate) is_last_word: bool,
}

impl Exchange {
    /// The last exchange with a peer that we cannot understand, or do not serve.
    pub(crate) fn last(is_head: bool) -> Self {
        Self { is_head, version: Version::Http11, keeps_alive: false, is_last_word: false }
    }
}

/// Whose request lies in a buffer: what a handler's thread knows of the connection, which stays with its loop.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) token: Token,
    pub(crate) peer: Peer,
}

/// A request whose body its handler reads itself, taken out of the buffer.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) exchange: Exchange,
    /// Only its head.
    pub(crate) head: Partial,
    pub(crate) decoder: Body,
    /// What has come after the head.
    pub(crate) come: Vec<u8>,
    /// Nothing has come after the head, and nothing will until the client gets `100 Continue`.
    pub(crate) awaits_continue: bool,
}

/// A handler's response on its way back to the loop, usually because another thread has taken over the loop meanwhile.
pub(crate) struct Answer {
    pub(crate) token: Token,
    pub(crate) exchange: Exchange,
    pub(crate) response: Response,
    /// What had come after the request.
    pub(crate) partial: Option<Box<Partial>>,
    /// The client went away in the middle of its request: nobody waits for the response.
    pub(crate) is_gone: bool,
}

impl Answer {
    /// The closure that writes the body, if the response is streamed and has a body to send.
    pub(crate) fn take_write(&mut self) -> Option<WriteBody> {
        if self.is_gone || !self.response.needs_writing(self.exchange.is_head) {
            return None;
        }
        self.response.take_write()
    }
}

#[derive(Debug)]
pub(crate) struct ReadBuffer {
    scratch: Box<[u8]>,
    /// Invariant: `start <= filled <= scratch.len()`, and with `held`, `start <= held.len()`.
    filled: usize,
    /// If set, the connection's bytes are here and not in `scratch`.
    held: Option<Vec<u8>>,
    /// Where the request being read begins.
    start: usize,
    /// Counts loads and reads: no two contents have the same number. 0 before the first.
    version: u64,
    incoming: Incoming,
    reserved: Option<Reserved>,
}

impl ReadBuffer {
    pub(crate) fn new() -> Self {
        Self {
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            filled: 0,
            held: None,
            start: 0,
            version: 0,
            incoming: Incoming::new(),
            reserved: None,
        }
    }

    /// Begins with a connection, and with the bytes that it has kept.
    pub(crate) fn load(&mut self, partial: Option<Box<Partial>>) {
        (self.filled, self.start, self.version) = (0, 0, self.version + 1);
        match partial.map(|partial| *partial) {
            None => {
                (self.held, self.reserved) = (None, None);
                self.incoming.clear();
            }
            Some(Partial { bytes, incoming, reserved }) => {
                (self.held, self.reserved) = (Some(bytes), reserved);
                self.incoming = incoming;
            }
        }
    }

    /// Ends with the connection. Returns what it has to keep, if anything.
    pub(crate) fn unload(&mut self) -> Option<Box<Partial>> {
        let mut bytes = self.take_bytes();
        if bytes.is_empty() {
            return None;
        }
        let mut incoming = std::mem::replace(&mut self.incoming, Incoming::new());
        incoming.compact(&mut bytes);
        Some(Box::new(Partial { bytes, incoming, reserved: self.reserved.take() }))
    }

    /// Takes all bytes from the current request on.
    fn take_bytes(&mut self) -> Vec<u8> {
        let bytes = match self.held.take() {
            Some(mut bytes) => {
                bytes.drain(..self.start);
                bytes
            }
            None => self.scratch[self.start..self.filled].to_vec(),
        };
        (self.filled, self.start) = (0, 0);
        bytes
    }

    /// Takes the current request, whose head is complete and whose body will be streamed, out of the buffer.
    pub(crate) fn take_begun(&mut self, limits: &Limits) -> Begun {
        let (exchange, awaits_continue) = (self.exchange(), self.awaits_continue());
        let decoder = self.incoming.stream_body(&limits.body);
        let mut bytes = self.take_bytes();
        let incoming = std::mem::replace(&mut self.incoming, Incoming::new());
        let come = bytes.split_off(incoming.head_len());
        Begun { exchange, head: Partial { bytes, incoming, reserved: None }, decoder, come, awaits_continue }
    }

    /// Takes the answered request out of the buffer, with what has come after it.
    pub(crate) fn take_answer(&mut self, token: Token, response: Response) -> Answer {
        let exchange = self.exchange();
        self.finish_request();
        Answer { token, exchange, response, partial: self.unload(), is_gone: false }
    }

    /// True if the client waits for `100 Continue`: none of the body has come.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.incoming.awaits_continue() && self.rest().len() == self.incoming.head_len()
    }

    /// Reads once. The second value is true if the read filled the room, so that there may be more.
    pub(crate) fn read(&mut self, stream: &Stream) -> (Moved, bool) {
        self.version += 1;
        if self.held.is_none() {
            if self.start == self.filled {
                (self.filled, self.start) = (0, 0);
            } else if self.scratch.len() - self.filled < ROOM_BYTES_MIN {
                self.held = Some(self.scratch[self.start..self.filled].to_vec());
                (self.filled, self.start) = (0, 0);
            }
        }
        let from = if self.held.is_some() { 0 } else { self.filled };
        let room = &mut self.scratch[from..];
        let moved = stream.read(room);
        let mut is_full = false;
        if let Moved::Bytes(count) = moved {
            is_full = count == room.len();
            match &mut self.held {
                Some(held) => held.extend_from_slice(&room[..count]),
                None => self.filled += count,
            }
        }
        (moved, is_full)
    }

    /// Parses on in the current request.
    pub(crate) fn progress(&mut self, limits: &Limits) -> Result<Progress, Reject> {
        let bytes = match &mut self.held {
            Some(held) => &mut held[self.start..],
            None => &mut self.scratch[self.start..self.filled],
        };
        self.incoming.advance(bytes, limits)
    }

    /// Does with the body what the request's handler wants. Returns false if the handler reads it itself.
    pub(crate) fn follow(&mut self, plan: BodyPlan, limits: &Limits) -> Result<bool, Reject> {
        let is_bare = self.rest().len() == self.incoming.head_len();
        self.incoming.follow(plan, is_bare, &limits.body)
    }

    /// The request, as far as it has come. Its head must be complete.
    pub(crate) fn request<'a>(&'a self, peer: &'a Peer) -> Request<'a> {
        self.incoming.request(self.rest(), peer)
    }

    pub(crate) fn incoming(&mut self) -> &mut Incoming {
        &mut self.incoming
    }

    /// True if the request's head is complete, and nothing is wrong with it.
    pub(crate) fn is_known(&self) -> bool {
        self.incoming.is_known()
    }

    pub(crate) fn exchange(&self) -> Exchange {
        Exchange {
            is_head: self.incoming.is_head_request(),
            version: self.incoming.version(),
            keeps_alive: self.incoming.keeps_alive(),
            is_last_word: !self.incoming.keeps_alive() && !self.incoming.has_body(),
        }
    }

    /// The request has been answered: the next one begins after it.
    pub(crate) fn finish_request(&mut self) {
        self.start += self.incoming.len();
        self.incoming.clear();
        self.reserved = None;
    }

    /// Reserves memory for the request's body, which the buffer holds. Returns false if too little is left.
    pub(crate) fn reserve(&mut self, budget: &Arc<Budget>) -> bool {
        budget.cover(&mut self.reserved, self.incoming.body_bytes())
    }

    /// The number of these contents, all their bytes, and where the current request, which must be whole, ends.
    pub(crate) fn contents(&self) -> (u64, &[u8], usize) {
        let bytes = self.held.as_deref().unwrap_or(&self.scratch[..self.filled]);
        (self.version, bytes, self.start + self.incoming.len())
    }

    /// True if something has been read after the request that was answered last.
    pub(crate) fn has_more(&self) -> bool {
        !self.rest().is_empty()
    }

    /// The bytes from the start of the current request on.
    fn rest(&self) -> &[u8] {
        match &self.held {
            Some(held) => &held[self.start..],
            None => &self.scratch[self.start..self.filled],
        }
    }

    /// Reads and drops what comes, for a connection that lingers.
    pub(crate) fn discard(&mut self, stream: &Stream) -> Moved {
        stream.read(&mut self.scratch)
    }
}
