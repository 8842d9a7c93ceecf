//! From addresses to listeners.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
#[cfg(unix)]
use std::time::Duration;

use super::accept_error::errno;
use super::address::{Address, AddressError, ToAddresses};
#[cfg(unix)]
use super::address::{NO_ABSTRACT, is_abstract};
use super::listener::{Listener, LocalAddress};
#[cfg(unix)]
use super::socket_file;

/// How long to wait for the kernel to refuse a connect to a Unix socket, which shows that no server listens there. It
/// does so at once.
#[cfg(unix)]
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How many ports to try if the system chooses one for IPv6, and IPv4 must have the same.
const PORTS_MAX: u32 = 16;

/// The server cannot listen on an address.
#[derive(Debug)]
pub struct BindError {
    address: String,
    source: io::Error,
}

impl BindError {
    /// The kind of the system's error: [`AddrInUse`](io::ErrorKind::AddrInUse), for example, to try another port.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on `{}`: {}", self.address, self.source)
    }
}

impl From<AddressError> for BindError {
    fn from(AddressError { text, problem }: AddressError) -> Self {
        Self { address: text, source: io::Error::new(io::ErrorKind::InvalidInput, problem) }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Binds everything that the addresses stand for.
///
/// # Errors
///
/// [`BindError`]; then nothing stays bound.
pub(crate) fn bind(addresses: &impl ToAddresses) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::new();
    for address in addresses.to_addresses()? {
        match listeners_of(&address) {
            Ok(more) => listeners.extend(more),
            Err(source) => {
                let source = told_of_ourselves(&address, &listeners, source);
                return Err(BindError { address: address.to_string(), source });
            }
        }
    }
    Ok(listeners)
}

fn listeners_of(address: &Address) -> io::Result<Vec<Listener>> {
    match address {
        Address::Tcp { host, port } if host.is_empty() => bind_all(*port),
        Address::Tcp { host, port } => bind_host(host, *port),
        #[cfg(unix)]
        Address::Unix(path) => bind_unix(path).map(|listener| vec![listener]),
        #[cfg(not(unix))]
        Address::Unix(_) => Err(io::Error::new(io::ErrorKind::Unsupported, "no Unix sockets on this system")),
    }
}

/// Every address of this machine, of both families. An IPv6 socket takes IPv4 clients too, unless the system keeps the
/// families apart.
fn bind_all(port: u16) -> io::Result<Vec<Listener>> {
    let [ipv6, ipv4] = Address::unspecified(port);
    for _ in 0..PORTS_MAX {
        let socket = match TcpListener::bind(ipv6) {
            Err(error) if is_unsupported(&error) => {
                let listener = TcpListener::bind(ipv4).and_then(Listener::bound);
                return Ok(vec![listener.map_err(|error| named(ipv4, &error))?]);
            }
            result => result.map_err(|error| named(ipv6, &error))?,
        };
        let (is_alone, port_chosen) = (is_ipv6_alone(&socket)?, socket.local_addr()?.port());
        let first = Listener::bound(socket)?;
        if !is_alone {
            return Ok(vec![first]);
        }
        let ipv4 = SocketAddr::new(ipv4.ip(), port_chosen);
        match TcpListener::bind(ipv4) {
            Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if is_unsupported(&error) => return Ok(vec![first]),
            Err(error) => return Err(named(ipv4, &error)),
            Ok(second) => return Ok(vec![first, Listener::bound(second)?]),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free for both IPv6 and IPv4"))
}

#[expect(deprecated)] // Deprecated since it cannot be set once a socket is bound; reading it is fine.
fn is_ipv6_alone(socket: &TcpListener) -> io::Result<bool> {
    socket.only_v6()
}

/// Every address of a host.
fn bind_host(host: &str, port: u16) -> io::Result<Vec<Listener>> {
    let is_name = host.parse::<IpAddr>().is_err();
    let mut listeners = Vec::new();
    let mut unsupported = None;
    for address in Address::resolve(host, port)? {
        match TcpListener::bind(address) {
            Ok(socket) => listeners.push(Listener::bound(socket)?),
            // A name's IPv6 address on a machine without IPv6, for example: fine if another address works.
            Err(error) if is_unsupported(&error) => unsupported = Some(error),
            Err(error) if is_name => return Err(named(address, &error)),
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

/// Adds to the error which of a text's addresses it concerns.
fn named(address: SocketAddr, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{address}: {error}"))
}

/// Adds to the error that this very server has taken the address, if so.
fn told_of_ourselves(address: &Address, listeners: &[Listener], error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    let has_taken = |place: &&LocalAddress| match (address, place) {
        (Address::Tcp { port, .. }, LocalAddress::Tcp(taken)) => *port == taken.port(),
        (Address::Unix(path), LocalAddress::Unix(taken)) => path == taken,
        _ => false,
    };
    let Some(taken) = listeners.iter().map(Listener::local_address).find(has_taken) else { return error };
    let port = match taken {
        LocalAddress::Tcp(taken) => format!("; `:{}` alone is every address, IPv6 and IPv4", taken.port()),
        LocalAddress::Unix(_) => String::new(),
    };
    io::Error::new(error.kind(), format!("{error}: this server listens on `{taken}` already{port}"))
}

#[cfg(unix)]
fn bind_unix(path: &std::path::Path) -> io::Result<Listener> {
    use std::os::unix::fs::FileTypeExt;

    if is_abstract(path) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, NO_ABSTRACT));
    }
    // Until it is bound, nobody else examines the file; and nobody sees it before it is listened on.
    let _claim = socket_file::claim(path)?;
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

/// False if nobody answers on a Unix socket's file: a server that was killed has left it behind.
#[cfg(unix)]
fn is_alive(path: &std::path::Path) -> bool {
    use std::os::unix::net::UnixStream;

    use super::reply::reply;
    use crate::sync::{Builder, spawn};

    let (sender, tried) = reply();
    let file = path.to_owned();
    // On a thread, since a server that lives but does not accept makes a connect wait for ever.
    let connect = move || sender.send(UnixStream::connect(file).err().map(|error| error.kind()));
    let thread = spawn(Builder::new().name("connect".to_owned()), Box::new(connect));
    thread.is_err() || tried.wait(Some(CONNECT_TIMEOUT)) != Some(Some(io::ErrorKind::ConnectionRefused))
}
