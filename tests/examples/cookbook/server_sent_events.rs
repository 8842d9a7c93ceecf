//! A stream that has no end of its own must look at the stop: it then ends in order,
//! with a last event and code 0, where one that does not is cut off at the deadline,
//! with code 124. Waiting on the stop is also its clock. Each stream holds one handler,
//! so there must be as many more of them.

use std::env::args;
use std::error::Error;
use std::io::Write;
use std::time::Duration;

use allout::{Config, GRACE, Group, Outcome, Server, Stop, signals};
use allout::{Method, Response, Router};

const STREAMS: usize = 1000;

fn events(stop: Stop) -> Response {
    let stream = Response::stream("text/event-stream", move |out| {
        for n in 1_u64.. {
            // A flush sends it now. It fails once the client has gone, which ends this.
            write!(out, "id: {n}\ndata: tick\n\n")?;
            out.flush()?;
            if stop.wait_timeout(Duration::from_secs(1)) {
                break;
            }
        }
        // The client comes back in 2 s, to whoever serves then.
        write!(out, "retry: 2000\nevent: bye\ndata: restarting\n\n")
    });
    // nginx holds back what it gets from a server unless it is told not to.
    stream.with_field("Cache-Control", "no-cache").with_field("X-Accel-Buffering", "no")
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let mut group = Group::new();
    let stop = group.stop();
    let signals = signals::install(&stop)?;
    // Answered even when every handler has a stream.
    let router = Router::new()
        .at_once(Method::Get, "/livez", |_| Response::text("live\n"))
        .get("/events", move |_| events(stop.clone()));
    // About 40 kB for each stream; their stacks need not be large.
    let config = Config {
        handlers_max: STREAMS + 64,
        stack_bytes: Some(256 * 1024),
        ..Config::default()
    };
    let server = Server::bind(address, config)?;
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
