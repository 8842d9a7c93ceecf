//! Sockets that somebody else has bound, and how this process comes by them: `LISTEN_FDS`, standard input.

use std::io;
#[cfg(unix)]
use std::{
    net::TcpListener,
    os::fd::{AsFd, OwnedFd},
    os::unix::net::UnixListener,
};

use super::listener::Inherited;

/// The descriptor of the first socket in `LISTEN_FDS`: the one behind stderr.
const FIRST: i32 = 3;

impl Inherited {
    /// The sockets that a service manager has handed over, each with its name (`unknown` if it has none): those of
    /// `LISTEN_FDS` and `LISTEN_FDNAMES`, as sd_listen_fds(3) describes them. Linux, with the feature `sys`.
    ///
    /// Only if `LISTEN_PID` names this process, and only the first time: later there are none. Call it at the start of
    /// `main`, and let nothing else in the process take these descriptors. From then on they are close-on-exec. The
    /// variables stay, and name this process: other processes that it starts ignore them. If it executes another
    /// program in its own place, remove them first (`Command::env_remove`).
    ///
    /// # Errors
    ///
    /// One of the descriptors is not a listening socket of TCP or Unix; or there are some, but they cannot be taken
    /// over without `sys`. The error names it.
    pub fn from_environment() -> io::Result<Vec<(String, Self)>> {
        let variable = |key: &str| std::env::var(key).unwrap_or_default();
        if variable("LISTEN_PID") != std::process::id().to_string() {
            return Ok(Vec::new());
        }
        let (count, names) = (variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
        let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let end = count.parse().ok().filter(|_| is_number).and_then(|count| FIRST.checked_add(count));
        let end = end.ok_or_else(|| invalid(format!("bad value `{count}` for LISTEN_FDS: a number is wanted")))?;
        let names = names.split(':').filter(|name| !name.is_empty()).chain(std::iter::repeat("unknown"));
        let take = |(number, name): (i32, &str)| match take(number) {
            Ok(socket) => Ok((name.to_owned(), socket)),
            Err(error) => {
                Err(io::Error::new(error.kind(), format!("LISTEN_FDS: descriptor {number} ({name}) {error}")))
            }
        };
        if is_taken() { Ok(Vec::new()) } else { (FIRST..end).zip(names).map(take).collect() }
    }

    /// The socket that was handed over as standard input: by systemd's `StandardInput=socket`, by inetd's `wait`, or by
    /// a predecessor. With `sys` on Linux, standard input is /dev/null from then on, so that neither this process nor
    /// its children hold the socket without knowing; elsewhere it stays.
    ///
    /// # Errors
    ///
    /// Standard input is not a listening socket of TCP or Unix.
    #[cfg(unix)]
    pub fn stdin() -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("stdin {error}"));
        let socket = io::stdin().as_fd().try_clone_to_owned()?.try_into().map_err(named)?;
        #[cfg(all(target_os = "linux", feature = "sys"))]
        super::sys::empty_stdin();
        Ok(socket)
    }
}

impl Inherited {
    /// Another handle to the same socket: to serve on one, and hand the other to a successor.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
            #[cfg(unix)]
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
        }
    }
}

#[cfg(unix)]
impl From<Inherited> for OwnedFd {
    /// To be handed on: `Command::stdin(OwnedFd::from(socket))`.
    fn from(socket: Inherited) -> Self {
        match socket {
            Inherited::Tcp(socket) => socket.into(),
            Inherited::Unix(socket) => socket.into(),
        }
    }
}

/// True from the second call on.
fn is_taken() -> bool {
    use crate::sync::{AtomicBool, Ordering};

    static IS_TAKEN: AtomicBool = AtomicBool::new(false);
    IS_TAKEN.swap(true, Ordering::Relaxed)
}

#[cfg(all(target_os = "linux", feature = "sys"))]
fn take(number: i32) -> io::Result<Inherited> {
    super::sys::take_descriptor(number)?.try_into()
}

#[cfg(not(all(target_os = "linux", feature = "sys")))]
fn take(_: i32) -> io::Result<Inherited> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "can be taken over on Linux alone, with the feature `sys`"))
}

#[cfg(unix)]
impl TryFrom<OwnedFd> for Inherited {
    type Error = io::Error;

    /// Finds out which kind of listening socket a descriptor is. Without the feature `sys`, and off Linux, one that is
    /// bound and not yet listening, or that takes datagrams, is found only when the server accepts.
    fn try_from(descriptor: OwnedFd) -> io::Result<Self> {
        if !is_listening(&descriptor) {
            return Err(invalid("is not a listening socket".to_owned()));
        }
        let socket = TcpListener::from(descriptor);
        if socket.local_addr().is_ok() {
            return Ok(Self::Tcp(socket));
        }
        let socket = UnixListener::from(OwnedFd::from(socket));
        match socket.local_addr() {
            Ok(_) => Ok(Self::Unix(socket)),
            Err(_) => Err(invalid("is a listening socket neither of TCP nor of Unix".to_owned())),
        }
    }
}

#[cfg(all(target_os = "linux", feature = "sys"))]
fn is_listening(descriptor: &OwnedFd) -> bool {
    super::sys::is_listening(descriptor)
}

/// As far as std can tell: it is a socket, and has no peer.
#[cfg(all(unix, not(all(target_os = "linux", feature = "sys"))))]
fn is_listening(descriptor: &OwnedFd) -> bool {
    let peer = |socket: OwnedFd| std::net::TcpStream::from(socket).peer_addr();
    descriptor.try_clone().and_then(peer).is_err_and(|error| error.kind() == io::ErrorKind::NotConnected)
}

fn invalid(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, problem)
}
