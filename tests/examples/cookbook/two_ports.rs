//! Two servers and a job in one group. They start together, since both ports are bound
//! before anything runs, and leave together, whichever of them ends first. What must
//! not be open to everybody has a port of its own, which no proxy passes on.

use std::env::args;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use allout::{Cause, Config, GRACE, Group, Outcome, Response, Router, Server, signals};

fn main() -> Result<Outcome, Box<dyn Error>> {
    let public = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let admin = args().nth(2).unwrap_or("127.0.0.1:9090".to_owned());
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let public = Server::bind(public, Config::default())?;
    // One event loop is enough for those few.
    let admin = Server::bind(admin, Config { loops: 1, ..Config::default() })?;

    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let pages = Router::new().get("/", move |_| {
        counted.fetch_add(1, Relaxed);
        Response::text("hello\n")
    });
    let read = Arc::clone(&requests);
    let stop = group.stop();
    let controls = Router::new()
        .get("/metrics", move |_| {
            Response::text(format!("requests_total {}\n", read.load(Relaxed)))
        })
        .post("/stop", move |_| {
            let stop = stop.clone();
            // First the answer, then the stop.
            Response::text("stopping\n").on_sent(move || {
                stop.trigger(Cause::Request("/stop".to_owned()));
            })
        });

    group.add("public", move |stop| public.run(pages, stop));
    group.add("admin", move |stop| admin.run(controls, stop));
    group.add("signals", move |stop| signals.run(stop));
    group.add("job", move |stop| {
        while !stop.wait_timeout(Duration::from_secs(60)) {
            requests.store(0, Relaxed); // whatever is to be done once a minute
        }
        Ok(())
    });
    Ok(group.run(GRACE))
}
