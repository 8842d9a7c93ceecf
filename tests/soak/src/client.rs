//! One connection: what is sent, and the answers that come. It reads the protocol by itself, so that the server is not
//! judged by its own reading.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

/// Only a hang takes this long.
pub const HANG: Duration = Duration::from_secs(60);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl FromStr for Place {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub struct Client {
    stream: Stream,
    received: Vec<u8>,
    /// The server cannot call it quiet since a moment before this: it was about to connect, or to send.
    moved_at: Instant,
    /// It has had an answer, and so it was accepted.
    pub is_accepted: bool,
    /// Before each read.
    pub pause: Option<Duration>,
}

pub struct Answer {
    pub status: u16,
    pub id: Option<u64>,
    /// What the head says of the body; `None` for chunks, and for one that ends with the connection.
    pub length: Option<usize>,
    pub body: Vec<u8>,
    /// It says that it is the connection's last.
    pub is_last: bool,
}

impl Client {
    pub fn connect(place: &Place) -> io::Result<Self> {
        let moved_at = Instant::now();
        let stream = match place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(HANG))?;
                stream.set_write_timeout(Some(HANG))?;
                Stream::Tcp(stream)
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(HANG))?;
                stream.set_write_timeout(Some(HANG))?;
                Stream::Unix(stream)
            }
        };
        Ok(Self { stream, received: Vec::new(), moved_at, is_accepted: false, pause: None })
    }

    /// Sends all of it. Returns for how long it can have been quiet before, at most, and whether it could be sent.
    pub fn send(&mut self, bytes: &[u8]) -> (Duration, io::Result<()>) {
        let about_to = Instant::now();
        let sent = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        };
        let quiet = self.moved_at.elapsed();
        self.moved_at = about_to;
        (quiet, sent)
    }

    /// Sends no more.
    pub fn half_close(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// True if anything has come that no answer has taken.
    pub fn has_begun(&self) -> bool {
        !self.received.is_empty()
    }

    /// Reads the next answer.
    pub fn answer(&mut self, is_head: bool) -> io::Result<Answer> {
        let end = self.find(0, b"\r\n\r\n")? + 4;
        let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        if !head.starts_with("http/1.1 ") {
            return Err(wrong(&head));
        }
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| wrong(&head))?;
        let id = field("id").and_then(|id| id.parse().ok());
        let length: Option<usize> = field("content-length").and_then(|length| length.parse().ok());
        let is_chunked = field("transfer-encoding") == Some("chunked");
        let is_last = field("connection") == Some("close");
        let (body, end) = match length {
            _ if is_head => (Vec::new(), end),
            Some(length) => {
                self.need(end + length)?;
                (self.received[end..end + length].to_vec(), end + length)
            }
            None if is_chunked => self.chunks(end)?,
            None => {
                while self.receive()? > 0 {}
                (self.received[end..].to_vec(), self.received.len())
            }
        };
        self.received.drain(..end);
        self.is_accepted = true;
        Ok(Answer { status, id, length, body, is_last })
    }

    fn chunks(&mut self, mut at: usize) -> io::Result<(Vec<u8>, usize)> {
        let mut body = Vec::new();
        loop {
            let line = self.find(at, b"\r\n")?;
            let digits = std::str::from_utf8(&self.received[at..line]).map_err(|_| wrong("a chunk's size"))?;
            let size = usize::from_str_radix(digits, 16).map_err(|_| wrong("a chunk's size"))?;
            let start = line + 2;
            self.need(start + size + 2)?;
            if &self.received[start + size..start + size + 2] != b"\r\n" {
                return Err(wrong("a chunk's end"));
            }
            body.extend_from_slice(&self.received[start..start + size]);
            at = start + size + 2;
            if size == 0 {
                return Ok((body, at));
            }
        }
    }

    /// Reads until the server has closed: how many bytes there were that belong to no answer.
    pub fn rest(&mut self) -> io::Result<usize> {
        while self.receive()? > 0 {}
        Ok(self.received.len())
    }

    fn find(&mut self, from: usize, what: &[u8]) -> io::Result<usize> {
        let mut at = from;
        loop {
            if let Some(found) = self.received.get(at..).unwrap_or_default().windows(what.len()).position(|w| w == what)
            {
                return Ok(at + found);
            }
            at = self.received.len().saturating_sub(what.len() - 1).max(from);
            self.need(self.received.len() + 1)?;
        }
    }

    fn need(&mut self, count: usize) -> io::Result<()> {
        while self.received.len() < count {
            if self.receive()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<usize> {
        if let Some(pause) = self.pause {
            thread::sleep(pause);
        }
        let mut bytes = [0; 16 * 1024];
        let count = match &mut self.stream {
            Stream::Tcp(stream) => stream.read(&mut bytes),
            Stream::Unix(stream) => stream.read(&mut bytes),
        }?;
        self.received.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("not an answer: {what}"))
}
