//! What a case is: bytes in, the answers to them, and what becomes of the connection; and short ways to write it down.

use super::{Response, Router, Status};

/// Bytes in, the answers to them, and what becomes of the connection.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) input: &'static [u8],
    pub(super) answers: &'static [Answer],
    pub(super) end: End,
}

/// An answer as it goes out; its date and its `Connection` are added when it is compared.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: &'static str,
    pub(super) fields: &'static str,
    pub(super) body: Option<&'static str>,
    pub(super) is_to_head: bool,
    pub(super) is_to_1_0: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The connection takes another request.
    Open,
    /// The last answer says that it is the last, and a FIN follows it.
    Closed,
    /// The same, and the client has said that it sends no more, and sends more. Unless that was there with the request,
    /// it is not read, and may be met by a reset.
    Done,
    /// The same, before the body was sent: what comes behind the head at once would be taken for it.
    Refused,
    /// More is needed: the server waits, and says nothing when the client ends.
    Waits,
}
pub(super) use End::{Closed, Done, Open, Refused, Waits};

pub(super) const fn case(name: &'static str, input: &'static str, answers: &'static [Answer], end: End) -> Case {
    raw(name, input.as_bytes(), answers, end)
}

pub(super) const fn raw(name: &'static str, input: &'static [u8], answers: &'static [Answer], end: End) -> Case {
    Case { name, input, answers, end }
}

pub(super) const fn text(status: &'static str, body: &'static str) -> Answer {
    let fields = "Content-Type: text/plain; charset=utf-8\r\n";
    Answer { status, fields, body: Some(body), is_to_head: false, is_to_1_0: false }
}

pub(super) const fn echo(body: &'static str) -> Answer {
    Answer { fields: "Content-Type: application/octet-stream\r\n", ..text("200 OK", body) }
}

pub(super) const fn bodiless(fields: &'static str) -> Answer {
    Answer { fields, body: None, ..text("204 No Content", "") }
}

/// The same to HEAD: without the body.
pub(super) const fn head(answer: Answer) -> Answer {
    Answer { is_to_head: true, ..answer }
}

/// The same to a 1.0 client that wants to go on, which must be told that it may.
pub(super) const fn kept(answer: Answer) -> Answer {
    Answer { is_to_1_0: true, ..answer }
}

pub(super) const PONG: Answer = text("200 OK", "pong");
pub(super) const GONE: Answer = bodiless("");
pub(super) const SAME: Answer = Answer { body: None, ..text("304 Not Modified", "") };
pub(super) const METHODS: Answer = bodiless("Allow: GET, HEAD, POST, DELETE, OPTIONS\r\n");
pub(super) const NOT_FOUND: Answer = text("404 Not Found", "not found\n");
pub(super) const ONLY_GET: Answer = Answer {
    fields: "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD, OPTIONS\r\n",
    ..text("405 Method Not Allowed", "method not allowed\n")
};
pub(super) const ONLY_POST: Answer =
    Answer { fields: "Content-Type: text/plain; charset=utf-8\r\nAllow: POST, OPTIONS\r\n", ..ONLY_GET };

pub(super) const BAD_LINE: Answer = text("400 Bad Request", "malformed request line\n");
pub(super) const BAD_TARGET: Answer = text("400 Bad Request", "malformed request target\n");
pub(super) const BAD_FIELD: Answer = text("400 Bad Request", "malformed header field\n");
pub(super) const BAD_HOST: Answer = text("400 Bad Request", "missing, repeated or malformed Host\n");
pub(super) const BAD_LENGTH: Answer = text("400 Bad Request", "malformed or repeated Content-Length\n");
pub(super) const BAD_FRAMING: Answer = text("400 Bad Request", "contradictory message framing\n");
pub(super) const BAD_CHUNK: Answer = text("400 Bad Request", "malformed chunked body\n");
pub(super) const BAD_CODING: Answer = text("400 Bad Request", "transfer coding is not one final chunked\n");
pub(super) const NO_CODING: Answer = text("501 Not Implemented", "transfer coding not implemented\n");
pub(super) const NO_METHOD: Answer = text("501 Not Implemented", "method not implemented\n");
pub(super) const NO_VERSION: Answer = text("505 HTTP Version Not Supported", "HTTP version not supported\n");
pub(super) const TARGET_TOO_LONG: Answer = text("414 URI Too Long", "request target too long\n");
pub(super) const NO_SCHEME: Answer = text("421 Misdirected Request", "this scheme is not served here\n");
pub(super) const TOO_LARGE: Answer = text("413 Content Too Large", "request body too large\n");
pub(super) const FIELDS_TOO_LARGE: Answer = text("431 Request Header Fields Too Large", "header fields too large\n");
pub(super) const NO_EXPECTATION: Answer = text("417 Expectation Failed", "expectation not supported\n");

// ---- Answers as bytes ---------------------------------------------------------------------------------------------

/// The wire bytes of a case's answers.
pub(super) fn expected(case: &Case) -> String {
    let mut wire = String::new();
    for (number, answer) in case.answers.iter().enumerate() {
        let Answer { status, fields, body, is_to_head, is_to_1_0 } = *answer;
        wire += &format!("HTTP/1.1 {status}\r\nDate: DATE\r\n{fields}");
        if let Some(body) = body {
            wire += &format!("Content-Length: {}\r\n", body.len());
        }
        if matches!(case.end, Closed | Done | Refused) && number + 1 == case.answers.len() {
            wire += "Connection: close\r\n";
        } else if is_to_1_0 {
            wire += "Connection: keep-alive\r\n";
        }
        wire += "\r\n";
        if !is_to_head {
            wire += body.unwrap_or("");
        }
    }
    wire
}

/// The answer to `PING`, undated.
pub(super) const PONG_WIRE: &str = concat!(
    "HTTP/1.1 200 OK\r\nDate: DATE\r\nContent-Type: text/plain; charset=utf-8\r\n",
    "Content-Length: 4\r\n\r\npong"
);

/// Answers with a fixed text for each date, the form of which is checked.
pub(super) fn undated(wire: &str) -> String {
    let mut parts = wire.split("\r\nDate: ");
    let mut undated = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (date, rest) = part.split_at_checked("Sun, 06 Nov 1994 08:49:37 GMT".len()).unwrap_or(("", part));
        let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        let (day, month) = (shape.get(..3).unwrap_or_default(), shape.get(8..11).unwrap_or_default());
        let is_right = "Mon Tue Wed Thu Fri Sat Sun".contains(day)
            && "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".contains(month)
            && shape == format!("{day}, 00 {month} 0000 00:00:00 GMT");
        undated += if is_right { "\r\nDate: DATE" } else { "\r\nDate: WRONG" };
        undated += rest;
    }
    undated
}

// ---- Short ways to write it down -----------------------------------------------------------------------------------

/// A request line with a Host.
macro_rules! line {
    ($line:literal) => {
        concat!($line, "\r\nHost: test\r\n\r\n")
    };
}

/// GET /ping with a Host and these field lines.
macro_rules! get {
    ($($field:expr),*) => {
        concat!("GET /ping HTTP/1.1\r\nHost: test\r\n", $($field, "\r\n",)* "\r\n")
    };
}

/// POST /echo with a Host, these field lines, and these bytes behind the head.
macro_rules! post {
    ([$($field:expr),*] $body:expr) => {
        concat!("POST /echo HTTP/1.1\r\nHost: test\r\n", $($field, "\r\n",)* "\r\n", $body)
    };
}

/// The same with the chunked coding.
macro_rules! chunked {
    ($body:expr) => {
        post!(["Transfer-Encoding: chunked"] $body)
    };
}

/// 64, 512 and 4096 times the same.
macro_rules! times_8 {
    ($text:expr) => {
        concat!($text, $text, $text, $text, $text, $text, $text, $text)
    };
}
macro_rules! times_64 {
    ($text:expr) => {
        times_8!(times_8!($text))
    };
}

/// The routes that the cases ask for, but for `/echo`.
pub(crate) fn routes() -> Router {
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .get("/gone", |_| Response::new(Status::NO_CONTENT))
        .delete("/gone", |_| Response::new(Status::NO_CONTENT))
        .get("/same", |_| Response::text("never sent\n").with_status(Status::NOT_MODIFIED))
        .get("/users/{id}", |request| Response::text(format!("user {}\n", request.param("id").unwrap_or_default())))
}
