//! The limit: what the kernel alone costs. Nothing is parsed; for each so many bytes a constant is sent.
//!
//! `limit ADDRESS REQUEST_BYTES BODY_BYTES [close]`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

type Failure = Box<dyn std::error::Error>;
const HEAD: &str = "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain; charset=utf-8";

struct Connection {
    stream: TcpStream,
    received: usize,
    unsent: usize,
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, request_bytes, body_bytes, rest @ ..] = &arguments[..] else {
        return Err("too few arguments".into());
    };
    let (request_bytes, body_bytes): (usize, usize) = (request_bytes.parse()?, body_bytes.parse()?);
    let connection = if rest.is_empty() { "" } else { "\r\nConnection: close" };
    let answer = format!("{HEAD}\r\nContent-Length: {body_bytes}{connection}\r\n\r\n{}", "x".repeat(body_bytes));
    let address = address.parse()?;
    let (one, two) = (listener(address)?, listener(address)?);
    std::thread::scope(|scope| {
        scope.spawn(|| turn(&one, request_bytes, &answer, !rest.is_empty()).unwrap());
        turn(&two, request_bytes, &answer, !rest.is_empty())
    })
}

/// One of several on the same address: the kernel shares the connections out among them.
fn listener(address: SocketAddr) -> Result<TcpListener, Failure> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::new(1024)?)?;
    Ok(TcpListener::from(socket))
}

fn turn(listener: &TcpListener, request_bytes: usize, answer: &str, closes: bool) -> Result<(), Failure> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener, EpollEvent::new(EpollFlags::EPOLLIN, listener.as_raw_fd() as u64))?;
    let batch = answer.repeat((1 << 18) / answer.len());
    let (mut events, mut scratch) = ([EpollEvent::empty(); 256], vec![0; 1 << 16]);
    let mut connections: Vec<Option<Connection>> = Vec::new();
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for at in events.iter().take(count).map(|event| event.data() as usize) {
            if at == listener.as_raw_fd() as usize {
                let Ok((stream, _)) = listener.accept() else { continue };
                stream.set_nonblocking(true)?;
                let (edges, at) =
                    (EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, stream.as_raw_fd());
                epoll.add(&stream, EpollEvent::new(edges, at as u64))?;
                connections.resize_with(connections.len().max(at as usize + 1), || None);
                connections[at as usize] = Some(Connection { stream, received: 0, unsent: 0 });
            } else if let Some(connection) = &mut connections[at] {
                if !connection.serve(request_bytes, answer.len(), batch.as_bytes(), &mut scratch, closes) {
                    connections[at] = None;
                }
            }
        }
    }
}

impl Connection {
    /// Returns false once it is to be closed.
    fn serve(&mut self, request: usize, answer: usize, batch: &[u8], scratch: &mut [u8], closes: bool) -> bool {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(_) => 0,
            };
            self.received += count;
            self.unsent += self.received / request * answer;
            let is_answered = self.received >= request;
            self.received %= request;
            while self.unsent > 0 {
                let start = (answer - self.unsent % answer) % answer;
                match self.stream.write(&batch[start..batch.len().min(start + self.unsent)]) {
                    Ok(sent) => self.unsent -= sent,
                    Err(_) => break,
                }
            }
            if count < scratch.len() {
                return !(closes && is_answered && self.unsent == 0);
            }
        }
    }
}
