//! `--check`: asks a running server whether all is well. For images in which there is no other client.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use allout::Address;

use crate::threads;

/// How long everything may take: resolving a name, connecting, the answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// What is asked for if nothing else is.
const PATH: &str = "/readyz";
/// How much of an answer tells its status: `HTTP/1.1 200`.
const START_BYTES: usize = 12;

/// Succeeds if the server answers 200. `path` is of the request; if it is empty, [`PATH`]. A Unix socket's may follow
/// its own path. If that takes too long, calls `give_up` with what is wrong, which must end the process.
///
/// # Errors
///
/// Any other answer, or no connection: one line says which.
pub(crate) fn check(address: &Address, path: &str, give_up: impl FnOnce(&str) + Send + 'static) -> Result<(), String> {
    let of = format!("{address}{path}: ");
    let late = format!("{of}no answer within {} s", TIMEOUT.as_secs());
    // A thread waits, and not a call for each step: neither resolving a name nor connecting to a Unix socket has a time
    // limit.
    let run_out = move || {
        thread::sleep(TIMEOUT);
        give_up(&late);
    };
    let clock = threads::start("clock", Box::new(run_out));
    let result = clock.map_err(|error| format!("cannot start a thread: {error}")).and_then(|_| ask(address, path));
    result.map_err(|problem| of + &problem)
}

fn ask(address: &Address, path: &str) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    match address {
        Address::Tcp { host, port } if host.is_empty() => {
            let (ipv4, ipv6) = ((Ipv4Addr::LOCALHOST, *port).into(), (Ipv6Addr::LOCALHOST, *port).into());
            let loopback: &[SocketAddr] = &[ipv4, ipv6];
            exchange(&mut TcpStream::connect(loopback).map_err(text)?, "localhost", path)
        }
        Address::Tcp { host, port } => {
            exchange(&mut TcpStream::connect((&**host, *port)).map_err(text)?, &address.to_string(), path)
        }
        #[cfg(unix)]
        Address::Unix(place) => {
            let (socket, path) = split(place.to_str().unwrap_or_default());
            exchange(&mut std::os::unix::net::UnixStream::connect(socket).map_err(text)?, "localhost", path)
        }
        _ => Err("no Unix sockets on this system".to_owned()),
    }
}

/// The path of the socket's file, and what follows: nothing can lie below a socket.
#[cfg(unix)]
fn split(text: &str) -> (&str, &str) {
    use std::os::unix::fs::FileTypeExt;

    let is_socket = |end: &usize| {
        let file = text.get(..*end).map(std::fs::metadata);
        file.is_some_and(|file| file.is_ok_and(|file| file.file_type().is_socket()))
    };
    let mut ends = text.match_indices('/').map(|(end, _)| end);
    text.split_at(ends.find(is_socket).unwrap_or(text.len()))
}

/// A connection of any kind.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn exchange(stream: &mut dyn Stream, host: &str, path: &str) -> Result<(), String> {
    let path = if path.is_empty() { PATH } else { path };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let (mut start, mut length) = ([0; START_BYTES], 0);
    while length < START_BYTES && !start.contains(&b'\n') {
        match stream.read(start.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    let status = start.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(1..5)).filter(|rest| rest.starts_with(b" "));
    match status.map(<[u8]>::trim_ascii_start) {
        Some(b"200") => Ok(()),
        Some(status) if status.len() == 3 && status.iter().all(u8::is_ascii_digit) => {
            Err(format!("answers {}", String::from_utf8_lossy(status)))
        }
        _ => Err("does not answer in HTTP".to_owned()),
    }
}
