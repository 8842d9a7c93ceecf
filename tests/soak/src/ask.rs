//! Requests, and what is due to each.

use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;

use crate::client::Answer;

/// A request without a body, or with one that is sent along.
pub(crate) struct Ask {
    pub(crate) bytes: Vec<u8>,
    pub(crate) is_head: bool,
    what: String,
    id: u64,
    due: Due,
}

/// The answer that is due.
struct Due {
    status: u16,
    body: Vec<u8>,
    /// The length that the head says; of a stream there is none.
    has_length: bool,
    /// It ends its connection, whatever else happens.
    is_last: bool,
}

/// Each request of this process has its own.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// What an upload's body is a slice of, and every `/bytes`.
pub(crate) fn noise(from: usize, length: usize) -> Vec<u8> {
    (from..from + length).map(|at| (at * 31 + at / 251) as u8).collect()
}

pub(crate) fn lines(count: usize) -> String {
    (0..count).map(|line| format!("line {line} of {count}\n")).collect()
}

impl Ask {
    fn new(method: &str, target: &str, fields: &str, body: &[u8], due: Due) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: soak\r\nId: {id}\r\n{fields}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        Self { bytes, is_head: method == "HEAD", what: format!("{method} {target}, id {id}"), id, due }
    }

    fn get(target: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("GET", target, "", b"", Due::whole(body))
    }

    /// A small one of any kind that can be sent in one piece, and be behind others.
    pub(crate) fn small(rng: &mut Rng) -> Self {
        match rng.u8(..8) {
            0 | 1 => Self::get("/ping", "pong"),
            2 => Self::get("/once", "at once"),
            3 => {
                let ms = rng.u8(..4);
                Self::get(&format!("/sleep/{ms}"), "slept")
            }
            4 => Self::bytes(rng.usize(..2000)),
            5 => {
                let body = noise(rng.usize(..1000), rng.usize(..400));
                let fields = format!("Content-Length: {}\r\n", body.len());
                Self::new("POST", "/echo", &fields, &body, Due::whole(body.clone()))
            }
            6 => Self::head(rng),
            _ => Self::get("/spin", "spun"),
        }
    }

    pub(crate) fn ping() -> Self {
        Self::get("/ping", "pong")
    }

    pub(crate) fn bytes(count: usize) -> Self {
        Self::get(&format!("/bytes/{count}"), noise(0, count))
    }

    pub(crate) fn stream(rng: &mut Rng) -> Self {
        let count = rng.usize(1..30);
        let due = Due { has_length: false, ..Due::whole(lines(count)) };
        Self::new("GET", &format!("/stream/{count}"), "", b"", due)
    }

    pub(crate) fn head(rng: &mut Rng) -> Self {
        let count = rng.usize(1..30);
        if rng.bool() {
            let due = Due::whole(noise(0, count));
            Self::new("HEAD", &format!("/bytes/{count}"), "", b"", due)
        } else {
            let due = Due { has_length: false, ..Due::whole(lines(count)) };
            Self::new("HEAD", &format!("/stream/{count}"), "", b"", due)
        }
    }

    pub(crate) fn panic() -> Self {
        let due = Due { status: 500, is_last: true, ..Due::whole("internal server error\n") };
        Self::new("GET", "/panic", "", b"", due)
    }

    /// One that says itself that it is its connection's last.
    pub(crate) fn closing(rng: &mut Rng) -> Self {
        let count = rng.usize(..5000);
        let due = Due { is_last: true, ..Due::whole(noise(0, count)) };
        Self::new("GET", &format!("/bytes/{count}"), "Connection: close\r\n", b"", due)
    }

    /// Stops the server, by a closure behind the answer or from inside of the handler.
    pub(crate) fn stop(target: &str) -> Self {
        Self::get(target, "stopping")
    }

    /// Never answered in time.
    pub(crate) fn stuck() -> Self {
        Self::get("/stuck", "unstuck")
    }

    /// An upload's head, whose body is to follow.
    pub(crate) fn upload(is_held: bool, length: usize, is_chunked: bool) -> Self {
        let framing = match is_chunked {
            true => "Transfer-Encoding: chunked\r\n".to_owned(),
            false => format!("Content-Length: {length}\r\n"),
        };
        match is_held {
            true => Self::new("POST", "/echo", &framing, b"", Due::whole(noise(0, length))),
            false => Self::new("POST", "/count", &framing, b"", Due::whole(length.to_string())),
        }
    }

    pub(crate) fn ends(&self) -> bool {
        self.due.is_last
    }

    /// What is wrong with an answer, if anything is.
    pub(crate) fn check(&self, answer: &Answer) -> Result<(), String> {
        let due = &self.due;
        let length = due.has_length.then_some(due.body.len());
        let id = if due.status == 500 { None } else { Some(self.id) };
        if (answer.status, answer.id, answer.length) != (due.status, id, length) {
            let (status, had, said) = (answer.status, answer.id, answer.length);
            return Err(format!("{self}: answered {status} to id {had:?}, with length {said:?} of {length:?}"));
        }
        if !self.is_head && answer.body != due.body {
            return Err(format!("{self}: {} bytes of {} came, or others", answer.body.len(), due.body.len()));
        }
        if due.is_last && !answer.is_last {
            return Err(format!("{self}: the connection is not closed"));
        }
        Ok(())
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

impl Due {
    fn whole(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), has_length: true, is_last: false }
    }
}
