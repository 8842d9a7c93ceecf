//! Clients that ask and check, and those that come afresh while others are a burden.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use allout_soak::client::{Client, Place};

/// A request without a body.
pub(crate) fn get(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: battery\r\n\r\n").into_bytes()
}

/// What is asked for, and the body that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// Answered on the loop.
    Ping,
    /// Answered by a handler.
    Bytes(usize),
    /// By one that takes so many milliseconds.
    Sleep(u32),
}

impl Ask {
    fn target(self) -> String {
        match self {
            Self::Ping => "/ping".to_owned(),
            Self::Bytes(count) => format!("/bytes/{count}"),
            Self::Sleep(ms) => format!("/sleep/{ms}"),
        }
    }

    fn is_due(self, body: &[u8]) -> bool {
        match self {
            Self::Ping => body == b"pong",
            Self::Bytes(count) => body.len() == count && body.iter().all(|byte| *byte == b'x'),
            Self::Sleep(_) => body.starts_with(b"slept"),
        }
    }

    /// Asks on a connection, and reads the answer: its status, and whether it is the connection's last. A body of 200
    /// that is not the one that is due is an error.
    pub(crate) fn on(self, client: &mut Client) -> io::Result<(u16, bool)> {
        client.send(&get(&self.target())).1?;
        let answer = client.answer(false)?;
        if answer.status == 200 && !self.is_due(&answer.body) {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("another body than of {self:?}")));
        }
        Ok((answer.status, answer.is_last))
    }

    /// The same on a connection of its own.
    pub(crate) fn once(self, address: SocketAddr) -> io::Result<u16> {
        Ok(self.on(&mut Client::connect(&Place::Tcp(address))?)?.0)
    }
}

/// What became of clients that came afresh.
#[derive(Debug, Default)]
pub(crate) struct Fresh {
    pub(crate) served: u64,
    pub(crate) slowest: Duration,
    pub(crate) faults: Vec<String>,
}

impl Fresh {
    /// One client after another, each on a connection of its own, until it is over. Each must be served.
    pub(crate) fn come(address: SocketAddr, pause: Duration, is_over: &AtomicBool) -> Self {
        let mut fresh = Self::default();
        for ask in [Ask::Ping, Ask::Bytes(100)].into_iter().cycle() {
            let began = Instant::now();
            match ask.once(address) {
                Ok(200) => fresh.served += 1,
                other => fresh.faults.push(format!("a fresh {ask:?} after {:?}: {other:?}", began.elapsed())),
            }
            fresh.slowest = fresh.slowest.max(began.elapsed());
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            thread::sleep(pause);
        }
        if fresh.served == 0 {
            fresh.faults.push("no fresh request was served".to_owned());
        }
        fresh
    }
}
