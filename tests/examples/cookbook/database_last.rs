//! What others use must outlive them. All members are told to stop at the same moment,
//! so the database is none: `main` owns it, and closes it once the group has ended,
//! when no handler can need it any more. Only one that has not left in time still
//! could, and finds it closed.

use std::env::args;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use allout::{Config, GRACE, Group, Outcome, Router, Server, signals};
use allout::{Request, Status};

/// Stands for any: it must be closed for all to be kept.
struct Database(Mutex<Option<File>>);

impl Database {
    fn open(path: &str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(Some(file))))
    }

    fn insert(&self, row: &str) -> io::Result<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = file.as_mut().ok_or_else(|| io::Error::other("it is closed"))?;
        writeln!(file, "{row}")
    }

    fn close(&self) -> io::Result<()> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        file.map_or(Ok(()), |mut file| writeln!(file, "closed").and(file.sync_all()))
    }
}

fn insert(request: &Request<'_>, database: &Database) -> Result<Status, Status> {
    let row = std::str::from_utf8(request.body()).map_err(|_| Status::BAD_REQUEST)?;
    sleep(Duration::from_millis(100)); // a stop may well come meanwhile
    database.insert(row).map_err(|_| Status::SERVICE_UNAVAILABLE)?;
    Ok(Status::CREATED)
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let database =
        Arc::new(Database::open(args().nth(2).as_deref().unwrap_or("rows"))?);
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    let rows = Arc::clone(&database);
    let router = Router::new().post("/rows", move |request| insert(request, &rows));
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));

    let outcome = group.run(GRACE);
    database.close()?;
    Ok(outcome)
}
