//! A JSON API over SQLite. A handler may block, so it uses the database as any function
//! does: it waits for one of a few connections, and delays no other client. Whatever
//! goes wrong is one type of error, which `?` turns into an answer in JSON. The
//! database is closed last, when no handler can need it any more.
//!
//! Some answers are the server's own, given before any handler is called: to a body
//! that is too large (413) or too slow (408), and to a malformed request (400). They
//! are plain text.

use std::env::args;
use std::error::Error;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use allout::{Config, GRACE, Group, Method, Outcome, Server, around, signals};
use allout::{Request, Response, Router, Status};
use rusqlite::{Connection, ErrorCode, params};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;

#[derive(Serialize)]
struct Note {
    id: i64,
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNote {
    text: String,
}

// ---- Errors -------------------------------------------------------------------------

enum Failure {
    NotFound,
    NotJson,
    Malformed(serde_json::Error),
    Busy,
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::QueryReturnedNoRows => Self::NotFound,
            _ if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                Self::Busy
            }
            _ => Self::Database(error),
        }
    }
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotFound => problem(Status::NOT_FOUND, "there is no such thing"),
            Failure::NotJson => {
                problem(Status::UNSUPPORTED_MEDIA_TYPE, "send application/json")
            }
            // It is JSON, but not what is wanted.
            Failure::Malformed(error) if error.is_data() => {
                problem(Status::UNPROCESSABLE_CONTENT, &error.to_string())
            }
            Failure::Malformed(error) => {
                problem(Status::BAD_REQUEST, &error.to_string())
            }
            Failure::Busy => problem(Status::SERVICE_UNAVAILABLE, "try again")
                .with_field("Retry-After", "1"),
            // What it was is for the log, not for the client.
            Failure::Database(error) => {
                eprintln!("database: {error}");
                problem(Status::INTERNAL_SERVER_ERROR, "it is our fault")
            }
        }
    }
}

fn problem(status: Status, text: &str) -> Response {
    json(status, &json!({ "error": text }))
}

fn json(status: Status, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => Response::bytes("application/json", bytes).with_status(status),
        Err(_) => Status::INTERNAL_SERVER_ERROR.into(),
    }
}

/// What the router answers by itself, 405 with its `Allow` for example, in JSON too.
fn in_json(response: Response) -> Response {
    let status = response.status();
    if status.code() < 400 || response.field("content-type") == Some("application/json")
    {
        return response;
    }
    let body = json!({ "error": status.reason() }).to_string();
    response.with_text(body).with_field("Content-Type", "application/json")
}

// ---- Handlers -----------------------------------------------------------------------

fn routes(pool: &Arc<Pool>) -> Router {
    type Work = fn(&Request<'_>, &Connection) -> Result<Response, Failure>;
    let with = |work: Work| {
        let pool = Arc::clone(pool);
        move |request: &Request<'_>| pool.with(|database| work(request, database))
    };
    Router::new()
        .get("/notes", with(list))
        .post("/notes", with(create))
        .get("/notes/{id}", with(read))
        .delete("/notes/{id}", with(delete))
        .at_once(Method::Get, "/livez", |_| Response::text("live\n"))
        .fallback(|_| Failure::NotFound)
}

/// The newest hundred.
fn list(_: &Request<'_>, database: &Connection) -> Result<Response, Failure> {
    let mut select = database
        .prepare_cached("SELECT id, text FROM notes ORDER BY id DESC LIMIT 100")?;
    let notes = select.query_map([], note)?.collect::<Result<Vec<_>, _>>()?;
    Ok(json(Status::OK, &notes))
}

fn create(request: &Request<'_>, database: &Connection) -> Result<Response, Failure> {
    let NewNote { text } = body(request)?;
    database.execute("INSERT INTO notes (text) VALUES (?1)", params![text])?;
    let id = database.last_insert_rowid();
    let response = json(Status::CREATED, &Note { id, text });
    Ok(response.with_field("Location", format!("/notes/{id}")))
}

fn read(request: &Request<'_>, database: &Connection) -> Result<Response, Failure> {
    let mut select =
        database.prepare_cached("SELECT id, text FROM notes WHERE id = ?1")?;
    Ok(json(Status::OK, &select.query_row([id(request)?], note)?))
}

fn delete(request: &Request<'_>, database: &Connection) -> Result<Response, Failure> {
    match database.execute("DELETE FROM notes WHERE id = ?1", [id(request)?])? {
        0 => Err(Failure::NotFound),
        _ => Ok(Status::NO_CONTENT.into()),
    }
}

fn note(row: &rusqlite::Row<'_>) -> rusqlite::Result<Note> {
    Ok(Note { id: row.get(0)?, text: row.get(1)? })
}

fn id(request: &Request<'_>) -> Result<i64, Failure> {
    let id = request.param("id").and_then(|id| id.parse().ok());
    id.ok_or(Failure::NotFound)
}

/// Only what says that it is JSON: a form of another site's page cannot say that.
fn body<T: DeserializeOwned>(request: &Request<'_>) -> Result<T, Failure> {
    let media_type = request.headers().get_str("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Failure::NotJson);
    }
    serde_json::from_slice(request.body()).map_err(Failure::Malformed)
}

// ---- The pool -----------------------------------------------------------------------

const CONNECTIONS: usize = 4;
/// For a connection, and for SQLite's lock: together less than the grace period.
const PATIENCE: Duration = Duration::from_secs(1);

struct Pool {
    free: Mutex<Vec<Connection>>,
    freed: Condvar,
}

impl Pool {
    fn open(path: &str) -> rusqlite::Result<Self> {
        let open = |_| {
            let database = Connection::open(path)?;
            database.busy_timeout(PATIENCE)?;
            // Readers do not wait for a writer.
            database.pragma_update(None, "journal_mode", "wal")?;
            Ok(database)
        };
        let free = (0..CONNECTIONS).map(open).collect::<rusqlite::Result<Vec<_>>>()?;
        free[0].execute_batch(
            "CREATE TABLE IF NOT EXISTS notes \
             (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
        )?;
        Ok(Self { free: Mutex::new(free), freed: Condvar::new() })
    }

    /// Lends a connection.
    fn with<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let free = self
            .freed
            .wait_timeout_while(self.free(), PATIENCE, |free| free.is_empty());
        let (mut free, _) = free.unwrap_or_else(PoisonError::into_inner);
        let database = free.pop().ok_or(Failure::Busy)?;
        drop(free);
        let lent = Lent { pool: self, database: Some(database) };
        lent.database.as_ref().map_or(Err(Failure::Busy), work)
    }

    /// Closes the connections. One that is still lent, to a handler that did not leave
    /// in time, ends with the process: what it has not committed is rolled back.
    fn close(&self) -> rusqlite::Result<()> {
        let free = std::mem::take(&mut *self.free());
        free.into_iter().try_for_each(|one| one.close().map_err(|(_, error)| error))
    }

    fn free(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that comes back, even if its handler panics.
struct Lent<'a> {
    pool: &'a Pool,
    database: Option<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.pool.free().extend(self.database.take());
        self.pool.freed.notify_one();
    }
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let path = args().nth(2).unwrap_or("notes.db".to_owned());
    let pool = Arc::new(Pool::open(&path)?);
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let config = Config { body_bytes_max: 64 * 1024, ..Config::default() };
    let server = Server::bind(address, config)?;
    let site = around(routes(&pool), |request, next| in_json(next(request)));
    group.add("http", move |stop| server.run(site, stop));
    group.add("signals", move |stop| signals.run(stop));

    let outcome = group.run(GRACE);
    pool.close()?;
    Ok(outcome)
}
