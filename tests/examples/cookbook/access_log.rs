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
use std::fs::File;
use std::io::Write;
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
fn common(answered: &Answered<'_>, since_1970: Duration) -> String {
    let (date, time) = calendar(since_1970.as_secs());
    let request = match (answered.method, answered.version) {
        (Some(method), Some(version)) => {
            let (path, mark) =
                (escaped(answered.path, "\\x"), answered.query.map_or("", |_| "?"));
            let query = escaped(answered.query.unwrap_or_default(), "\\x");
            format!("{method} {path}{mark}{query} {version}")
        }
        _ => "-".to_owned(),
    };
    let (status, bytes) = (answered.status.code(), answered.bytes);
    let host = host(answered.peer);
    format!("{host} - - [{date}:{time} +0000] \"{request}\" {status} {bytes}\n")
}

/// One JSON object a line.
fn json(answered: &Answered<'_>, since_1970: Duration) -> String {
    let text = |text: &str| format!("\"{}\"", escaped(text, "\\u00"));
    let method =
        answered.method.map_or("null".to_owned(), |one| text(&one.to_string()));
    let (time_ms, took_us) = (since_1970.as_millis(), answered.took.as_micros());
    let (status, bytes, is_whole) =
        (answered.status.code(), answered.bytes, answered.is_whole);
    let (host, path) = (text(&host(answered.peer)), text(answered.path));
    let (query, waited_us) =
        (answered.query.map_or("null".to_owned(), text), answered.waited.as_micros());
    format!(
        "{{\"time_ms\":{time_ms},\"host\":{host},\"method\":{method},\"path\":{path},\
        \"query\":{query},\"status\":{status},\"bytes\":{bytes},\"whole\":{is_whole},\
        \"waited_us\":{waited_us},\"took_us\":{took_us}}}\n"
    )
}

fn host(peer: &Peer) -> String {
    if let Peer::Tcp(address) = peer {
        address.ip().to_string()
    } else {
        "-".to_owned()
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
fn calendar(seconds: u64) -> (String, String) {
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
    (format!("{day:02}/{name}/{year}"), format!("{hour:02}:{minute:02}:{second:02}"))
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
        if sender.try_send(format(answered, since_1970)).is_err() {
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
