//! JSON over SQLite.

use nix::sys::signal::Signal;

use super::support::{Client, Folder, Page, Reply, poll};
use super::{get, post};

const JSON: &str = "Content-Type: application/json\r\n";

fn start(folder: &Folder) -> Page {
    let database = folder.path("notes.db");
    Page::start(env!("CARGO_BIN_EXE_json_sqlite"), folder, |command| _ = command.arg(database))
}

fn delete(path: &str) -> String {
    get(path, "").replacen("GET", "DELETE", 1)
}

/// An error, in JSON.
#[track_caller]
fn is_problem(reply: &Reply, status: u16, text: &str) {
    assert_eq!((reply.status, reply.field("content-type")), (status, Some("application/json")), "{}", reply.text());
    let value: serde_json::Value = serde_json::from_str(&reply.text()).unwrap();
    let error = value["error"].as_str().unwrap();
    assert!(error.contains(text), "{error}");
}

fn create(client: &mut Client, text: &str) -> Reply {
    client.ask(post("/notes", JSON, &serde_json::json!({ "text": text }).to_string()))
}

#[test]
fn notes_are_created_listed_read_and_deleted() {
    let folder = Folder::new("json_sqlite");
    let page = start(&folder);
    let mut client = page.connect();
    assert_eq!(client.ask(get("/notes", "")).text(), "[]");

    let reply = create(&mut client, "a \"b\" 'c'); DROP TABLE notes");
    assert_eq!((reply.status, reply.field("location")), (201, Some("/notes/1")));
    let first = r#"{"id":1,"text":"a \"b\" 'c'); DROP TABLE notes"}"#;
    assert_eq!((reply.text().as_str(), reply.field("content-type")), (first, Some("application/json")));
    assert_eq!(create(&mut client, "wörld").status, 201);
    assert_eq!(client.ask(get("/notes", "")).text(), format!(r#"[{{"id":2,"text":"wörld"}},{first}]"#));
    assert_eq!(client.ask(get("/notes/1", "")).text(), first);

    assert_eq!(client.ask(delete("/notes/1")).status, 204);
    is_problem(&client.ask(delete("/notes/1")), 404, "no such");
    is_problem(&client.ask(get("/notes/1", "")), 404, "no such");
    assert_eq!(client.ask(get("/livez", "")).text(), "live\n");
    assert_eq!(page.stop(), Some(0));

    // It is all there for the next one.
    let page = start(&folder);
    assert_eq!(page.connect().ask(get("/notes", "")).text(), r#"[{"id":2,"text":"wörld"}]"#);
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn what_goes_wrong_is_told_in_json_and_the_connection_stays() {
    let folder = Folder::new("json_sqlite_errors");
    let page = start(&folder);
    let mut client = page.connect();
    is_problem(&client.ask(get("/nothing", "")), 404, "no such");
    is_problem(&client.ask(get("/notes/x", "")), 404, "no such");
    is_problem(&client.ask(post("/notes", "", r#"{"text":"a"}"#)), 415, "application/json");
    is_problem(&client.ask(post("/notes", "Content-Type: text/plain\r\n", "{}")), 415, "application/json");
    is_problem(&client.ask(post("/notes", JSON, r#"{"text":"#)), 400, "EOF");
    is_problem(&client.ask(post("/notes", JSON, r#"{"text":1}"#)), 422, "expected a string");
    is_problem(&client.ask(post("/notes", JSON, r#"{"text":"a","more":1}"#)), 422, "unknown field");
    let with_charset = "Content-Type: application/json; charset=utf-8\r\n";
    assert_eq!(client.ask(post("/notes", with_charset, r#"{"text":"a"}"#)).status, 201);

    let reply = client.ask(get("/notes", "").replacen("GET", "PUT", 1));
    is_problem(&reply, 405, "Method Not Allowed");
    assert_eq!(reply.field("allow"), Some("GET, HEAD, POST, OPTIONS"));

    // The server's own, before any handler: in plain text.
    let reply = client.ask(post("/notes", JSON, &"x".repeat(64 * 1024 + 1)));
    assert_eq!((reply.status, reply.field("content-type")), (413, Some("text/plain; charset=utf-8")));
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn a_database_that_is_locked_makes_nobody_wait_for_long() {
    let folder = Folder::new("json_sqlite_locked");
    let page = start(&folder);
    let mut client = page.connect();
    assert_eq!(create(&mut client, "a").status, 201);
    let other = rusqlite::Connection::open(folder.path("notes.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // More of them than there are connections, and one of those that only read.
    let mut writers: Vec<_> = (0..6).map(|_| page.connect()).collect();
    writers.iter_mut().for_each(|writer| writer.send(post("/notes", JSON, r#"{"text":"b"}"#)));
    for writer in &mut writers {
        let reply = writer.reply();
        is_problem(&reply, 503, "try again");
        assert_eq!(reply.field("retry-after"), Some("1"));
    }
    assert_eq!(client.ask(get("/notes", "")).text(), r#"[{"id":1,"text":"a"}]"#);
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(create(&mut client, "c").status, 201);
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn the_database_is_closed_after_the_last_request() {
    let folder = Folder::new("json_sqlite_last");
    let mut page = start(&folder);
    let request = post("/notes", JSON, r#"{"text":"the last"}"#);
    let (begin, end) = request.split_at(request.len() - 5);
    let mut client = page.connect();
    client.send(begin);
    // It serves: what was sent before has been seen.
    assert_eq!(page.connect().ask(get("/livez", "")).status, 200);
    page.signal(Signal::SIGTERM);
    poll("nobody is let in any more", || page.try_connect().is_none().then_some(()));
    client.send(end);
    assert_eq!(client.reply().status, 201);
    assert_eq!(page.code(), Some(0));
    // SQLite removes these when the last connection is closed in order.
    for file in ["notes.db-wal", "notes.db-shm"] {
        assert!(!folder.path(file).exists(), "{file} is still there");
    }
    let page = start(&folder);
    assert_eq!(page.connect().ask(get("/notes", "")).text(), r#"[{"id":1,"text":"the last"}]"#);
    assert_eq!(page.stop(), Some(0));
}
