//! TCP and Unix listeners: accepting, and refusing newcomers.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::accept_error::AcceptError;
#[cfg(unix)]
use super::socket_file::SocketFile;
use super::stream::Stream;
use crate::http::Peer;
use crate::sync::{AtomicUsize, OnceLock, Ordering};

/// How many connections may wait to be accepted: as many as the system allows (`somaxconn` on today's Linux), instead
/// of std's 128.
#[cfg(all(target_os = "linux", feature = "sys"))]
const QUEUE_MAX: u16 = 4096;

/// How many errors of single connections in a row still count as transient.
const TRANSIENT_MAX: usize = 64;

/// A listening socket, non-blocking. Dropping it closes it, and removes a Unix socket's file.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    address: LocalAddress,
    /// Others may hold it too, so it is not ours to change.
    is_shared: bool,
    /// Transient errors since the last connection.
    failures: AtomicUsize,
}

#[derive(Debug)]
enum Socket {
    Tcp {
        socket: TcpListener,
        /// Whether accepted sockets inherit `TCP_NODELAY` from the listener. Known from the first one on.
        passes_nodelay_on: OnceLock<bool>,
    },
    /// Holds the file, to remove it when the listener is dropped, or earlier.
    #[cfg(unix)]
    Unix { socket: UnixListener, file: Option<SocketFile> },
}

/// Where a listener really listens, with the port that the system chose.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket; for one that was taken over, perhaps `@` and its abstract name, or nothing.
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

/// A socket that somebody else has bound, and that listens already: see
/// [`Server::from_listeners`](crate::Server::from_listeners).
#[derive(Debug)]
#[non_exhaustive]
pub enum Inherited {
    /// Of TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(UnixListener),
}

impl From<TcpListener> for Inherited {
    fn from(socket: TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

#[cfg(unix)]
impl From<UnixListener> for Inherited {
    fn from(socket: UnixListener) -> Self {
        Self::Unix(socket)
    }
}

impl Listener {
    /// Takes over a socket that is already bound, and that others may hold too.
    ///
    /// # Errors
    ///
    /// It cannot be duplicated, has no address, or cannot be made non-blocking.
    pub(crate) fn take_over(socket: Inherited) -> io::Result<Self> {
        // Children that a handler starts must not inherit it: std's duplicate is close-on-exec, the socket that was
        // handed to us may not be.
        match socket {
            Inherited::Tcp(socket) => Self::tcp(socket.try_clone()?, true),
            #[cfg(unix)]
            Inherited::Unix(socket) => {
                let path = name_of(&socket.local_addr()?);
                Self::of_unix(socket.try_clone()?, None, path, true)
            }
        }
    }

    /// A socket that this process has bound, and nobody else holds.
    pub(super) fn bound(socket: TcpListener) -> io::Result<Self> {
        deepen(&socket);
        Self::tcp(socket, false)
    }

    fn tcp(socket: TcpListener, is_shared: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = LocalAddress::Tcp(socket.local_addr()?);
        let socket = Socket::Tcp { socket: with_nodelay(socket), passes_nodelay_on: OnceLock::new() };
        Ok(Self { socket, address, is_shared, failures: AtomicUsize::new(0) })
    }

    /// A Unix socket that this process has bound.
    #[cfg(unix)]
    pub(super) fn unix(socket: UnixListener, file: SocketFile, path: PathBuf) -> io::Result<Self> {
        deepen(&socket);
        Self::of_unix(socket, Some(file), path, false)
    }

    #[cfg(unix)]
    fn of_unix(socket: UnixListener, file: Option<SocketFile>, path: PathBuf, is_shared: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = Socket::Unix { socket, file };
        Ok(Self { socket, address: LocalAddress::Unix(path), is_shared, failures: AtomicUsize::new(0) })
    }

    pub(crate) fn local_address(&self) -> &LocalAddress {
        &self.address
    }

    /// Its number in the system's tables.
    #[cfg(target_os = "linux")]
    pub(crate) fn inode(&self) -> Option<u64> {
        use std::os::fd::{AsFd, AsRawFd};
        use std::os::unix::fs::MetadataExt;

        let path = format!("/proc/self/fd/{}", self.as_fd().as_raw_fd());
        std::fs::metadata(path).ok().map(|socket| socket.ino())
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn inode(&self) -> Option<u64> {
        None
    }

    /// True if others may hold it too, and go on accepting.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Succeeds if the system has a descriptor to spare: each connection needs one.
    pub(crate) fn prove_room(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp { socket, .. } => socket.try_clone().map(drop),
            #[cfg(unix)]
            Socket::Unix { socket, .. } => socket.try_clone().map(drop),
        }
    }

    /// One connection from the queue, non-blocking.
    pub(crate) fn accept(&self) -> Result<(Stream, Peer), AcceptError> {
        let accepted = match &self.socket {
            Socket::Tcp { socket, passes_nodelay_on } => accept_tcp(socket).map(|(stream, address)| {
                // Without delay: an answer's last bytes must not wait for the acknowledgement of its first.
                if !*passes_nodelay_on.get_or_init(|| stream.nodelay().unwrap_or(false)) {
                    // Fails if the peer has gone already; the first read will show that.
                    let _ = stream.set_nodelay(true);
                }
                (Stream::Tcp(stream), Peer::Tcp(address))
            }),
            #[cfg(unix)]
            Socket::Unix { socket, .. } => accept_unix(socket).map(|stream| (Stream::Unix(stream), Peer::Unix)),
        };
        let accepted = accepted.map_err(AcceptError::sorted);
        match accepted {
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

    /// Refuses newcomers, as far as the system can; connections in the queue stay there. The second value is true if
    /// handshakes under way still complete, and no new one begins.
    pub(crate) fn refusing_newcomers(self) -> (Self, bool) {
        match self.socket {
            _ if self.is_shared => (self, false),
            #[cfg(all(target_os = "linux", feature = "sys"))]
            Socket::Tcp { ref socket, .. } => {
                let is_refusing = super::sys::refuse_handshakes(socket).is_ok();
                (self, is_refusing)
            }
            #[cfg(not(all(target_os = "linux", feature = "sys")))]
            Socket::Tcp { .. } => (self, false),
            #[cfg(unix)]
            Socket::Unix { socket, file } => {
                // First the file, so that newcomers find a successor's or none. Then those that have found ours
                // already.
                drop(file);
                let socket = Socket::Unix { socket: refusing_connects(socket), file: None };
                (Self { socket, ..self }, false)
            }
        }
    }
}

// One connection, non-blocking: one system call with `sys`, two with std alone.

#[cfg(all(target_os = "linux", feature = "sys"))]
fn accept_tcp(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = super::sys::accept(socket)?;
    Ok((stream.into(), peer.ok_or(io::ErrorKind::InvalidData)?))
}

#[cfg(not(all(target_os = "linux", feature = "sys")))]
fn accept_tcp(socket: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = socket.accept()?;
    stream.set_nonblocking(true)?;
    Ok((stream, peer))
}

#[cfg(all(target_os = "linux", feature = "sys"))]
fn accept_unix(socket: &UnixListener) -> io::Result<UnixStream> {
    super::sys::accept(socket).map(|(stream, _)| stream.into())
}

#[cfg(all(unix, not(all(target_os = "linux", feature = "sys"))))]
fn accept_unix(socket: &UnixListener) -> io::Result<UnixStream> {
    let (stream, _) = socket.accept()?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Asks for a deeper queue than std does. If the system refuses, the queue stays as it is.
#[cfg(all(target_os = "linux", feature = "sys"))]
fn deepen(socket: &impl std::os::fd::AsFd) {
    let _ = super::sys::deepen_queue(socket, QUEUE_MAX.into());
}

#[cfg(not(all(target_os = "linux", feature = "sys")))]
fn deepen<T>(_: &T) {}

/// On Linux a listener that is shut down for reading refuses connects, and still yields the connections in its queue;
/// other systems do nothing. std offers this call only on streams, and a descriptor does not care about its type.
#[cfg(unix)]
fn refusing_connects(socket: UnixListener) -> UnixListener {
    use std::os::fd::OwnedFd;

    let socket = UnixStream::from(OwnedFd::from(socket));
    let _ = socket.shutdown(std::net::Shutdown::Read);
    UnixListener::from(OwnedFd::from(socket))
}

#[cfg(unix)]
impl std::os::fd::AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp { socket, .. } => socket.as_fd(),
            Socket::Unix { socket, .. } => socket.as_fd(),
        }
    }
}

/// The path of a Unix socket; of an abstract one `@` and its name, as other programs write it.
#[cfg(unix)]
fn name_of(address: &std::os::unix::net::SocketAddr) -> PathBuf {
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
        return format!("@{}", String::from_utf8_lossy(name)).into();
    }
    address.as_pathname().map(ToOwned::to_owned).unwrap_or_default()
}

/// Sets the option on the listener: on Linux and the BSDs its connections inherit it, which saves a system call for
/// each. std offers this call only on streams, and a descriptor does not care about its type.
#[cfg(unix)]
fn with_nodelay(socket: TcpListener) -> TcpListener {
    use std::os::fd::OwnedFd;

    let socket = TcpStream::from(OwnedFd::from(socket));
    // If the system refuses, `accept` sets it on each connection.
    let _ = socket.set_nodelay(true);
    TcpListener::from(OwnedFd::from(socket))
}

#[cfg(not(unix))]
fn with_nodelay(socket: TcpListener) -> TcpListener {
    socket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_at_once_on_every_connection() {
        let listener = Listener::bound(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let LocalAddress::Tcp(address) = listener.local_address().clone() else { unreachable!("bound to TCP") };
        for _ in 0..2 {
            let _client = TcpStream::connect(address).unwrap();
            let accepted = std::iter::repeat_with(|| listener.accept()).find_map(Result::ok);
            let Some((Stream::Tcp(stream), _)) = accepted else { unreachable!("a client has connected") };
            assert!(stream.nodelay().unwrap());
        }
    }

    #[test]
    fn a_connection_never_waits_is_not_inherited_and_tells_its_peer() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(host) else { continue };
            let listener = Listener::bound(socket).unwrap();
            let LocalAddress::Tcp(address) = listener.local_address().clone() else { unreachable!("bound to TCP") };
            assert!(matches!(listener.accept(), Err(AcceptError::WouldBlock)));
            let client = TcpStream::connect(address).unwrap();
            let accepted = std::iter::repeat_with(|| listener.accept()).find_map(Result::ok);
            let (stream, peer) = accepted.expect("a client has connected");
            assert_eq!(peer, Peer::Tcp(client.local_addr().unwrap()));
            assert!(matches!(stream.read(&mut [0]), crate::server::stream::Moved::WouldBlock));
            #[cfg(target_os = "linux")]
            {
                use std::os::fd::{AsFd, AsRawFd};

                let told = format!("/proc/self/fdinfo/{}", stream.as_fd().as_raw_fd());
                let told = std::fs::read_to_string(told).unwrap();
                let flags = told.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                let close_on_exec = 0o2_000_000;
                assert_ne!(u32::from_str_radix(flags.trim(), 8).unwrap() & close_on_exec, 0, "{told}");
            }
        }
    }
}
