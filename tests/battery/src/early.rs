//! Uploads of 10 MB that are refused at once: every client sends on, as clients do, and then reads the whole answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::ground::Ground;
use crate::server::Server;
use crate::{HANG, Report, Result};

const UPLOAD_BYTES: usize = 10 * 1000 * 1000;
const AT_ONCE: usize = 10;
/// The server reads on for 5 s at most, and for 0.5 s of silence. A client that was slower is owed nothing.
const TIME_MAX: Duration = Duration::from_millis(4500);
const GAP_MAX: Duration = Duration::from_millis(400);

/// What is refused, and the answer that is due.
const CASES: [(&str, &str, &str); 5] = [
    ("POST /echo", "Content-Length: 10000000", "HTTP/1.1 413 "),
    ("POST /echo", "Transfer-Encoding: chunked", "HTTP/1.1 413 "),
    // A body that is too large is refused before anybody asks what it is for.
    ("POST /nowhere", "Content-Length: 10000000", "HTTP/1.1 413 "),
    ("POST /echo", "Content-Length: 10000000\r\nExpect: patience", "HTTP/1.1 417 "),
    ("BREW /echo", "Content-Length: 10000000", "HTTP/1.1 501 "),
];

/// One client's end.
enum End {
    Read,
    /// It was not read, and this client was too slow to be owed it.
    Late,
    Lost(String),
}

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    let count = ground.form(50, 1000);
    let server = Server::start(&mut ground.demo())?;
    let (next, ends) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let (request, framing, due) = CASES[number % CASES.len()];
            let end = upload(server.address, request, framing, due);
            let end = end.map_err(|lost| format!("{request}, {framing}: {lost}"));
            ends.lock().expect("nothing panics").push(end);
        }
    };
    thread::scope(|scope| (0..AT_ONCE).for_each(|_| _ = scope.spawn(work)));
    let ends = ends.into_inner().expect("nothing panics");
    let read = ends.iter().filter(|end| matches!(end, Ok(End::Read))).count();
    let late = ends.iter().filter(|end| matches!(end, Ok(End::Late))).count();
    let mut faults: Vec<_> = ends
        .into_iter()
        .filter_map(|end| match end {
            Ok(End::Lost(what)) | Err(what) => Some(what),
            Ok(End::Read | End::Late) => None,
        })
        .collect();
    server.expect_clean_stop(&mut faults)?;
    let done = format!("{count} uploads of 10 MB, refused with 413, 417 and 501");
    let figures = format!("{read} of {count} clients read the whole answer; {late} were too slow to be owed it");
    // Nothing was tried if all were.
    let skipped = if late * 2 > count { vec![format!("{late} clients were kept from running")] } else { Vec::new() };
    Ok(Report { done, figures, faults, skipped })
}

/// Sends all of it before it reads, and tells what it has read.
fn upload(address: SocketAddr, request: &str, framing: &str, due: &str) -> Result<End, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).map_err(text)?;
    stream.set_read_timeout(Some(HANG)).and(stream.set_write_timeout(Some(HANG))).map_err(text)?;
    let began = Instant::now();
    let head = format!("{request} HTTP/1.1\r\nHost: battery\r\n{framing}\r\n\r\n");
    let (mut sent, mut gap) = (stream.write_all(head.as_bytes()), Duration::ZERO);
    let is_chunked = framing.starts_with("Transfer");
    let chunk = chunk(is_chunked);
    let mut last = Instant::now();
    for _ in 0..UPLOAD_BYTES / CHUNK_BYTES {
        sent = sent.and_then(|()| stream.write_all(&chunk));
        gap = gap.max(last.elapsed());
        last = Instant::now();
    }
    if is_chunked {
        sent = sent.and_then(|()| stream.write_all(b"0\r\n\r\n"));
    }
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    gap = gap.max(last.elapsed());
    let answer = String::from_utf8_lossy(&answer);
    // Without a reset, either: this system would keep what came before it, and others do not.
    if is_whole(&answer, due) && sent.is_ok() && read.is_ok() {
        return Ok(End::Read);
    }
    if began.elapsed() > TIME_MAX || gap > GAP_MAX {
        return Ok(End::Late);
    }
    Ok(End::Lost(format!("sent {sent:?}, read {read:?}: {answer:?} after {:?}", began.elapsed())))
}

const CHUNK_BYTES: usize = 50_000;

fn chunk(is_chunked: bool) -> Vec<u8> {
    let bytes = vec![b'x'; CHUNK_BYTES];
    if is_chunked { [format!("{CHUNK_BYTES:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat() } else { bytes }
}

/// The status that is due, all fields, and a body of the length that they say.
fn is_whole(answer: &str, due: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok());
    head.starts_with(due) && length == Some(body.len()) && !body.is_empty()
}
