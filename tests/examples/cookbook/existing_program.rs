//! A server inside a program that has its own `main`, its own signals and its own idea
//! of when to end. The group runs on a thread, the system chooses the port, and the
//! program triggers the stop whenever it likes: from a signal handler's thread, for
//! example, or here at the end of its input. It also sees when the server has failed by
//! itself.

use std::error::Error;
use std::io::{self, Write};
use std::thread;

use allout::{Cause, Config, GRACE, Group, Outcome, Response, Router, Server};

fn main() -> Result<Outcome, Box<dyn Error>> {
    let server = Server::bind("127.0.0.1:0", Config::default())?;
    let port = server.port().ok_or("no TCP port")?;
    let router = Router::new().get("/ping", |_| Response::text("pong\n"));
    let mut group = Group::new();
    let stop = group.stop();
    group.add("http", move |stop| server.run(router, stop));
    let http = thread::spawn(move || group.run(GRACE));

    // Bound is bound: whoever connects from here on is served.
    writeln!(io::stderr(), "listening on http://127.0.0.1:{port}")?;

    // The program's own work.
    for line in io::stdin().lines() {
        if stop.cause().is_some() {
            break; // the server has failed
        }
        writeln!(io::stderr(), "read: {}", line?)?;
    }

    stop.trigger(Cause::Request("the input has ended".to_owned()));
    http.join().map_err(|_| "the group's thread panicked".into())
}
