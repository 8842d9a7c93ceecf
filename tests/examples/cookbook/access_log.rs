//! One line for each answer: `on_answer` is told of all of them, the server's own
//! refusals too. It is called on the threads that serve, so it does not write: lines go
//! by a channel to a member that does. If the disk is too slow, lines are dropped and
//! counted; no client waits for them. The channel closes with the server, so that the
//! last lines of a stop are written too.
//!
//! Lines contain what clients have sent. What could end a text or a line is escaped, so
//! that nobody can forge one. A query may be secret: leave it out if yours is.

use std::borrow::Cow;
use std::env::args;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use allout::{Answered, Config, GRACE, Group, MemberResult, Outcome, Peer, Server};
use allout::{Method, Response, Router, signals};

/// How many lines may wait to be written.
const LINES_MAX: usize = 10_000;
/// Between two writes: to wake the writer for each line would cost more than the line.
const PAUSE: Duration = Duration::from_millis(20);

/// The Common Log Format, in UTC.
fn common(
    answered: &Answered<'_>,
    since_1970: Duration,
    line: &mut String,
) -> fmt::Result {
    write_host(answered.peer, line)?;
    line.push_str(" - - [");
    write_calendar(since_1970.as_secs(), line)?;
    line.push_str(" +0000] \"");
    match (answered.method, answered.version) {
        (Some(method), Some(version)) => {
            write!(line, "{method} {}", escaped(answered.path, "\\x"))?;
            if let Some(query) = answered.query {
                write!(line, "?{}", escaped(query, "\\x"))?;
            }
            write!(line, " {version}")?;
        }
        _ => line.push('-'),
    }
    writeln!(line, "\" {} {}", answered.status.code(), answered.bytes)
}

/// One JSON object a line.
fn json(
    answered: &Answered<'_>,
    since_1970: Duration,
    line: &mut String,
) -> fmt::Result {
    let (time_ms, took_us) = (since_1970.as_millis(), answered.took.as_micros());
    write!(line, "{{\"time_ms\":{time_ms},\"host\":\"")?;
    write_host(answered.peer, line)?;
    match answered.method {
        Some(method) => write!(line, "\",\"method\":\"{method}\"")?,
        None => line.push_str("\",\"method\":null"),
    }
    write!(line, ",\"path\":\"{}\"", escaped(answered.path, "\\u00"))?;
    match answered.query {
        Some(query) => write!(line, ",\"query\":\"{}\"", escaped(query, "\\u00"))?,
        None => line.push_str(",\"query\":null"),
    }
    let (status, bytes, is_whole) =
        (answered.status.code(), answered.bytes, answered.is_whole);
    write!(line, ",\"status\":{status},\"bytes\":{bytes},\"whole\":{is_whole}")?;
    let waited_us = answered.waited.as_micros();
    writeln!(line, ",\"waited_us\":{waited_us},\"took_us\":{took_us}}}")
}

fn write_host(peer: &Peer, line: &mut String) -> fmt::Result {
    match peer {
        Peer::Tcp(address) => write!(line, "{}", address.ip()),
        _ => line.write_char('-'),
    }
}

/// Without what could end a text or a line. `hex` begins an escape of two digits.
fn escaped<'a>(text: &'a str, hex: &str) -> Cow<'a, str> {
    let is_plain =
        |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        return text.into();
    }
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '"' | '\\' => safe.extend(['\\', char]),
            char if char.is_control() => {
                safe += &format!("{hex}{:02x}", u32::from(char));
            }
            char => safe.push(char),
        }
    }
    safe.into()
}

/// Day and time of day, from the days since 1 March 2000, with which 400 years begin.
fn write_calendar(seconds: u64, line: &mut String) -> fmt::Result {
    const MONTHS: [&str; 12] = [
        "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan",
        "Feb",
    ];
    let days = (seconds / 86_400).saturating_sub(11_017);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, year) =
        (day - (153 * month + 2) / 5 + 1, 2000 + 400 * era + year + month / 10);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let name = MONTHS[usize::try_from(month).unwrap_or_default()];
    write!(line, "{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02}")
}

/// Writes what there is, many lines at a time.
fn write(
    lines: &Receiver<String>,
    mut file: &File,
    lost: &AtomicUsize,
) -> MemberResult {
    while let Ok(mut text) = lines.recv() {
        text.extend(lines.try_iter().take(LINES_MAX));
        if file.write_all(text.as_bytes()).is_err() {
            lost.fetch_add(text.lines().count(), Relaxed); // a full disk ends nothing
        }
        sleep(PAUSE);
    }
    Ok(())
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let path = args().nth(2).unwrap_or("access.log".to_owned());
    let format = if args().nth(3).as_deref() == Some("json") { json } else { common };
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let file = File::options().append(true).create(true).open(path)?;
    let (sender, lines) = sync_channel(LINES_MAX);
    let lost = Arc::new(AtomicUsize::new(0));
    let (unsent, unwritten) = (Arc::clone(&lost), Arc::clone(&lost));
    let server = Server::bind(address, Config::default())?.on_answer(move |answered| {
        let since_1970 =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = String::with_capacity(160);
        // To write to a text cannot fail.
        let _ = format(answered, since_1970, &mut line);
        if sender.try_send(line).is_err() {
            unsent.fetch_add(1, Relaxed);
        }
    });
    let router = Router::new().get("/", |_| Response::text("hello\n")).at_once(
        Method::Get,
        "/lost",
        move |_| Response::text(format!("{}\n", lost.load(Relaxed))),
    );
    group.add("log", move |_| write(&lines, &file, &unwritten));
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
