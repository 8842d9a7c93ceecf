//! The routes on allout: `allout ADDRESS`.

use std::thread;
use std::time::Duration;

use allout::{Config, Group, Outcome, Response, Router, Server};

fn main() -> Result<Outcome, Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("no address")?;
    let mut group = Group::new();
    let server = Server::bind(address, Config { loops: 2, ..Config::default() })?;
    let router = Router::new()
        .get("/ping", |_| Response::text("pong"))
        .get("/sleep", |_| {
            thread::sleep(Duration::from_millis(170));
            Response::text("slept")
        })
        .get("/bytes", |_| Response::bytes("text/plain", vec![b'x'; 64 * 1024]))
        .post("/length", |request| Response::text(request.body().len().to_string()));
    group.add("http", move |stop| server.run(router, stop));
    Ok(group.run(allout::GRACE))
}
