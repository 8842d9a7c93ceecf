//! A socket without a system: what has come for us to read, and what the peer has taken.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::network_path::NetworkPath;
use super::play::Script;
use crate::http::Present;

/// Both ends of a connection. The peer's is moved by its script.
#[derive(Debug)]
pub(crate) struct Pipe {
    script: Script,
    steps: usize,
    /// A handler's thread has the socket, and its calls wait for the peer: then the script goes on by itself.
    is_waiting: bool,
    /// The peer has done something that the poller has not reported.
    has_news: bool,
    input: Vec<u8>,
    /// How much of the input has been sent, and how much of that has been read.
    sent: usize,
    read: usize,
    pub(crate) has_ended: bool,
    pub(crate) taken: Vec<u8>,
    /// How much more the peer takes for now.
    pub(crate) room: usize,
    /// Everything fails from now on.
    pub(crate) is_broken: bool,
    /// We have sent FIN.
    pub(crate) is_shut: bool,
}

impl Pipe {
    pub(crate) fn new(input: &[u8], script: &Script) -> Self {
        Self {
            script: script.clone(),
            steps: 0,
            is_waiting: false,
            has_news: false,
            input: input.to_vec(),
            sent: 0,
            read: 0,
            has_ended: false,
            taken: Vec::new(),
            room: script.room.unwrap_or(usize::MAX),
            is_broken: false,
            is_shut: false,
        }
    }

    /// How many bytes the peer has sent.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    /// Lets the peer do the next thing. False if there was none, and nothing has happened unreported; that there is
    /// room is a thing only `with_room`.
    pub(crate) fn step(&mut self, with_room: bool) -> bool {
        let was_full = self.script.room.is_some() && self.room == 0;
        let before = (self.sent, self.has_ended, self.is_broken);
        let is_news = self.go_on();
        let is_more_than_room = before != (self.sent, self.has_ended, self.is_broken) || !was_full;
        std::mem::take(&mut self.has_news) || is_news && (with_room || is_more_than_room)
    }

    fn go_on(&mut self) -> bool {
        let Script { cuts, ends_at_once, room, breaks_at, .. } = &self.script;
        let step = self.steps;
        self.steps += 1;
        if breaks_at.is_some_and(|at| step >= at) {
            return !std::mem::replace(&mut self.is_broken, true);
        }
        let has_come = step > cuts.len();
        if !has_come {
            self.sent = cuts.get(step).copied().unwrap_or(self.input.len());
        }
        let was_ended = self.has_ended;
        self.has_ended |= step + usize::from(*ends_at_once) > cuts.len();
        // A peer that takes little by little takes it until nothing more comes.
        let is_full = room.is_some() && self.room == 0;
        if let Some(room) = room {
            self.room = *room;
        }
        !has_come || !was_ended || is_full
    }

    /// Goes on until `is_ready`, if calls wait.
    fn wait(&mut self, is_ready: impl Fn(&Self) -> bool) {
        while self.is_waiting && !is_ready(self) && self.go_on() {
            self.has_news = true;
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Stream(pub(crate) Arc<Mutex<Pipe>>);

#[derive(Debug)]
pub(crate) enum Moved {
    Bytes(usize),
    WouldBlock,
    Failed,
}

impl Stream {
    pub(crate) fn present(&self) -> Present {
        let pipe = self.pipe();
        match (pipe.is_broken, pipe.has_ended) {
            (true, _) => Present::Gone,
            (false, true) => Present::Ended,
            (false, false) => Present::There,
        }
    }

    pub(crate) fn pipe(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().expect("a test that panicked is over")
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Moved {
        let pipe = &mut *self.pipe();
        pipe.wait(|pipe| pipe.read < pipe.sent || pipe.has_ended || pipe.is_broken);
        let here = &pipe.input[pipe.read..pipe.sent];
        let count = here.len().min(buffer.len());
        match count {
            _ if pipe.is_broken => Moved::Failed,
            0 if pipe.has_ended => Moved::Bytes(0),
            0 => Moved::WouldBlock,
            _ => {
                buffer[..count].copy_from_slice(&here[..count]);
                pipe.read += count;
                Moved::Bytes(count)
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Moved {
        let mut pipe = self.pipe();
        pipe.wait(|pipe| pipe.room > 0 || pipe.is_broken);
        assert!(!pipe.is_shut, "written behind a FIN");
        let count = bytes.len().min(pipe.room);
        match count {
            _ if pipe.is_broken => Moved::Failed,
            0 => Moved::WouldBlock,
            _ => {
                pipe.taken.extend_from_slice(&bytes[..count]);
                pipe.room -= count;
                Moved::Bytes(count)
            }
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.pipe().is_broken
    }

    /// The peer is on this machine.
    pub(crate) fn path(&self) -> Option<NetworkPath> {
        None
    }

    pub(crate) fn wait_up_to(&self, _: Duration) -> io::Result<()> {
        self.pipe().is_waiting = true;
        Ok(())
    }

    pub(crate) fn never_wait(&self) -> io::Result<()> {
        self.pipe().is_waiting = false;
        Ok(())
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        assert_eq!(how, Shutdown::Write, "cut off");
        self.pipe().is_shut = true;
    }
}
