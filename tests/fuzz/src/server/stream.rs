//! A socket without a system: what has come for us to read, and what the peer has taken.

use std::io;
use std::net::Shutdown;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Both ends of a connection. The peer's is moved by the script.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
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
    pub(crate) fn new(input: &[u8], room: usize) -> Self {
        Self { input: input.to_vec(), room, ..Self::default() }
    }

    /// The peer has sent so many bytes in all.
    pub(crate) fn send_to(&mut self, end: usize) {
        self.sent = end;
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent
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
    pub(crate) fn pipe(&self) -> MutexGuard<'_, Pipe> {
        self.0.lock().expect("a test that panicked is over")
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Moved {
        let pipe = &mut *self.pipe();
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

    pub(crate) fn wait_up_to(&self, _: Duration) -> io::Result<()> {
        unreachable!("no handler here streams")
    }

    pub(crate) fn never_wait(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        assert_eq!(how, Shutdown::Write, "cut off");
        self.pipe().is_shut = true;
    }
}
