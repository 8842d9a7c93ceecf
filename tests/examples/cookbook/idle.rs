//! A server that is started when somebody asks, by a `.socket` unit or inetd, can end
//! when nobody has for a while. A wrapper counts what begins and ends, and a member
//! returns `Ok` when nothing has for long enough: that ends the group, with code 0. A
//! client that comes at that very moment is answered by the drain, or waits in the
//! socket's queue for the next start.

use std::env::args;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use allout::{
    Config, GRACE, Group, Outcome, Response, Router, Server, around, signals,
};

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let seconds = args().nth(2).unwrap_or("60".to_owned());
    let idle_max = Duration::from_secs_f64(seconds.parse()?);

    let events = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&events);
    let router = Router::new().get("/", |_| Response::text("hello\n"));
    let handler = around(router, move |request, next| {
        counter.fetch_add(1, Relaxed);
        // Each request holds one until its answer has been sent, or its handler panics.
        let running = Arc::clone(&counter);
        next(request).on_sent(move || _ = running.fetch_add(1, Relaxed))
    });

    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?; // or Server::from_listeners
    group.add("http", move |stop| server.run(handler, stop));
    group.add("signals", move |stop| signals.run(stop));
    group.add("idle", move |stop| {
        loop {
            let before = events.load(Relaxed);
            if stop.wait_timeout(idle_max) {
                return Ok(());
            }
            // Two are held by this member and by the wrapper.
            let is_running = Arc::strong_count(&events) > 2;
            if !is_running && events.load(Relaxed) == before {
                return Ok(());
            }
        }
    });
    Ok(group.run(GRACE))
}
