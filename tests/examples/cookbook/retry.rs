//! A member whose failures are to be expected tries again by itself: a group restarts
//! nobody, since only the member knows what may be tried twice, and how often. Between
//! two tries it waits on the stop, not in a sleep, so that it never holds up the end.
//! When it gives up it returns its error, and the process ends with code 1 for its
//! supervisor.

use std::env::args;
use std::error::Error;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use allout::{Config, GRACE, Group, MemberResult, Outcome, Server, Stop, signals};
use allout::{Response, Router};

const INTERVAL: Duration = Duration::from_secs(60);
const FAILURES_MAX: u32 = 6;

/// Keeps a value up to date.
fn follow(source: SocketAddr, value: &AtomicUsize, stop: &Stop) -> MemberResult {
    let mut failures = 0;
    loop {
        let pause = match fetch(source) {
            Ok(new) => {
                value.store(new, Relaxed);
                failures = 0;
                INTERVAL
            }
            Err(error) if failures == FAILURES_MAX => {
                return Err(format!("gave up on {source}: {error}").into());
            }
            Err(_) => {
                failures += 1;
                Duration::from_millis(10 << failures)
            }
        };
        if stop.wait_timeout(pause) {
            return Ok(());
        }
    }
}

/// No wait in here may be longer than the grace period.
fn fetch(source: SocketAddr) -> io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&source, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut text = String::new();
    stream.by_ref().take(100).read_to_string(&mut text)?;
    text.trim().parse().map_err(io::Error::other)
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let source = args().nth(2).unwrap_or("127.0.0.1:7000".to_owned()).parse()?;
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    let value = Arc::new(AtomicUsize::new(0));
    let read = Arc::clone(&value);
    let router = Router::new()
        .get("/", move |_| Response::text(format!("{}\n", read.load(Relaxed))));
    group.add("source", move |stop| follow(source, &value, stop));
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
