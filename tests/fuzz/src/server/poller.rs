//! Readiness by script: a wait gives the turn back to whoever moves the peers, who says what has changed.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::listener::Listener;
use super::stream::Stream;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) token: u64,
    pub(crate) is_hangup: bool,
    pub(crate) is_over: bool,
}

/// The loop's, and by a clone whoever moves the peers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Poller(Arc<Mutex<Reports>>);

#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// The tokens of all connections that have been added, in that order.
    pub(crate) added: Vec<u64>,
    pub(crate) events: VecDeque<Event>,
    /// Of those, the ones whose room to write is reported too.
    pub(crate) await_room: HashSet<u64>,
    /// The next wait is none: something lies in the inbox, or has been reported.
    pub(crate) is_woken: bool,
    /// Waits that were none, since the loop had more to do, one after the other.
    looks: usize,
}

/// Far more than a loop needs to throw away what a peer has sent.
const LOOKS_MAX: usize = 1000;

impl Poller {
    pub(crate) fn reports(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().expect("no panic")
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker
    }

    pub(crate) fn add(&mut self, _: &Stream, token: u64) -> io::Result<()> {
        self.reports().added.push(token);
        Ok(())
    }

    pub(crate) fn await_room(&mut self, _: &Stream, token: u64) -> io::Result<()> {
        self.reports().await_room.insert(token);
        Ok(())
    }

    /// There is one loop alone, to which nobody else has a place to offer.
    pub(crate) fn remove(&mut self, _: &Stream, token: u64) {
        unreachable!("{token} is given away");
    }

    pub(crate) fn add_listener(&mut self, listener: &Listener, _: u64) -> io::Result<()> {
        match *listener {}
    }

    pub(crate) fn remove_listener(&mut self, listener: &Listener, _: u64) {
        match *listener {}
    }

    pub(crate) fn retired(&mut self, _: u64) {}

    pub(crate) fn progressed(&mut self) {}

    /// # Errors
    ///
    /// If it would really wait: nothing can change before the script goes on.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let mut reports = self.reports();
        if timeout == Some(Duration::ZERO) {
            reports.looks += 1;
            assert!(reports.looks < LOOKS_MAX, "the loop turns without end");
            return Ok(());
        }
        reports.looks = 0;
        if std::mem::take(&mut reports.is_woken) {
            return Ok(());
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(crate) fn next(&mut self) -> Option<Event> {
        self.reports().events.pop_front()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Waker;

impl Waker {
    pub(crate) fn wake(&self) {}
}
