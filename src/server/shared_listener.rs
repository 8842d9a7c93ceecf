//! A listener that all loops accept from, until they drain.
//!
//! ```text
//!           `close`, the first: nobody new            `close`: no handshake is under way, the queue is empty
//!  OPEN ─────────────────────────────────▶ CLOSING ──────────────────────────────────────────▶ CLOSED
//!                                           │   ▲                                                ▲
//!                                           └───┘ `close`: handshakes are under way,             │
//!                                           │     or no descriptor is left for the next          │
//!                                           └───────── `abandon`, at the deadline ───────────────┘
//! ```
//!
//! A client that has our SYN-ACK counts itself connected, and may have sent a request; closing the listener resets it.
//! So when the queue is emptied for the last time, nothing may be on its way into it:
//!
//! - *TCP, if the listener refuses new handshakes*: we look for those under way until the system shows none. Then all
//!   that have completed are in the queue, and no other can follow. (One exception: another core has let a SYN in but
//!   not entered it yet, and is then held up for longer than our look takes.) Their time is limited, since a client may
//!   have vanished in the middle of one.
//! - *Unix*: a connect is one step. First the file goes, then the socket refuses.
//! - *Elsewhere*, and with SYN cookies, which leave no trace: the last `accept` and the close of the listener follow
//!   each other without a pause. A client that completes its handshake in the microsecond between them is reset.
//!
//! While the queue cannot be emptied because no descriptor is free, the listener stays open; a draining loop tries
//! again after a pause, and does not end before that. With several loops, any of them may succeed. It answers what it
//! accepts itself, since the others may have left.
//!
//! A listener that others may hold too is also theirs: we refuse nothing on it, and it lives on when we close it. So
//! the kernel does not take it out of our pollers; each loop does that itself. Each empties the queue and leaves, and
//! the last one closes the listener.

use std::io;
use std::time::Instant;

use super::accept_error::AcceptError;
use super::handshakes::{Handshakes, LOOK_PAUSE_MIN, Look};
use super::listener::{Listener, LocalAddress};
use super::stream::Stream;
use crate::http::Peer;
use crate::sync::{self, AtomicBool, AtomicUsize, Mutex, Ordering, RwLock};

#[derive(Debug)]
pub(crate) struct SharedListener {
    /// `None` once the listener is closed.
    listening: RwLock<Option<Listening>>,
    /// The handshakes under way, once the listener refuses new ones. The loop that looks for them holds the lock.
    handshakes: Mutex<Option<Handshakes>>,
    address: LocalAddress,
    /// How many loops have not left this listener.
    loops: AtomicUsize,
    has_failed: AtomicBool,
}

#[derive(Debug)]
struct Listening {
    listener: Listener,
    is_closing: bool,
}

/// The result of an attempt to close a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closing {
    /// Handshakes are under way: try again at this moment.
    Awaits(Instant),
    /// This call has closed the listener: other loops may be waiting for that.
    Closed,
    /// Another loop has closed it, or will.
    Left,
}

impl SharedListener {
    /// A listener from which `loops` loops accept.
    pub(crate) fn new(listener: Listener, loops: usize) -> Self {
        let address = listener.local_address().clone();
        Self {
            listening: RwLock::new(Some(Listening { listener, is_closing: false })),
            handshakes: Mutex::new(None),
            address,
            loops: AtomicUsize::new(loops),
            has_failed: AtomicBool::new(false),
        }
    }

    pub(crate) fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// Notes that the listener is broken. Returns true to the first caller.
    pub(crate) fn fail(&self) -> bool {
        !self.has_failed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.with(|_| ()).is_some()
    }

    /// One connection from the queue; `None` if the listener is closed.
    pub(crate) fn accept(&self) -> Option<Result<(Stream, Peer), AcceptError>> {
        self.with(Listener::accept)
    }

    /// Calls `look` with the listener, if it is still open.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Listener) -> T) -> Option<T> {
        self.listening.read().as_ref().map(|listening| look(&listening.listener))
    }

    /// Refuses newcomers, accepts the queued connections into `accepted`, and closes the listener once none can follow.
    /// Waits for handshakes under way until `handshakes_until`; only the first call sets that.
    ///
    /// Once any call has returned, newcomers are refused, as far as the system can. A loop calls this until the answer
    /// is not [`Closing::Awaits`].
    ///
    /// # Errors
    ///
    /// No descriptor or memory is left for the next connection in the queue; the listener stays open.
    pub(crate) fn close(&self, handshakes_until: Instant, accepted: &mut Vec<(Stream, Peer)>) -> io::Result<Closing> {
        self.refuse_newcomers(handshakes_until);
        // Handshakes are easier to see when the queue is empty.
        self.with(|listener| empty(listener, accepted)).transpose()?;
        let look_again_at = self.look_for_handshakes();
        let mut listening = self.listening.write();
        let Some(Listening { listener, .. }) = &*listening else { return Ok(Closing::Left) };
        empty(listener, accepted)?;
        if let Some(again_at) = look_again_at {
            return Ok(Closing::Awaits(again_at));
        }
        if listener.is_shared() && self.loops.fetch_sub(1, Ordering::Relaxed) > 1 {
            return Ok(Closing::Left);
        }
        // Nothing may come between the last `accept` and this.
        *listening = None;
        Ok(Closing::Closed)
    }

    /// A loop that has died no longer accepts. Returns true if it was the last: nobody else will accept those in the
    /// queue, so the caller abandons the listener. One that others hold too closes: its queue is theirs.
    pub(crate) fn leave(&self) -> bool {
        if self.loops.fetch_sub(1, Ordering::Relaxed) > 1 {
            return false;
        }
        let mut listening = self.listening.write();
        listening.take_if(|listening| listening.listener.is_shared());
        listening.is_some()
    }

    fn refuse_newcomers(&self, handshakes_until: Instant) {
        let mut listening = self.listening.write();
        if let Some(Listening { listener, .. }) = listening.take_if(|listening| !listening.is_closing) {
            let (listener, is_refusing) = listener.refusing_newcomers();
            if let (true, LocalAddress::Tcp(address)) = (is_refusing, &self.address) {
                let handshakes = Handshakes::at(*address, listener.inode(), handshakes_until);
                *self.handshakes.lock() = Some(handshakes);
            }
            *listening = Some(Listening { listener, is_closing: true });
        }
    }

    /// When to look again, if handshakes are under way or may be.
    fn look_for_handshakes(&self) -> Option<Instant> {
        let now = sync::now();
        // Another loop is looking, and wakes this one if it closes.
        let Some(mut handshakes) = self.handshakes.try_lock() else { return Some(now + LOOK_PAUSE_MIN) };
        match handshakes.as_mut()?.look(now) {
            Look::Over => None,
            Look::Again(at) => Some(at),
        }
    }

    /// Closes the listener even if connections wait. Accepts them one at a time and calls `look` with each, so that one
    /// descriptor is enough.
    ///
    /// # Errors
    ///
    /// Not even that descriptor is free, or `until` has passed: more connections may have waited.
    pub(crate) fn abandon(&self, until: Instant, mut look: impl FnMut(Stream, Peer)) -> io::Result<()> {
        let Some(Listening { listener, .. }) = self.listening.write().take() else {
            return Ok(());
        };
        // Bounded in time, since thousands may wait, and clients that are reset may come back at once.
        while sync::now() < until {
            match listener.accept() {
                Ok((stream, peer)) => look(stream, peer),
                Err(AcceptError::Transient(_)) => {}
                Err(AcceptError::Exhausted(error) | AcceptError::Stuck(error)) => return Err(error),
                Err(AcceptError::WouldBlock | AcceptError::Dead(_)) => return Ok(()),
            }
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "too many to look at each"))
    }
}

fn empty(listener: &Listener, accepted: &mut Vec<(Stream, Peer)>) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok(connection) => accepted.push(connection),
            Err(AcceptError::Transient(_)) => {}
            Err(AcceptError::Exhausted(error) | AcceptError::Stuck(error)) => return Err(error),
            Err(AcceptError::WouldBlock | AcceptError::Dead(_)) => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::server::poller::Poller;

    const TOKEN: u64 = 1;

    #[test]
    fn a_listener_that_others_hold_too_is_reported_to_no_loop_that_has_left_it() {
        let keeper = TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = SharedListener::new(Listener::take_over(keeper.try_clone().unwrap().into()).unwrap(), 2);
        let mut pollers: Vec<_> = (0..2).map(|_| Poller::new().unwrap()).collect();
        for poller in &mut pollers {
            listener.with(|listener| poller.add_listener(listener, TOKEN)).unwrap().unwrap();
        }
        for (poller, closing) in pollers.iter_mut().zip([Closing::Left, Closing::Closed]) {
            listener
                .with(|listener| poller.remove_listener(listener, TOKEN))
                .expect("it stays until the last loop has left");
            assert_eq!(listener.close(sync::now(), &mut Vec::new()).unwrap(), closing);
        }
        // Nobody accepts it, so a level-triggered report would come again and again.
        let _client = TcpStream::connect(keeper.local_addr().unwrap()).unwrap();
        for poller in &mut pollers {
            for _ in 0..3 {
                poller.wait(Some(Duration::ZERO)).unwrap();
                assert_eq!(poller.next(), None);
            }
        }
    }

    #[test]
    fn a_queue_without_time_to_look_at_it_is_an_error() {
        let listener = Listener::bound(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let LocalAddress::Tcp(address) = listener.local_address().clone() else { unreachable!("bound to TCP") };
        let listener = SharedListener::new(listener, 1);
        let _client = TcpStream::connect(address).unwrap();
        let unseen = listener.abandon(sync::now(), |_, _| unreachable!("there is no time")).unwrap_err();
        assert_eq!(unseen.kind(), io::ErrorKind::TimedOut);
        assert!(!listener.is_open());
    }
}
