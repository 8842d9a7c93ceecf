//! Where a server listens: the text of an address, and what it stands for.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An address to listen on, read from text:
///
/// | text | where |
/// |---|---|
/// | `127.0.0.1:8080`, `[::1]:8080` | this address |
/// | `localhost:8080` | every address that the name resolves to |
/// | `:8080` | every address of this machine, IPv6 and IPv4: both, or an error, unless there is no IPv6 |
/// | `unix:/run/allout.sock` | a Unix socket, by the path of its file |
///
/// Port 0 lets the system choose one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Address {
    /// A host (empty for every address) and a port.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// The port; 0 lets the system choose.
        port: u16,
    },
    /// The path of a Unix socket. Who may connect depends on the file's mode, which the umask decides, and on its
    /// folder. A file left behind by a killed server is replaced; if several servers find one at once, one gets it (on
    /// Linux, if they are in the same network namespace). Abstract sockets are not supported: a path must not begin
    /// with `@`.
    Unix(PathBuf),
}

impl Address {
    /// Every address of this machine, IPv6 and IPv4.
    pub(super) fn unspecified(port: u16) -> [SocketAddr; 2] {
        [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()]
    }

    /// The socket addresses of a host: at least one, and each only once.
    pub(super) fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in (host, port).to_socket_addrs()? {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
        } else {
            Ok(found)
        }
    }
}

impl TryFrom<&str> for Address {
    type Error = AddressError;

    fn try_from(text: &str) -> Result<Self, AddressError> {
        text.parse()
    }
}

/// Exactly this address; `0.0.0.0` and `[::]` stand for one family each.
impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{}%{}", v6.ip(), v6.scope_id()),
            address => address.ip().to_string(),
        };
        Self::Tcp { host, port: address.port() }
    }
}

/// What can be listened on, one address or several: text, [`SocketAddr`], [`Address`], references to them, and arrays,
/// slices and vectors of them. Nothing else can implement it.
///
/// ```
/// use std::net::SocketAddr;
/// use allout::{Address, Config, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let one = Server::bind("127.0.0.1:0", Config::default())?;
/// let several = Server::bind(["127.0.0.1:0", "localhost:0"], Config::default())?;
/// let address: SocketAddr = "127.0.0.1:0".parse()?;
/// let parsed = Server::bind(address, Config::default())?;
/// let both = [Address::from(address), "localhost:0".parse()?];
/// let both = Server::bind(both, Config::default())?;
/// # Ok(())
/// # }
/// ```
pub trait ToAddresses: sealed::Sealed {
    /// In the order in which they are bound.
    #[doc(hidden)]
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError>;
}

mod sealed {
    use super::{Address, SocketAddr};

    pub trait Sealed {}

    impl Sealed for str {}
    impl Sealed for String {}
    impl Sealed for SocketAddr {}
    impl Sealed for Address {}
    impl<T> Sealed for [T] {}
    impl<T, const N: usize> Sealed for [T; N] {}
    impl<T> Sealed for Vec<T> {}
    impl<T: ?Sized> Sealed for &T {}
}

impl ToAddresses for str {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        Ok(vec![self.parse()?])
    }
}

impl ToAddresses for String {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        self.as_str().to_addresses()
    }
}

impl ToAddresses for SocketAddr {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        Ok(vec![(*self).into()])
    }
}

impl ToAddresses for Address {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        Ok(vec![self.clone()])
    }
}

impl<T: ToAddresses> ToAddresses for [T] {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        let mut all = Vec::new();
        for some in self {
            all.extend(some.to_addresses()?);
        }
        Ok(all)
    }
}

impl<T: ToAddresses, const N: usize> ToAddresses for [T; N] {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        self.as_slice().to_addresses()
    }
}

impl<T: ToAddresses> ToAddresses for Vec<T> {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        self.as_slice().to_addresses()
    }
}

impl<T: ToAddresses + ?Sized> ToAddresses for &T {
    fn to_addresses(&self) -> Result<Vec<Address>, AddressError> {
        (*self).to_addresses()
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |problem| AddressError { text: text.to_owned(), problem };
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err(wrong("the path is missing")),
                path if is_abstract(path.as_ref()) => Err(wrong(NO_ABSTRACT)),
                path => Ok(Self::Unix(path.into())),
            };
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port =
            port.parse().ok().filter(|_| is_number).ok_or_else(|| wrong("the port is not a number up to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').filter(|inner| inner.parse::<Ipv6Addr>().is_ok());
                inner.ok_or_else(|| wrong("the brackets hold no IPv6 address"))?
            }
            None if host.contains([':', '/', ']', ' ']) => {
                return Err(wrong("the host is no name or address (IPv6 needs brackets)"));
            }
            None => host,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

pub(super) const NO_ABSTRACT: &str = "abstract sockets are not served (a file of that name: `./@…`)";

/// Other programs write abstract names like this. Nobody who writes one means a file.
pub(super) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().starts_with(b"@")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddressError {
    pub(super) text: String,
    pub(super) problem: &'static str,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad address `{}`: {}", self.text, self.problem)
    }
}

impl std::error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for text in ["127.0.0.1:8080", ":0", "[::1]:80", "localhost:65535", "unix:/tmp/a b", "unix:x"] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn socket_addresses_are_themselves() {
        for text in ["127.0.0.1:8080", "[::1]:80", "0.0.0.0:0", "[::]:1", "[fe80::1%3]:80"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(address).to_string(), text);
        }
    }

    #[test]
    fn bad_addresses_are_named() {
        for text in [
            "", "8080", "a:", "a:b", "a:+1", "a:65536", "::1:80", "[x]:80", "[::1]", "unix:", "unix:@a", "a/b:80",
            "a b:1",
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.starts_with(&format!("bad address `{text}`: ")), "{error}");
        }
    }
}
