//! The body of a request, read by its handler as it arrives.

use std::io::{self, ErrorKind, Read};
use std::time::{Duration, Instant};

use super::blocking_socket::BlockingSocket;
use crate::http::{Body, BodyLimits, CONTINUE, ReadBody, Reject};
use crate::server::buffer::Partial;
use crate::sync::{self, AtomicBool, Mutex, MutexGuard, Ordering};
#[cfg(test)]
use crate::{
    server::{counts::Totals, stream::Stream},
    sync::Arc,
};

/// The least size of the read buffer, in bytes.
const BUFFER_BYTES: usize = 32 * 1024;
/// How many reads to find out whether all of an unread body has come: more than a socket holds.
const LAST_READS_MAX: u32 = 256;

/// How much of the time to count what is owed is kept for what can be counted at once.
const TIME_KEPT: Duration = Duration::from_millis(15);
/// How long to leave a handler's thread to run before looking again whether it has let go of its body.
const LOOK_PAUSE: Duration = Duration::from_micros(200);

/// A body on its way. The handler's thread holds the lock while it reads or waits for more; the loop looks once, at the
/// deadline.
#[derive(Debug)]
pub(crate) struct Arriving {
    state: Mutex<State>,
    /// The loop has looked, and throws away what it finds in the socket. Set before that, so that a handler that reads
    /// on gets no body with a hole in it.
    is_cut_off: AtomicBool,
}

#[derive(Debug)]
struct State {
    content: Box<Content>,
    /// The handler has returned: the socket is the loop's again.
    has_left: bool,
}

/// What the body's bytes pass through on their way to the handler.
#[derive(Debug)]
struct Content {
    socket: BlockingSocket,
    decoder: Body,
    limits: BodyLimits,
    /// Bytes that have come: `..decoder.decoded()` is content, `..given` of it has been taken, and
    /// `decoder.raw()..filled` has not been read yet. Invariant: all of these are at most `filled`, and `filled <=
    /// bytes.len()`.
    bytes: Vec<u8>,
    filled: usize,
    given: usize,
    /// The client waits for `100 Continue` (RFC 9110 §10.1.1): the first read sends it.
    awaits_continue: bool,
    fault: Option<Fault>,
}

/// Why a body can no longer be read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Reject(Reject),
    /// The client has gone, or was cut off.
    Gone,
}

impl Content {
    /// Decodes what has come; if that gives no content, reads on.
    fn fill(&mut self) -> Result<(), Fault> {
        loop {
            let decoded = self.decoder.decoded();
            let bytes = &mut self.bytes[..self.filled];
            let is_whole = self.decoder.advance(bytes, &self.limits).map_err(Fault::Reject)?;
            if is_whole || self.decoder.decoded() > decoded {
                return Ok(());
            }
            // All that has come has been read and given.
            self.decoder.taken();
            (self.given, self.filled) = (0, 0);
            self.read_on()?;
        }
    }

    fn read_on(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.awaits_continue) {
            self.socket.write(CONTINUE).map_err(|_| Fault::Gone)?;
        }
        if self.bytes.len() < BUFFER_BYTES {
            self.bytes.resize(BUFFER_BYTES, 0);
        }
        match self.socket.read(&mut self.bytes) {
            Ok(0) => Err(Fault::Gone),
            Ok(count) => {
                self.filled = count;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::TimedOut => Err(Fault::Reject(Reject::Timeout)),
            Err(_) => Err(Fault::Gone),
        }
    }

    /// Decodes what has come. True if the body is complete.
    fn pass_over(&mut self) -> bool {
        let bytes = &mut self.bytes[..self.filled];
        self.decoder.advance(bytes, &self.limits).is_ok_and(|is_whole| is_whole)
    }

    /// True if the whole body has come, even if part of it is still in the socket. Throws away what it reads to find
    /// out, since nobody will read it.
    fn has_come(&mut self) -> bool {
        for _ in 0..LAST_READS_MAX {
            if self.fault.is_some() || self.pass_over() {
                break;
            }
            self.decoder.taken();
            (self.given, self.filled) = (0, 0);
            self.bytes.resize(BUFFER_BYTES, 0);
            match self.socket.read_at_once(&mut self.bytes) {
                Some(count) => self.filled = count,
                None => self.fault = Some(Fault::Gone),
            }
        }
        self.decoder.is_whole()
    }

    /// What has come after the body.
    fn rest(&self) -> &[u8] {
        &self.bytes[self.decoder.raw()..self.filled]
    }
}

impl Read for Content {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.given == self.decoder.decoded() && !self.decoder.is_whole() && !out.is_empty() && self.fault.is_none() {
            self.fault = self.fill().err();
        }
        match self.fault {
            None => {}
            Some(Fault::Gone) => return Err(ErrorKind::UnexpectedEof.into()),
            Some(Fault::Reject(Reject::Timeout)) => return Err(ErrorKind::TimedOut.into()),
            Some(Fault::Reject(reject)) => return Err(io::Error::new(ErrorKind::InvalidData, reject)),
        }
        let ready = &self.bytes[self.given..self.decoder.decoded()];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.given += count;
        Ok(count)
    }
}

impl Arriving {
    /// `come` is the part of the body that has come already.
    pub(super) fn new(
        socket: BlockingSocket,
        decoder: Body,
        limits: BodyLimits,
        come: Vec<u8>,
        awaits_continue: bool,
    ) -> Self {
        let (filled, bytes) = (come.len(), come);
        let content = Content { socket, decoder, limits, bytes, filled, given: 0, awaits_continue, fault: None };
        let state = State { content: Box::new(content), has_left: false };
        Self { state: Mutex::new(state), is_cut_off: AtomicBool::new(false) }
    }

    /// At the deadline: true if the whole body has come, so that its answer is owed. From then on its handler can read
    /// no more of it.
    ///
    /// A handler that waits for more of it holds the lock. If that has come just now, or while this process was
    /// suspended, the handler's thread takes it and lets go as soon as it runs; otherwise it does not come in time.
    pub(crate) fn has_come(&self, until: Instant) -> bool {
        self.is_cut_off.store(true, Ordering::SeqCst);
        self.look(until).is_some_and(|mut state| state.content.has_come())
    }

    /// At the deadline: what has come after the body, if the whole body has come.
    pub(crate) fn behind(&self, until: Instant) -> Option<Vec<u8>> {
        let content = &self.look(until)?.content;
        content.decoder.is_whole().then(|| content.rest().to_vec())
    }

    fn look(&self, until: Instant) -> Option<MutexGuard<'_, State>> {
        loop {
            let state = self.state.try_lock();
            if state.is_some() || sync::now() + TIME_KEPT >= until {
                return state;
            }
            sync::sleep(LOOK_PAUSE);
        }
    }

    /// The handler has returned. Returns what had come after the body, if the body has been read to its end, and the
    /// body's fault. The socket is the loop's again.
    pub(crate) fn leave(&self) -> (Option<Option<Box<Partial>>>, Option<Fault>) {
        let State { content, has_left } = &mut *self.state();
        if std::mem::replace(has_left, true) {
            return (None, None);
        }
        content.socket.give_back();
        // Passes over a rest that has come already.
        let has_come = content.fault.is_none() && content.pass_over();
        (has_come.then(|| Partial::behind(content.rest())), content.fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl ReadBody for Arriving {
    fn read(&self, out: &mut [u8]) -> io::Result<usize> {
        let State { content, has_left } = &mut *self.state();
        if *has_left {
            return Ok(0);
        }
        let count = content.read(out)?;
        if self.is_cut_off.load(Ordering::SeqCst) { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(count) }
    }
}

/// For tests, which lie outside: they need real sockets, and these files are taken in elsewhere with others.
#[cfg(test)]
impl Arriving {
    pub(crate) fn of(stream: Arc<Stream>, totals: Arc<Totals>, patience: Duration, body: (Body, BodyLimits)) -> Self {
        let socket = BlockingSocket::new(stream, totals, patience, patience);
        Self::new(socket, body.0, body.1, Vec::new(), false)
    }

    /// A handler reads, or waits for more.
    pub(crate) fn is_being_read(&self) -> bool {
        self.state.try_lock().is_none()
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.is_cut_off.load(Ordering::SeqCst)
    }
}
