//! A connected socket of either family: non-blocking, except while a handler's thread has it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::network_path::NetworkPath;
use crate::http::Present;

#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// The result of one read or write. Interrupted calls are repeated, so they never show.
#[derive(Debug)]
pub(crate) enum Moved {
    Bytes(usize),
    WouldBlock,
    /// The peer reset, vanished, or will send no more (read) or take no more (write).
    Failed,
}

impl Stream {
    /// One read. `Bytes(0)` is the peer's end of stream.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Moved {
        loop {
            let result = match self {
                Self::Tcp(stream) => { stream }.read(buffer),
                #[cfg(unix)]
                Self::Unix(stream) => { stream }.read(buffer),
            };
            if let Some(moved) = sorted(result) {
                return moved;
            }
        }
    }

    /// One write.
    pub(crate) fn write(&self, bytes: &[u8]) -> Moved {
        loop {
            let result = match self {
                Self::Tcp(stream) => { stream }.write(bytes),
                #[cfg(unix)]
                Self::Unix(stream) => { stream }.write(bytes),
            };
            if let Some(moved) = sorted(result) {
                return moved;
            }
        }
    }

    /// From now on, calls wait for the peer up to `timeout`, which must not be zero, before they return `WouldBlock`.
    pub(crate) fn wait_up_to(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                stream.set_nonblocking(false)
            }
            #[cfg(unix)]
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                stream.set_nonblocking(false)
            }
        }
    }

    /// From now on, calls do not wait.
    pub(crate) fn never_wait(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            #[cfg(unix)]
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    /// True if the system holds an error that no call has returned yet: the peer has reset the connection.
    pub(crate) fn has_failed(&self) -> bool {
        let error = match self {
            Self::Tcp(stream) => stream.take_error(),
            #[cfg(unix)]
            Self::Unix(stream) => stream.take_error(),
        };
        !matches!(error, Ok(None))
    }

    /// What the system knows of the path to the peer, if anything.
    pub(crate) fn path(&self) -> Option<NetworkPath> {
        match self {
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Self::Tcp(stream) => super::sys::path(stream),
            #[cfg(not(all(target_os = "linux", feature = "sys")))]
            Self::Tcp(_) => None,
            // A Unix socket's path has no length.
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }

    /// Whether the peer is still there. Changes nothing.
    pub(crate) fn present(&self) -> Present {
        #[cfg(all(target_os = "linux", feature = "sys"))]
        return super::sys::present(self);
        // What std has: a look at the next byte. At the end, a peer that has reset cannot be sent even nothing; nor can
        // one that a stop has cut off.
        #[cfg(not(all(target_os = "linux", feature = "sys")))]
        match self {
            Self::Tcp(stream) => match sorted(stream.peek(&mut [0])) {
                Some(Moved::Bytes(0)) if matches!(self.write(&[]), Moved::Failed) => Present::Gone,
                Some(Moved::Bytes(0)) => Present::Ended,
                Some(Moved::Failed) => Present::Gone,
                Some(Moved::Bytes(_) | Moved::WouldBlock) | None => Present::There,
            },
            #[cfg(unix)]
            Self::Unix(_) => Present::There,
        }
    }

    /// Sends FIN, or ends both directions. If the peer has gone already, this does nothing.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            #[cfg(unix)]
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

fn sorted(result: io::Result<usize>) -> Option<Moved> {
    match result {
        Ok(count) => Some(Moved::Bytes(count)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(Moved::WouldBlock),
        // Windows returns this when a wait times out; elsewhere it means a dead connection.
        Err(error) if cfg!(windows) && error.kind() == io::ErrorKind::TimedOut => Some(Moved::WouldBlock),
        Err(_) => Some(Moved::Failed),
    }
}

#[cfg(unix)]
impl std::os::fd::AsFd for Stream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
