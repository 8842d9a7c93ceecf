//! The library prints nothing: it tells a closure what is worth a line. With `tracing`,
//! each request is a span around its handler's own events, and notices are events too.
//! A streamed body is written after its handler has returned: to log from there, take
//! the span along.
//!
//! Events are written by the thread on which they happen. A log that may block, such as
//! a pipe that nobody reads, needs a writer with a thread of its own
//! (`tracing-appender`).

use std::env::args;
use std::error::Error;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use allout::{Config, GRACE, Group, Handler, Notice, Outcome, Server, around, signals};
use allout::{Response, Router};
use tracing::{Span, debug, info, info_span, warn};

fn traced(inner: impl Handler) -> impl Handler {
    let count = AtomicUsize::new(1);
    around(inner, move |request, next| {
        let id = count.fetch_add(1, Relaxed);
        let (method, path) = (request.method(), request.raw_path());
        let span = info_span!("request", id, %method, path);
        let begun = Instant::now();
        let response = span.in_scope(|| next(request));
        let status = response.status().code();
        // Once it has been sent, or its client is lost.
        response.on_sent(move || {
            let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            span.in_scope(|| info!(status, us, "answered"));
        })
    })
}

/// What clients can cause as often as they like is for those who look for it.
fn tell(notice: &Notice<'_>) {
    if notice.is_verbose() {
        debug!("{notice}");
    } else {
        warn!("{notice}");
    }
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).init();

    let router = Router::new()
        .get("/", |_| {
            info!("somebody is here");
            Response::text("hello\n")
        })
        .get("/numbers", |_| {
            let span = Span::current();
            Response::stream("text/plain", move |out| {
                let _entered = span.enter();
                info!("writing");
                io::Write::write_all(out, b"1\n2\n3\n")
            })
        })
        .get("/broken", |_| -> Response { panic!("as asked") });

    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?
        .on_listening(|address| info!("listening on {address}"))
        .on_notice(tell);
    group.stop().on_cause(|cause| info!("stopping: {cause}"));
    group.add("http", move |stop| server.run(traced(router), stop));
    group.add("signals", move |stop| signals.run(stop));
    let outcome = group.run(GRACE);
    info!("all out: {outcome}");
    Ok(outcome)
}
