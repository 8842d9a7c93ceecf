//! A socket of the simulated network, with the face of the real one.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::network_path::NetworkPath;
use crate::http::Present;
use crate::net::{DOWN, Done, Kind, UP};
use crate::plan::Fault;
use crate::sync::after;
use crate::world::{self, Nanos, US, Why, with};

/// The number of a connection. Dropping it closes the server's end.
#[derive(Debug)]
pub(crate) struct Stream(usize);

#[derive(Debug)]
pub(crate) enum Moved {
    Bytes(usize),
    WouldBlock,
    Failed,
}

impl Stream {
    pub(crate) fn new(number: usize) -> Self {
        Self(number)
    }

    pub(crate) fn number(&self) -> usize {
        self.0
    }

    pub(crate) fn read(&self, buffer: &mut [u8]) -> Moved {
        world::step(2 * US);
        let until = self.wait_time();
        loop {
            let moved = with(|world| {
                // A read of a socket comes back short only if that has emptied it: the poller by reports relies on it.
                let may_be_short = world.plan.is_swept || world.net.pipes[self.0].wait.is_some();
                let is_short = world.has(Fault::Short) && may_be_short && world.luck.one_in(3);
                let room = if is_short { world.luck.between(1, 40) as usize } else { buffer.len() };
                if is_short {
                    world.count("short reads");
                }
                let room = room.min(buffer.len());
                world.read(self.0, DOWN, &mut buffer[..room])
            });
            match moved {
                Done::Bytes(count) => return Moved::Bytes(count),
                Done::Failed => return Moved::Failed,
                Done::WouldBlock if !self.waits(until) => return Moved::WouldBlock,
                Done::WouldBlock => {}
            }
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) -> Moved {
        world::step(3 * US);
        let until = self.wait_time();
        loop {
            let moved = with(|world| {
                let is_short = world.has(Fault::Short) && world.luck.one_in(3);
                let count = if is_short { world.luck.between(1, 400) as usize } else { bytes.len() };
                if is_short {
                    world.count("short writes");
                }
                world.write(self.0, DOWN, &bytes[..count.min(bytes.len())])
            });
            match moved {
                Done::Bytes(count) => return Moved::Bytes(count),
                Done::Failed => return Moved::Failed,
                Done::WouldBlock if !self.waits(until) => return Moved::WouldBlock,
                Done::WouldBlock => {}
            }
        }
    }

    fn wait_time(&self) -> Option<Nanos> {
        let wait = with(|world| world.net.pipes[self.0].wait);
        wait.map(|wait| after(Duration::from_nanos(wait)))
    }

    /// Waits for news. False if nobody waits here, or the time is over.
    fn waits(&self, until: Option<Nanos>) -> bool {
        let Some(until) = until.filter(|until| *until > with(|world| world.now)) else { return false };
        // The system looks once more before it says that the time is over.
        world::block(Why::Socket(self.0), Some(until));
        true
    }

    pub(crate) fn wait_up_to(&self, timeout: Duration) -> io::Result<()> {
        world::step(US);
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        with(|world| world.net.pipes[self.0].wait = Some(timeout));
        Ok(())
    }

    pub(crate) fn never_wait(&self) -> io::Result<()> {
        world::step(US);
        with(|world| world.net.pipes[self.0].wait = None);
        Ok(())
    }

    pub(crate) fn has_failed(&self) -> bool {
        world::step(US);
        with(|world| world.take_error(self.0))
    }

    pub(crate) fn present(&self) -> Present {
        world::step(US);
        with(|world| {
            let connection = &world.net.pipes[self.0];
            let (half, end) = (&connection.halves[UP], &connection.ends[DOWN]);
            match (end.is_reset || end.is_deaf, half.has_ended) {
                (true, _) => Present::Gone,
                (false, true) => Present::Ended,
                (false, false) => Present::There,
            }
        })
    }

    pub(crate) fn path(&self) -> Option<NetworkPath> {
        world::step(US);
        with(|world| {
            let connection = &world.net.pipes[self.0];
            let kind = world.net.listeners[connection.listener].kind;
            if kind == Kind::Unix || kind == Kind::Plain {
                return None;
            }
            let round_trip = Duration::from_nanos(2 * connection.latency);
            Some(NetworkPath {
                round_trip,
                retransmission: Duration::from_millis(200) + round_trip,
                has_lost: connection.has_lost,
                is_delivered: world.is_delivered(self.0),
            })
        })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) {
        world::step(2 * US);
        with(|world| world.shut(self.0, DOWN, how == Shutdown::Both));
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        with(|world| {
            world.net.descriptors -= 1;
            world.close(self.0, DOWN, false);
        });
    }
}
