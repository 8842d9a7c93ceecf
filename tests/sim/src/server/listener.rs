//! A listener of the simulated network, with the face of the real one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::accept_error::{AcceptError, errno};
use super::stream::Stream;
use crate::http::Peer;
use crate::net::Kind;
use crate::sync::{AtomicUsize, Ordering};
use crate::torture::{self, Call};
use crate::world::{self, US, with};

const EAGAIN: i32 = 11;
const TRANSIENT_MAX: usize = 64;

#[derive(Debug)]
pub(crate) struct Listener {
    number: usize,
    kind: Kind,
    address: LocalAddress,
    failures: AtomicUsize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for LocalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The number of one that somebody else has bound.
#[derive(Debug)]
pub enum Inherited {
    Simulated(usize),
}

impl Listener {
    pub(crate) fn take_over(socket: Inherited) -> io::Result<Self> {
        let Inherited::Simulated(number) = socket;
        let listener = Self::of(number);
        torture::error_of(Call::TakeOver(number))?;
        Ok(listener)
    }

    pub(crate) fn of(number: usize) -> Self {
        let kind = with(|world| world.net.listeners[number].kind);
        let address = match kind {
            Kind::Unix => LocalAddress::Unix(format!("/sim/{number}").into()),
            _ => LocalAddress::Tcp(([192, 0, 2, 2], 8080 + number as u16).into()),
        };
        Self { number, kind, address, failures: AtomicUsize::new(0) }
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    pub(crate) fn inode(&self) -> Option<u64> {
        Some(self.number as u64)
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.kind == Kind::Shared
    }

    pub(crate) fn prove_room(&self) -> io::Result<()> {
        torture::error_of(Call::ProveRoom(self.number))
    }

    pub(crate) fn accept(&self) -> Result<(Stream, Peer), AcceptError> {
        world::step(4 * US);
        let failure = torture::error_of(Call::Accept(self.number)).err().and_then(|error| error.raw_os_error());
        match failure {
            // Nobody is there yet, or never will be.
            Some(errno::EINVAL) => with(|world| world.break_listener(self.number)),
            Some(EAGAIN) => with(|world| world.hold_queue_back(self.number)),
            _ => {}
        }
        let accepted = with(|world| {
            let number = failure.map_or_else(|| world.accept(self.number), Err)?;
            let peer = if self.kind == Kind::Unix { Peer::Unix } else { Peer::Tcp(world.peer_of(number)) };
            Ok((number, peer))
        });
        let accepted = accepted.map(|(number, peer)| (Stream::new(number), peer));
        match accepted.map_err(|error| AcceptError::sorted(io::Error::from_raw_os_error(error))) {
            Err(AcceptError::Transient(error)) => match self.failures.fetch_add(1, Ordering::Relaxed) {
                TRANSIENT_MAX.. => Err(AcceptError::Stuck(error)),
                _ => Err(AcceptError::Transient(error)),
            },
            other => {
                if self.failures.load(Ordering::Relaxed) > 0 {
                    self.failures.store(0, Ordering::Relaxed);
                }
                other
            }
        }
    }

    pub(crate) fn refusing_newcomers(self) -> (Self, bool) {
        world::step(3 * US);
        if torture::error_of(Call::Refuse(self.number)).is_err() {
            return (self, false);
        }
        let is_refusing = with(|world| world.refuse_newcomers(self.number));
        (self, is_refusing)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        with(|world| world.close_listener(self.number));
    }
}
