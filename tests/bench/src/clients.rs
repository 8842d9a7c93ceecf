//! Clients: one connection, and a load of many.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use crate::{HANG, Result};

/// One keep-alive connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// What the benchmarks look at in an answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    pub status: u16,
    /// It says that it is the connection's last.
    pub is_last: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANG))?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends some bytes.
    pub fn send(&mut self, bytes: &str) -> io::Result<()> {
        self.stream.write_all(bytes.as_bytes())
    }

    /// Sends a request for a path.
    pub fn ask(&mut self, path: &str) -> io::Result<()> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    /// Asks for a path and reads the answer.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask(path)?;
        self.answer()
    }

    /// Reads the next answer, which must have a length.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
        let head_end = loop {
            match self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.receive()?,
            }
        };
        let head = String::from_utf8_lossy(&self.received[..head_end]).to_ascii_lowercase();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(|| wrong("no status"))?;
        let length: usize =
            field("content-length").and_then(|length| length.parse().ok()).ok_or_else(|| wrong("no length"))?;
        let is_last = field("connection") == Some("close");
        while self.received.len() < head_end + length {
            self.receive()?;
        }
        self.received.drain(..head_end + length);
        Ok(Answer { status, is_last })
    }

    /// True if the connection rests: nothing has come, and the server has not closed it.
    pub fn is_resting(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let is_resting = peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_ok() && is_resting
    }

    /// Reads until the server closes, as an attentive client does, and then closes too.
    pub fn read_to_end(mut self) {
        // A reset is an end too.
        let _ = io::copy(&mut self.stream, &mut io::sink());
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes)?;
        self.received.extend_from_slice(&bytes[..count]);
        if count == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Clients that ask for `/ping` again and again, each on a connection and a thread of its own, until the server has
/// gone.
#[derive(Debug)]
pub struct Load {
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<usize, String>>>,
}

/// What became of a load's requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub answered: usize,
    /// Sent whole, and never answered.
    pub lost: usize,
}

impl Load {
    /// Starts so many clients, and returns once each of them is in full swing.
    pub fn start(address: SocketAddr, clients: usize) -> Result<Self> {
        /// Answers until a client counts as busy.
        const WARM_UP: usize = 50;
        let answered = Arc::new(AtomicUsize::new(0));
        let (warm, is_warm) = std::sync::mpsc::channel();
        let client = |_| {
            let (answered, warm) = (Arc::clone(&answered), warm.clone());
            thread::spawn(move || {
                let count = |number: usize| {
                    answered.fetch_add(1, Ordering::Relaxed);
                    if number == WARM_UP {
                        let _ = warm.send(());
                    }
                };
                ask_until_gone(address, count)
            })
        };
        let clients: Vec<_> = (0..clients).map(client).collect();
        drop(warm);
        let count = is_warm.iter().take(clients.len()).count();
        let load = Self { answered, clients };
        if count < load.clients.len() {
            return Err(format!("the load broke off: {:?}", load.tally()).into());
        }
        Ok(load)
    }

    /// Waits until all clients have seen that the server has gone.
    pub fn tally(self) -> Result<Tally> {
        let mut lost = 0;
        for client in self.clients {
            lost += client.join().map_err(|_| "a client panicked")??;
        }
        Ok(Tally { answered: self.answered.load(Ordering::Relaxed), lost })
    }
}

/// Returns how many requests were lost: sent whole, and never answered. A connection that is refused is no loss.
fn ask_until_gone(address: SocketAddr, answered: impl Fn(usize)) -> Result<usize, String> {
    let (mut lost, mut number) = (0, 0);
    // Once told to go, or thrown out, come again, as a client does; a server that has gone refuses.
    while let Ok(mut client) = Client::connect(address) {
        // What could not be sent is not lost.
        while client.ask("/ping").is_ok() {
            match client.answer() {
                Ok(Answer { status: 200, is_last }) => {
                    number += 1;
                    answered(number);
                    if is_last {
                        break;
                    }
                }
                Ok(Answer { status, .. }) => return Err(format!("status {status}")),
                Err(_) => {
                    lost += 1;
                    break;
                }
            }
        }
    }
    Ok(lost)
}
