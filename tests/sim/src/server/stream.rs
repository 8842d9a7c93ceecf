//! A socket of the simulated network, with the face of the real one.

use std::io;
use std::net::Shutdown;
use std::time::Duration;

use super::network_path::NetworkPath;
use crate::http::Present;
use crate::net::{DOWN, Done, Kind, UP};
use crate::plan::Fault;
use crate::sync::after;
use crate::torture::{self, Call, Way};
use crate::world::{self, Nanos, US, Why, World, with};

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
        if let Some(moved) = self.fails(Call::Read(self.0)) {
            return moved;
        }
        loop {
            let moved = with(|world| {
                // A read of a socket comes back short only if that has emptied it: the poller by reports relies on it.
                let may_be_short = world.plan.is_swept || world.net.pipes[self.0].wait.is_some();
                let is_short = world.has(Fault::Short) && may_be_short && world.luck.one_in(3);
                let room = if is_short { world.luck.between(1, 40) as usize } else { buffer.len() };
                if is_short {
                    world.count("short reads");
                }
                let room = if is_bytewise(world) { 1 } else { room };
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
        let bytes = match torture::fails(Call::Write(self.0)) {
            Some(Way::Short) => bytes.get(..1).unwrap_or_default(),
            way => match way.and_then(|way| self.fails_so(way, DOWN)) {
                Some(moved) => return moved,
                None => bytes,
            },
        };
        loop {
            let moved = with(|world| {
                let is_short = world.has(Fault::Short) && world.luck.one_in(3);
                let count = if is_short { world.luck.between(1, 400) as usize } else { bytes.len() };
                if is_short {
                    world.count("short writes");
                }
                let count = if is_bytewise(world) { 1 } else { count };
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

    fn fails(&self, call: Call) -> Option<Moved> {
        self.fails_so(torture::fails(call)?, UP)
    }

    /// What a call on a connection brings that fails so. `None`: what it would have brought.
    fn fails_so(&self, way: Way, direction: usize) -> Option<Moved> {
        match way {
            Way::WouldBlock => {
                let hide = if direction == UP { World::hold_back } else { World::fill_up };
                with(|world| hide(world, self.0));
                Some(Moved::WouldBlock)
            }
            Way::Reset => {
                with(|world| world.is_reset_by_peer(self.0));
                Some(Moved::Failed)
            }
            Way::Error(_) => Some(Moved::Failed),
            Way::Interrupted | Way::Short | Way::Unknown => None,
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
        torture::error_of(Call::WaitUpTo(self.0))?;
        let timeout = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        with(|world| world.net.pipes[self.0].wait = Some(timeout));
        Ok(())
    }

    pub(crate) fn never_wait(&self) -> io::Result<()> {
        world::step(US);
        torture::error_of(Call::NeverWait(self.0))?;
        with(|world| world.net.pipes[self.0].wait = None);
        Ok(())
    }

    pub(crate) fn has_failed(&self) -> bool {
        world::step(US);
        self.fails(Call::TakeError(self.0)).is_some() || with(|world| world.take_error(self.0))
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
        if torture::fails(Call::Path(self.0)).is_some() {
            return None;
        }
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

fn is_bytewise(world: &World) -> bool {
    world.torture.as_ref().is_some_and(|torture| torture.is_bytewise())
}

impl Drop for Stream {
    fn drop(&mut self) {
        with(|world| {
            world.net.descriptors -= 1;
            world.close(self.0, DOWN, false);
        });
    }
}
