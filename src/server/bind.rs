//! From an address to its listeners.

use std::fmt;
use std::io;
use std::net::TcpListener;
#[cfg(unix)]
use std::time::Duration;

use super::accept_error::errno;
use super::address::Address;
use super::listener::{Bound, Listener};
#[cfg(unix)]
use super::socket_file;

/// How long a server that listens on a Unix socket already is given to show that nobody does. The kernel refuses at
/// once.
#[cfg(unix)]
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

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
            Ok(socket) => listeners.push(Listener::bound(socket)?),
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
    Listener::unix(socket, file, path.to_owned())
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
