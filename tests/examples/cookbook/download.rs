//! A download says its length, so that one that breaks off is seen by every client and
//! proxy. What a client has already need not be sent again: `If-None-Match` is answered
//! 304, and `Range` goes on where a download broke off, if the file is still the same
//! (`If-Range`). HEAD needs nothing of its own.

use std::env::args;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::time::UNIX_EPOCH;

use allout::{Config, GRACE, Group, Outcome, Server, signals};
use allout::{Method, Request, Response, Router, Status};

struct Failed;

impl From<io::Error> for Failed {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<Failed> for Response {
    fn from(_: Failed) -> Self {
        Status::NOT_FOUND.into()
    }
}

fn download(request: &Request<'_>, path: &str) -> Result<Response, Failed> {
    let mut file = File::open(path)?;
    let about = file.metadata()?;
    let since = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let length = about.len();
    let etag = format!("\"{:x}-{length:x}\"", since.as_nanos());

    let field = |name| request.headers().get_str(name);
    if field("if-none-match").is_some_and(|tags| tags == "*" || tags.contains(&etag)) {
        return Ok(Response::new(Status::NOT_MODIFIED).with_field("ETag", etag));
    }
    let is_same = field("if-range").is_none_or(|tag| tag == etag);
    let wanted = field("range").filter(|_| is_same && request.method() == Method::Get);
    let (status, part) = match wanted.and_then(|text| range(text, length)) {
        Some(part) if part.is_empty() => (Status::RANGE_NOT_SATISFIABLE, 0..0),
        Some(part) => (Status::PARTIAL_CONTENT, part),
        None => (Status::OK, 0..length),
    };
    let said = match status {
        Status::PARTIAL_CONTENT => format!("{}-{}/{length}", part.start, part.end - 1),
        _ => format!("*/{length}"),
    };

    file.seek(SeekFrom::Start(part.start))?;
    let bytes = part.end - part.start;
    let response = Response::stream("application/octet-stream", move |out| {
        io::copy(&mut file.take(bytes), out).map(drop)
    });
    let response =
        response.with_length(bytes).with_status(status).with_field("ETag", etag);
    Ok(match status {
        Status::OK => response.with_field("Accept-Ranges", "bytes"),
        _ => response.with_field("Content-Range", format!("bytes {said}")),
    })
}

/// A range (RFC 9110 §14.1.2), empty if the file has nothing of it. `None` if it is
/// ignored, as everybody may who does not understand it: several are not understood
/// here.
fn range(text: &str, length: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number =
        |text: &str| text.parse::<u64>().ok().filter(|_| !text.starts_with('+'));
    if first.is_empty() {
        return Some(length.saturating_sub(number(last)?)..length);
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    (first <= last).then(|| first..last.saturating_add(1).min(length))
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let path = args().nth(2).unwrap_or("README.md".to_owned());
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    let router = Router::new().get("/file", move |request| download(request, &path));
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
