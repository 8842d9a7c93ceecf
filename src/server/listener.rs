//! TCP and Unix listeners: bound, accepted from, closed; and what an error of `accept` means.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock};
#[cfg(unix)]
use std::time::Duration;

use super::address::Address;
#[cfg(unix)]
use super::socket_file::{self, SocketFile};
use super::stream::Stream;
use crate::http::Peer;

/// How long a server that listens on a Unix socket already is given to show that nobody does. The kernel refuses at
/// once.
#[cfg(unix)]
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A listening socket, non-blocking. Dropping it closes it, and removes a Unix socket's file.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
    place: Bound,
}

#[derive(Debug)]
enum Socket {
    Tcp {
        socket: TcpListener,
        /// Accepted sockets take after the listener in that answers leave at once. Known from the first.
        passes_nodelay_on: OnceLock<bool>,
    },
    /// The file is held to be removed when the listener is dropped.
    #[cfg(unix)]
    Unix { socket: UnixListener, _file: SocketFile },
}

/// Where a listener really listens, the port that the system chose included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// An address that cannot be listened on.
#[derive(Debug)]
pub struct BindError {
    address: String,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on `{}`: {}", self.address, self.source)
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds everything that an address stands for.
///
/// # Errors
///
/// [`BindError`], and then nothing stays bound.
pub(crate) fn bind(address: &Address) -> Result<Vec<Listener>, BindError> {
    let bound = match address {
        Address::Tcp { host, port } => bind_tcp(host, *port),
        #[cfg(unix)]
        Address::Unix(path) => bind_unix(path).map(|listener| vec![listener]),
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no Unix sockets on this system")),
    };
    bound.map_err(|source| BindError { address: address.to_string(), source })
}

fn bind_tcp(host: &str, port: u16) -> io::Result<Vec<Listener>> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut unsupported = None;
    for mut address in Address::resolve(host, port)? {
        if let (true, Some(Bound::Tcp(first))) = (host.is_empty(), listeners.first().map(Listener::place)) {
            // The port that the system has chosen for IPv6, for IPv4 too.
            address.set_port(first.port());
        }
        match TcpListener::bind(address) {
            Ok(socket) => listeners.push(Listener::tcp(socket)?),
            // A name's IPv6 address on a machine without IPv6, and the like: fine if another one works.
            Err(error) if is_unsupported(&error) => unsupported = Some(error),
            // The unspecified IPv6 address has taken the IPv4 one with it, unless the system keeps them apart.
            Err(_) if host.is_empty() && !listeners.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    match unsupported {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(errno::EAFNOSUPPORT)
}

#[cfg(unix)]
fn bind_unix(path: &std::path::Path) -> io::Result<Listener> {
    use std::os::unix::fs::FileTypeExt;

    let (socket, file) = match socket_file::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is there and is not a socket"));
            }
            if is_alive(path) {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            socket_file::bind(path)?
        }
        result => result?,
    };
    socket.set_nonblocking(true)?;
    Ok(Listener { socket: Socket::Unix { socket, _file: file }, place: Bound::Unix(path.to_owned()) })
}

/// False if nobody answers on a Unix socket's file: it was left behind by a server that was killed.
#[cfg(unix)]
fn is_alive(path: &std::path::Path) -> bool {
    use std::os::unix::net::UnixStream;

    let (sender, tried) = std::sync::mpsc::channel();
    let file = path.to_owned();
    // On a thread, since a server that lives but does not accept lets a connect wait for ever.
    let thread = std::thread::Builder::new().name("connect".to_owned()).spawn(move || {
        let _ = sender.send(UnixStream::connect(file).err().map(|error| error.kind()));
    });
    thread.is_err() || tried.recv_timeout(CONNECT_TIMEOUT) != Ok(Some(io::ErrorKind::ConnectionRefused))
}

impl Listener {
    /// Takes over a socket that is bound already.
    pub(crate) fn tcp(socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let place = Bound::Tcp(socket.local_addr()?);
        let socket = Socket::Tcp { socket: with_nodelay(socket), passes_nodelay_on: OnceLock::new() };
        Ok(Self { socket, place })
    }

    pub(crate) fn place(&self) -> &Bound {
        &self.place
    }

    /// One connection from the queue, non-blocking.
    pub(crate) fn accept(&self) -> Result<(Stream, Peer), AcceptError> {
        let accepted = match &self.socket {
            Socket::Tcp { socket, passes_nodelay_on } => socket.accept().and_then(|(stream, address)| {
                stream.set_nonblocking(true)?;
                // Answers leave at once: an answer's last bytes must not wait for the acknowledgement of its first.
                if !*passes_nodelay_on.get_or_init(|| stream.nodelay().unwrap_or(false)) {
                    // Refused by a peer that has gone already, which the first read will tell.
                    let _ = stream.set_nodelay(true);
                }
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }),
            #[cfg(unix)]
            Socket::Unix { socket, .. } => socket.accept().and_then(|(stream, _)| {
                stream.set_nonblocking(true)?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }),
        };
        accepted.map_err(AcceptError::sorted)
    }
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

/// The option on a listener, which on Linux and the BSDs its connections inherit: a system call less for each. std sets
/// it on streams only, and a descriptor does not mind what it is called.
#[cfg(unix)]
fn with_nodelay(socket: TcpListener) -> TcpListener {
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;

    let socket = TcpStream::from(OwnedFd::from(socket));
    // Where it is refused, it is set on each connection.
    let _ = socket.set_nodelay(true);
    TcpListener::from(OwnedFd::from(socket))
}

#[cfg(not(unix))]
fn with_nodelay(socket: TcpListener) -> TcpListener {
    socket
}

/// Why `accept` gave no connection.
#[derive(Debug)]
pub(crate) enum AcceptError {
    /// The queue is empty.
    WouldBlock,
    /// This one connection came to nothing, or the call did: try again.
    Transient,
    /// The process or the system has no descriptor or memory left: try again later.
    Exhausted(io::Error),
    /// The listener itself is broken.
    Dead(io::Error),
}

impl AcceptError {
    fn sorted(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Self::WouldBlock;
        }
        match error.raw_os_error() {
            Some(errno::EBADF | errno::EINVAL | errno::ENOTSOCK | errno::EOPNOTSUPP) => Self::Dead(error),
            // accept(2): errors of the network that are already pending on the new socket are passed on.
            Some(
                errno::EINTR
                | errno::ECONNABORTED
                | errno::ECONNRESET
                | errno::EPROTO
                | errno::EPERM
                | errno::ENETDOWN
                | errno::ENETUNREACH
                | errno::EHOSTDOWN
                | errno::EHOSTUNREACH
                | errno::ENOPROTOOPT
                | errno::ETIMEDOUT,
            ) => Self::Transient,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever nobody has thought of: waiting a little is always safe.
            _ => Self::Exhausted(error),
        }
    }
}

/// The error numbers that std has no kind for.
mod errno {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    mod numbers {
        pub(crate) const ENOTSOCK: i32 = 88;
        pub(crate) const EPROTO: i32 = 71;
        pub(crate) const ENOPROTOOPT: i32 = 92;
        pub(crate) const EOPNOTSUPP: i32 = 95;
        pub(crate) const EAFNOSUPPORT: i32 = 97;
        pub(crate) const ENETDOWN: i32 = 100;
        pub(crate) const ENETUNREACH: i32 = 101;
        pub(crate) const ECONNABORTED: i32 = 103;
        pub(crate) const ECONNRESET: i32 = 104;
        pub(crate) const ETIMEDOUT: i32 = 110;
        pub(crate) const EHOSTDOWN: i32 = 112;
        pub(crate) const EHOSTUNREACH: i32 = 113;
    }
    // The BSDs and macOS share these, but for EPROTO: 100 on macOS, 92 to 96 elsewhere; 100 stands for none there.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    mod numbers {
        pub(crate) const ENOTSOCK: i32 = 38;
        pub(crate) const ENOPROTOOPT: i32 = 42;
        pub(crate) const EOPNOTSUPP: i32 = 45;
        pub(crate) const EAFNOSUPPORT: i32 = 47;
        pub(crate) const ENETDOWN: i32 = 50;
        pub(crate) const ENETUNREACH: i32 = 51;
        pub(crate) const ECONNABORTED: i32 = 53;
        pub(crate) const ECONNRESET: i32 = 54;
        pub(crate) const ETIMEDOUT: i32 = 60;
        pub(crate) const EHOSTDOWN: i32 = 64;
        pub(crate) const EHOSTUNREACH: i32 = 65;
        pub(crate) const EPROTO: i32 = 100;
    }
    pub(crate) use numbers::*;
    // The same everywhere since Version 7 Unix.
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EBADF: i32 = 9;
    pub(crate) const EINVAL: i32 = 22;
}

/// A listener that all loops accept from, until one of them that drains closes it for all.
///
/// ```text
///        `close`: the queue is empty
/// OPEN ──────────────────────────────▶ CLOSED: connects are refused
///  │ ▲                                   ▲
///  │ └── `close`: no descriptor is left  │
///  └──────────── `abandon`, at the deadline
/// ```
///
/// Whoever waits in the queue has completed the handshake and may have sent a request, and closing resets it. So as
/// long as the queue cannot be emptied for want of a descriptor, the gate stays open; a loop that drains tries again
/// after a pause, and does not end before. With several loops any of them may be the one that succeeds: under the lock
/// it either finds the listener and the queue's next, or that another has closed it. What it accepts is its own to
/// answer, since others may have left.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: RwLock<Option<Listener>>,
    place: Bound,
    has_failed: AtomicBool,
}

/// Connections of a queue that are looked at when it is abandoned: more than std lets wait. Bounded, since clients that
/// are reset may come again at once.
const ABANDONED_MAX: usize = 1024;

impl Gate {
    pub(crate) fn new(listener: Listener) -> Self {
        let place = listener.place().clone();
        Self { listener: RwLock::new(Some(listener)), place, has_failed: AtomicBool::new(false) }
    }

    pub(crate) fn place(&self) -> &Bound {
        &self.place
    }

    /// Notes that the listener is broken. Returns true to the first who says so.
    pub(crate) fn fail(&self) -> bool {
        !self.has_failed.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.with(|_| ()).is_some()
    }

    /// One connection from the queue; `None` if the gate is closed.
    pub(crate) fn accept(&self) -> Option<Result<(Stream, Peer), AcceptError>> {
        self.with(Listener::accept)
    }

    /// Looks at the listener, if the gate is still open.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Listener) -> T) -> Option<T> {
        self.listener.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(look)
    }

    /// Accepts until the queue is empty and closes the listener in the same breath: whoever had completed the
    /// handshake is served, whoever comes later is refused. Nothing may stand between the last `accept` and the drop.
    ///
    /// # Errors
    ///
    /// No descriptor or memory is left for the next in the queue, and the gate stays open.
    pub(crate) fn close(&self, accepted: &mut Vec<(Stream, Peer)>) -> io::Result<()> {
        let mut gate = self.listener.write().unwrap_or_else(PoisonError::into_inner);
        while let Some(listener) = &*gate {
            match listener.accept() {
                Ok(connection) => accepted.push(connection),
                Err(AcceptError::Transient) => {}
                Err(AcceptError::Exhausted(error)) => return Err(error),
                Err(AcceptError::WouldBlock | AcceptError::Dead(_)) => *gate = None,
            }
        }
        Ok(())
    }

    /// Closes the listener, whoever waits. Each is accepted to be looked at, one at a time, so that one descriptor is
    /// enough.
    ///
    /// # Errors
    ///
    /// Not even that is left, so that nobody knows who waited.
    pub(crate) fn abandon(&self, mut look: impl FnMut(Stream)) -> io::Result<()> {
        let Some(listener) = self.listener.write().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        for _ in 0..ABANDONED_MAX {
            match listener.accept() {
                Ok((stream, _)) => look(stream),
                Err(AcceptError::Transient) => {}
                Err(AcceptError::Exhausted(error)) => return Err(error),
                Err(AcceptError::WouldBlock | AcceptError::Dead(_)) => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_at_once_on_every_connection() {
        let listener = Listener::tcp(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let Bound::Tcp(address) = listener.place().clone() else { unreachable!("bound to TCP") };
        for _ in 0..2 {
            let _client = std::net::TcpStream::connect(address).unwrap();
            let accepted = std::iter::repeat_with(|| listener.accept()).find_map(Result::ok);
            let Some((Stream::Tcp(stream), _)) = accepted else { unreachable!("a client has connected") };
            assert!(stream.nodelay().unwrap());
        }
    }
}
