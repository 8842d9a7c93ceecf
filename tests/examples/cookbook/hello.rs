//! The smallest server that stops well. Ctrl-C, SIGTERM and SIGHUP end it with code 0,
//! and whoever has sent a request by then is answered. What `main` returns is the
//! process's exit code, and an address that cannot be bound ends it before anything has
//! started.

use std::env::args;
use std::error::Error;

use allout::{Config, GRACE, Group, Outcome, Response, Router, Server, signals};

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let router = Router::new().get("/", |_| Response::text("hello\n"));
    let router = router.get("/hello/{name}", |request| {
        let name = request.param("name").unwrap_or_default();
        Response::text(format!("hello, {name}\n"))
    });

    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
