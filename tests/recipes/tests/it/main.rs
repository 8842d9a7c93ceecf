//! Each page that needs other crates, as the program that it is, on real sockets: what it shows is so.

#[cfg(feature = "signals")]
mod forms_and_cookies;
#[cfg(feature = "signals")]
mod json_sqlite;
mod support;
mod with_signal_hook;
#[cfg(feature = "signals")]
mod with_tracing;

/// A request of GET, with these lines of fields.
fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

/// A request of POST.
#[cfg(feature = "signals")]
fn post(path: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
}
