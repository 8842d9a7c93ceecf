//! A file comes in as it arrives, never whole in memory, and may be of any length. It
//! gets its name only once all of it has come: whoever reads it meanwhile, and whoever
//! is cut off by a stop, finds the old one. A refusal comes before the body does, to a
//! client that waits for `100 Continue` as curl does.

use std::env::args;
use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use allout::{BodyReader, Config, GRACE, Group, Outcome, Server, signals};
use allout::{Method, Request, Router, Status};

static COUNT: AtomicUsize = AtomicUsize::new(0);

fn upload(
    request: &Request<'_>,
    body: &mut BodyReader<'_>,
    folder: &str,
) -> Result<Status, Status> {
    // In the folder and nowhere else: a capture may hold `../` too.
    let name = request.param("name").unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.starts_with('.') || !name.chars().all(is_plain) {
        return Err(Status::FORBIDDEN);
    }
    let part = format!("{folder}/.{}.part", COUNT.fetch_add(1, Relaxed));
    match receive(body, &part)
        .and_then(|()| fs::rename(&part, format!("{folder}/{name}")))
    {
        Ok(()) => Ok(Status::CREATED),
        Err(_) => {
            let _ = fs::remove_file(&part);
            // Not sent if the body was at fault: that is answered, 400 or 408.
            Err(Status::INSUFFICIENT_STORAGE)
        }
    }
}

fn receive(body: &mut BodyReader<'_>, part: &str) -> io::Result<()> {
    let mut file = File::create(part)?;
    io::copy(body, &mut file)?;
    file.sync_all()
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let folder = args().nth(2).unwrap_or(".".to_owned());
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    let router = Router::new().stream(Method::Put, "/{name}", move |request, body| {
        upload(request, body, &folder)
    });
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
