//! A program that has signals of its own takes them all from `signal-hook`, and leaves
//! out the feature `signals`, which would take SIGINT, SIGTERM and SIGHUP for the stop:
//!
//! ```toml
//! allout = { version = "0.1", default-features = false, features = ["sys"] }
//! ```
//!
//! The thread that listens triggers the stop, and says which signal it was. It is no
//! member: it stays while the members leave, so that a second Ctrl-C can end at once
//! what takes too long.

use std::env::args;
use std::error::Error;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use allout::{Cause, Config, GRACE, Group, Outcome, Server, Stop, remove_socket_files};
use allout::{Response, Router};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

/// Supervisors and terminals may send one signal twice.
const REPEAT: Duration = Duration::from_millis(500);

fn listen(mut signals: Signals, stop: &Stop, requests: &AtomicUsize) {
    let mut first = None;
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => eprintln!("{} requests", requests.load(Relaxed)),
            SIGHUP => eprintln!("here a configuration is read again"),
            _ => {
                let name = signal_name(signal).unwrap_or("a signal");
                stop.trigger(Cause::Request(name.to_owned()));
                if first.get_or_insert_with(Instant::now).elapsed() > REPEAT {
                    remove_socket_files(); // `exit` drops nothing
                    exit(130);
                }
            }
        }
    }
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let mut group = Group::new();
    let requests = Arc::new(AtomicUsize::new(0));

    // First of all: from here on no signal is lost.
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM, SIGUSR1])?;
    let (stop, counted) = (group.stop(), Arc::clone(&requests));
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || listen(signals, &stop, &counted))?;

    let server = Server::bind(address, Config::default())?;
    let router = Router::new().get("/", move |_| {
        requests.fetch_add(1, Relaxed);
        Response::text("hello\n")
    });
    group.add("http", move |stop| server.run(router, stop));
    let outcome = group.run(GRACE);
    eprintln!("all out: {outcome}");
    Ok(outcome)
}
