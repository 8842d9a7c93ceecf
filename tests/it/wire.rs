//! Bytes in, bytes out: one table of requests, good and bad, each sent whole, byte by byte, cut in two at every place,
//! and with another request right behind it. How the bytes were cut must make no difference to the answer.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use allout::{Config, Request, Response, Router, Status};

use crate::support::{Client, HANG, PING, Site};

// ---- The table -----------------------------------------------------------------------------------------------------

/// Bytes in, the answers to them, and what becomes of the connection.
struct Case {
    name: &'static str,
    input: &'static [u8],
    answers: &'static [Answer],
    end: End,
}

/// An answer as it goes out; its date and its `Connection` are added when it is compared.
#[derive(Clone, Copy)]
struct Answer {
    status: &'static str,
    fields: &'static str,
    body: Option<&'static str>,
    is_to_head: bool,
    is_to_1_0: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The connection takes another request.
    Open,
    /// The last answer says that it is the last, and a FIN follows it.
    Closed,
    /// The same, before the body was sent: what comes behind the head at once would be taken for it.
    Refused,
    /// More is needed: the server waits, and says nothing when the client ends.
    Waits,
}
use End::{Closed, Open, Refused, Waits};

const fn case(name: &'static str, input: &'static str, answers: &'static [Answer], end: End) -> Case {
    raw(name, input.as_bytes(), answers, end)
}

const fn raw(name: &'static str, input: &'static [u8], answers: &'static [Answer], end: End) -> Case {
    Case { name, input, answers, end }
}

const fn text(status: &'static str, body: &'static str) -> Answer {
    let fields = "Content-Type: text/plain; charset=utf-8\r\n";
    Answer { status, fields, body: Some(body), is_to_head: false, is_to_1_0: false }
}

const fn echo(body: &'static str) -> Answer {
    Answer { fields: "Content-Type: application/octet-stream\r\n", ..text("200 OK", body) }
}

const fn bodiless(fields: &'static str) -> Answer {
    Answer { fields, body: None, ..text("204 No Content", "") }
}

/// The same to HEAD: without the body.
const fn head(answer: Answer) -> Answer {
    Answer { is_to_head: true, ..answer }
}

/// The same to a 1.0 client that wants to go on, which must be told that it may.
const fn kept(answer: Answer) -> Answer {
    Answer { is_to_1_0: true, ..answer }
}

const PONG: Answer = text("200 OK", "pong");
const GONE: Answer = bodiless("");
const METHODS: Answer = bodiless("Allow: GET, HEAD, POST, DELETE, OPTIONS\r\n");
const NOT_FOUND: Answer = text("404 Not Found", "not found\n");
const ONLY_GET: Answer = Answer {
    fields: "Content-Type: text/plain; charset=utf-8\r\nAllow: GET, HEAD, OPTIONS\r\n",
    ..text("405 Method Not Allowed", "method not allowed\n")
};
const ONLY_POST: Answer =
    Answer { fields: "Content-Type: text/plain; charset=utf-8\r\nAllow: POST, OPTIONS\r\n", ..ONLY_GET };

const BAD_LINE: Answer = text("400 Bad Request", "malformed request line\n");
const BAD_TARGET: Answer = text("400 Bad Request", "malformed request target\n");
const BAD_FIELD: Answer = text("400 Bad Request", "malformed header field\n");
const BAD_HOST: Answer = text("400 Bad Request", "missing, repeated or malformed Host\n");
const BAD_LENGTH: Answer = text("400 Bad Request", "malformed or repeated Content-Length\n");
const BAD_FRAMING: Answer = text("400 Bad Request", "contradictory message framing\n");
const BAD_CHUNK: Answer = text("400 Bad Request", "malformed chunked body\n");
const NO_CODING: Answer = text("501 Not Implemented", "transfer coding not implemented\n");
const NO_METHOD: Answer = text("501 Not Implemented", "method not implemented\n");
const NO_VERSION: Answer = text("505 HTTP Version Not Supported", "HTTP version not supported\n");
const NO_SCHEME: Answer = text("421 Misdirected Request", "this scheme is not served here\n");
const TOO_LARGE: Answer = text("413 Content Too Large", "request body too large\n");
const FIELDS_TOO_LARGE: Answer = text("431 Request Header Fields Too Large", "header fields too large\n");
const NO_EXPECTATION: Answer = text("417 Expectation Failed", "expectation not supported\n");

/// A request line with a Host.
macro_rules! line {
    ($line:literal) => {
        concat!($line, "\r\nHost: test\r\n\r\n")
    };
}

/// GET /ping with a Host and these field lines.
macro_rules! get {
    ($($field:literal),*) => {
        concat!("GET /ping HTTP/1.1\r\nHost: test\r\n", $($field, "\r\n",)* "\r\n")
    };
}

/// POST /echo with a Host, these field lines, and these bytes behind the head.
macro_rules! post {
    ([$($field:literal),*] $body:expr) => {
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

const CASES: &[Case] = &[
    // Methods (RFC 9110 §9). Names are tokens, and their case counts.
    case("GET", get!(), &[PONG], Open),
    case("HEAD", line!("HEAD /ping HTTP/1.1"), &[head(PONG)], Open),
    case("HEAD of 404", line!("HEAD /none HTTP/1.1"), &[head(NOT_FOUND)], Open),
    case("HEAD of 405", line!("HEAD /echo HTTP/1.1"), &[head(ONLY_POST)], Open),
    case("HEAD of 204", line!("HEAD /gone HTTP/1.1"), &[head(GONE)], Open),
    case("HEAD refused", line!("HEAD /a%zz HTTP/1.1"), &[head(BAD_TARGET)], Closed),
    case("HEAD with a body", "HEAD /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd", &[head(PONG)], Open),
    case("POST without a body", post!([] ""), &[echo("")], Open),
    case("POST of length 0", post!(["Content-Length: 0"] ""), &[echo("")], Open),
    case("POST", post!(["Content-Length: 5"] "hello"), &[echo("hello")], Open),
    case(
        "GET with a body",
        concat!("GET /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "GET /"),
        &[PONG],
        Open,
    ),
    case("DELETE", line!("DELETE /gone HTTP/1.1"), &[GONE], Open),
    case("204 has no length", line!("GET /gone HTTP/1.1"), &[GONE], Open),
    case("405", line!("POST /ping HTTP/1.1"), &[ONLY_GET], Open),
    case("405 of PUT", line!("PUT /echo HTTP/1.1"), &[ONLY_POST], Open),
    case("405 of PATCH", line!("PATCH /echo HTTP/1.1"), &[ONLY_POST], Open),
    case("405 with a body", "POST /ping HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", &[ONLY_GET], Open),
    case("404", line!("GET /none HTTP/1.1"), &[NOT_FOUND], Open),
    case("404 with a body", "POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /", &[NOT_FOUND], Open),
    case("OPTIONS", line!("OPTIONS /ping HTTP/1.1"), &[bodiless("Allow: GET, HEAD, OPTIONS\r\n")], Open),
    case("OPTIONS of 404", line!("OPTIONS /none HTTP/1.1"), &[NOT_FOUND], Open),
    case("OPTIONS *", line!("OPTIONS * HTTP/1.1"), &[METHODS], Open),
    case("CONNECT", line!("CONNECT a.test:443 HTTP/1.1"), &[NO_METHOD], Closed),
    case("TRACE", line!("TRACE /ping HTTP/1.1"), &[NO_METHOD], Closed),
    case("an unknown method", line!("BREW /ping HTTP/1.1"), &[NO_METHOD], Closed),
    case("every tchar", line!("!#$%&'*+-.^_`|~09azAZ /ping HTTP/1.1"), &[NO_METHOD], Closed),
    case("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[NO_METHOD], Closed),
    case("a method in lower case", line!("get /ping HTTP/1.1"), &[NO_METHOD], Closed),
    case("no method", line!(" /ping HTTP/1.1"), &[BAD_LINE], Closed),
    case("a method that is no token", line!("GE(T /ping HTTP/1.1"), &[BAD_LINE], Closed),
    case("a method with a NUL", line!("GE\0T /ping HTTP/1.1"), &[BAD_LINE], Closed),
    case("a method that does not end", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &[NO_METHOD], Closed),
    raw("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &[BAD_LINE], Closed),
    // The request line (RFC 9112 §3): single spaces and CRLF, nothing else.
    case("two spaces before the target", line!("GET  /ping HTTP/1.1"), &[BAD_LINE], Closed),
    case("two spaces before the version", line!("GET /ping  HTTP/1.1"), &[BAD_LINE], Closed),
    case("a space behind the version", line!("GET /ping HTTP/1.1 "), &[BAD_LINE], Closed),
    case("a tab for a space", line!("GET\t/ping HTTP/1.1"), &[BAD_LINE], Closed),
    case("a tab behind the target", line!("GET /ping\tHTTP/1.1"), &[BAD_LINE], Closed),
    case("a vertical tab for a space", line!("GET /ping\x0bHTTP/1.1"), &[BAD_LINE], Closed),
    case("a space in the target", line!("GET /pi ng HTTP/1.1"), &[BAD_LINE], Closed),
    case("no version (HTTP/0.9)", "GET /ping\r\n\r\n", &[BAD_LINE], Closed),
    case("no target", line!("GET HTTP/1.1"), &[BAD_LINE], Closed),
    case("bare LF", "GET /ping HTTP/1.1\nHost: test\n\n", &[BAD_LINE], Closed),
    case("bare CR", "GET /ping HTTP/1.1\rHost: test\r\r", &[BAD_LINE], Closed),
    case("CR CR LF", "GET /ping HTTP/1.1\r\r\nHost: test\r\n\r\n", &[BAD_LINE], Closed),
    case("CRLF before the request", concat!("\r\n", get!()), &[PONG], Open),
    case("five CRLFs before it", concat!("\r\n\r\n\r\n\r\n\r\n", get!()), &[PONG], Open),
    case("CRLF alone", "\r\n\r\n", &[], Waits),
    case("LF before the request", concat!("\n", get!()), &[BAD_LINE], Closed),
    case("CR before the request", concat!("\r", get!()), &[BAD_LINE], Closed),
    case("CR CR LF before the request", concat!("\r\r\n", get!()), &[BAD_LINE], Closed),
    case("a space before the request", concat!(" ", get!()), &[BAD_LINE], Closed),
    // Versions (RFC 9110 §2.5, RFC 9112 §2.3).
    case("1.2 is read as 1.1", line!("GET /ping HTTP/1.2"), &[PONG], Open),
    case("1.9 is read as 1.1", line!("GET /ping HTTP/1.9"), &[PONG], Open),
    case("1.2 needs a Host", "GET /ping HTTP/1.2\r\n\r\n", &[BAD_HOST], Closed),
    case("2.0", line!("GET /ping HTTP/2.0"), &[NO_VERSION], Closed),
    case("3.0", line!("GET /ping HTTP/3.0"), &[NO_VERSION], Closed),
    case("0.9", line!("GET /ping HTTP/0.9"), &[NO_VERSION], Closed),
    case("9.9", line!("GET /ping HTTP/9.9"), &[NO_VERSION], Closed),
    case("a version in lower case", line!("GET /ping http/1.1"), &[BAD_LINE], Closed),
    case("a version of two digits", line!("GET /ping HTTP/1.10"), &[BAD_LINE], Closed),
    case("a major of two digits", line!("GET /ping HTTP/11.1"), &[BAD_LINE], Closed),
    case("a version without minor", line!("GET /ping HTTP/1"), &[BAD_LINE], Closed),
    case("a signed version", line!("GET /ping HTTP/+1.1"), &[BAD_LINE], Closed),
    case("another protocol", line!("GET /ping ICAP/1.0"), &[BAD_LINE], Closed),
    // Targets (RFC 9112 §3.2).
    case("a query", line!("GET /ping?a=b&c=/?d HTTP/1.1"), &[PONG], Open),
    case("an empty query", line!("GET /ping? HTTP/1.1"), &[PONG], Open),
    case("a query of a browser", line!("GET /ping?{\"<>[]\\^`|} HTTP/1.1"), &[PONG], Open),
    case("a query with a broken escape", line!("GET /ping?100% HTTP/1.1"), &[PONG], Open),
    case("escapes", line!("GET /%70in%67 HTTP/1.1"), &[PONG], Open),
    case("a capture", line!("GET /users/a%20b%2Fc%C3%A9 HTTP/1.1"), &[text("200 OK", "user a b/c\u{e9}\n")], Open),
    case("a capture in lower hex", line!("GET /users/%2f%c3%a9 HTTP/1.1"), &[text("200 OK", "user /\u{e9}\n")], Open),
    case("an empty capture", line!("GET /users/ HTTP/1.1"), &[NOT_FOUND], Open),
    case("no dot segments are taken out", line!("GET /x/../ping HTTP/1.1"), &[NOT_FOUND], Open),
    case("two slashes", line!("GET //ping HTTP/1.1"), &[NOT_FOUND], Open),
    case("a bad escape", line!("GET /users/%zz HTTP/1.1"), &[BAD_TARGET], Closed),
    case("half an escape", line!("GET /users/%4 HTTP/1.1"), &[BAD_TARGET], Closed),
    case("a lone percent", line!("GET /users/% HTTP/1.1"), &[BAD_TARGET], Closed),
    case("an escape across a slash", line!("GET /users/%4/1 HTTP/1.1"), &[BAD_TARGET], Closed),
    case("an escaped NUL", line!("GET /users/%00 HTTP/1.1"), &[BAD_TARGET], Closed),
    case("an escape that is no UTF-8", line!("GET /users/%ff HTTP/1.1"), &[BAD_TARGET], Closed),
    case("an overlong slash", line!("GET /users/%c0%af HTTP/1.1"), &[BAD_TARGET], Closed),
    case("an escaped surrogate", line!("GET /users/%ed%a0%80 HTTP/1.1"), &[BAD_TARGET], Closed),
    case("a NUL", line!("GET /pi\0ng HTTP/1.1"), &[BAD_LINE], Closed),
    case("a DEL", line!("GET /pi\x7fng HTTP/1.1"), &[BAD_LINE], Closed),
    case("raw UTF-8", line!("GET /users/\u{e9} HTTP/1.1"), &[BAD_LINE], Closed),
    case("a fragment", line!("GET /ping#here HTTP/1.1"), &[BAD_LINE], Closed),
    case("absolute", line!("GET http://a.test/ping HTTP/1.1"), &[PONG], Open),
    case("absolute with port and query", line!("GET HTTP://a.test:8080/ping?x HTTP/1.1"), &[PONG], Open),
    case("absolute without a path", line!("GET http://a.test HTTP/1.1"), &[NOT_FOUND], Open),
    case("absolute, a query for a path", line!("GET http://a.test?/ping HTTP/1.1"), &[NOT_FOUND], Open),
    case("absolute, an IPv6 address", line!("GET http://[::1]:80/ping HTTP/1.1"), &[PONG], Open),
    case("absolute without Host", "GET http://a.test/ping HTTP/1.1\r\n\r\n", &[BAD_HOST], Closed),
    case("absolute of https", line!("GET https://a.test/ping HTTP/1.1"), &[NO_SCHEME], Closed),
    case("absolute of file", line!("GET file:///ping HTTP/1.1"), &[NO_SCHEME], Closed),
    case("absolute without a host", line!("GET http:///ping HTTP/1.1"), &[BAD_TARGET], Closed),
    case("absolute with a port alone", line!("GET http://:80/ping HTTP/1.1"), &[BAD_TARGET], Closed),
    case("absolute with user information", line!("GET http://me@a.test/ping HTTP/1.1"), &[BAD_TARGET], Closed),
    case("absolute with a bad port", line!("GET http://a.test:x/ping HTTP/1.1"), &[BAD_TARGET], Closed),
    case("absolute with one slash", line!("GET http:/ping HTTP/1.1"), &[BAD_TARGET], Closed),
    case("authority", line!("GET a.test:80 HTTP/1.1"), &[BAD_TARGET], Closed),
    case("asterisk of GET", line!("GET * HTTP/1.1"), &[BAD_TARGET], Closed),
    case("asterisk and more", line!("OPTIONS *x HTTP/1.1"), &[BAD_TARGET], Closed),
    case("a relative path", line!("GET ping HTTP/1.1"), &[BAD_TARGET], Closed),
    case("a query alone", line!("GET ?ping HTTP/1.1"), &[BAD_TARGET], Closed),
    // Host (RFC 9112 §3.2, RFC 9110 §7.2).
    case("no Host", "GET /ping HTTP/1.1\r\n\r\n", &[BAD_HOST], Closed),
    case("no Host on 1.0", "GET /ping HTTP/1.0\r\n\r\n", &[PONG], Closed),
    case("an empty Host", "GET /ping HTTP/1.1\r\nHost:\r\n\r\n", &[PONG], Open),
    case("Host with port", "GET /ping HTTP/1.1\r\nhOST: a.test:8080\r\n\r\n", &[PONG], Open),
    case("Host of IPv6", "GET /ping HTTP/1.1\r\nHost:[::1]:8080\t \r\n\r\n", &[PONG], Open),
    case("two Hosts", get!("Host: test"), &[BAD_HOST], Closed),
    case("two Hosts on 1.0", "GET /ping HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host list", "GET /ping HTTP/1.1\r\nHost: a, b\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host with a path", "GET /ping HTTP/1.1\r\nHost: a/b\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host with a user", "GET /ping HTTP/1.1\r\nHost: a@b\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host with a space", "GET /ping HTTP/1.1\r\nHost: a b\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host with a bad port", "GET /ping HTTP/1.1\r\nHost: a:8o\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host with a bad escape", "GET /ping HTTP/1.1\r\nHost: a%2\r\n\r\n", &[BAD_HOST], Closed),
    case("a Host beside an absolute target", "GET http://a/ping HTTP/1.1\r\nHost: b/c\r\n\r\n", &[BAD_HOST], Closed),
    // Fields (RFC 9112 §5, RFC 9110 §5).
    case("white space around values", get!("A: \t b \t ", "B:", "C:\t", "D:d"), &[PONG], Open),
    case("every tchar in a name", get!("!#$%&'*+-.^_`|~09azAZ: x"), &[PONG], Open),
    case("odd but allowed values", get!("A: \"\\(:;,<=>?@[]{}\u{7e}", "A: again"), &[PONG], Open),
    raw("obs-text", b"GET /ping HTTP/1.1\r\nHost: test\r\nA: \x80\xfe\xff\r\n\r\n", &[PONG], Open),
    case("a space before the colon", get!("A : b"), &[BAD_FIELD], Closed),
    case("a tab before the colon", get!("A\t: b"), &[BAD_FIELD], Closed),
    case("a space before the colon of a length", post!(["Content-Length : 5"] "hello"), &[BAD_FIELD], Closed),
    case(
        "a space before the colon of a coding",
        post!(["Transfer-Encoding : chunked"] "0\r\n\r\n"),
        &[BAD_FIELD],
        Closed,
    ),
    case("a space before the name", get!(" A: b"), &[BAD_FIELD], Closed),
    case("a space before the first name", "GET /ping HTTP/1.1\r\n Host: test\r\n\r\n", &[BAD_FIELD], Closed),
    case("a folded line", get!("A: b", " c"), &[BAD_FIELD], Closed),
    case("a line folded by a tab", get!("A: b", "\tc"), &[BAD_FIELD], Closed),
    case("a folded coding", get!("Transfer-Encoding:", " chunked"), &[BAD_FIELD], Closed),
    case("an empty name", get!(": b"), &[BAD_FIELD], Closed),
    case("no colon", get!("A"), &[BAD_FIELD], Closed),
    case("a name with a bracket", get!("A(b): c"), &[BAD_FIELD], Closed),
    case("a name with a NUL", get!("A\0b: c"), &[BAD_FIELD], Closed),
    raw("a name with obs-text", b"GET /ping HTTP/1.1\r\nHost: test\r\nA\xff: b\r\n\r\n", &[BAD_FIELD], Closed),
    case("a value with a NUL", get!("A: b\0c"), &[BAD_FIELD], Closed),
    case("a value with an escape character", get!("A: b\x1bc"), &[BAD_FIELD], Closed),
    case("a value with a DEL", get!("A: b\x7fc"), &[BAD_FIELD], Closed),
    case("a value with a bare CR", get!("A: b\rc"), &[BAD_FIELD], Closed),
    case("a value ending in CR CR LF", get!("A: b\r"), &[BAD_FIELD], Closed),
    case("a value with a bare LF", get!("A: b\nC: d"), &[BAD_FIELD], Closed),
    case("the last line ending in LF", "GET /ping HTTP/1.1\r\nHost: test\n\r\n", &[BAD_FIELD], Closed),
    case("a head ending in LF", "GET /ping HTTP/1.1\r\nHost: test\r\n\n", &[BAD_FIELD], Closed),
    case("a head ending in CR CR LF", "GET /ping HTTP/1.1\r\nHost: test\r\n\r\r\n", &[BAD_FIELD], Closed),
    // llhttp CVE-2023-30589: a bare CR as the end of a line hid a second field.
    case("a bare CR between fields", get!("A:\rTransfer-Encoding: chunked"), &[BAD_FIELD], Closed),
    // llhttp CVE-2022-35256: an empty value ending in LF.
    case("a bare LF behind an empty value", get!("A:\nB: c"), &[BAD_FIELD], Closed),
    // Lengths (RFC 9112 §6.3). hyper RUSTSEC-2021-0078: "+5" was a number.
    case("a length of leading zeros", post!(["Content-Length: 0005"] "hello"), &[echo("hello")], Open),
    case("a signed length", post!(["Content-Length: +5"] "hello"), &[BAD_LENGTH], Closed),
    case("a negative length", post!(["Content-Length: -5"] "hello"), &[BAD_LENGTH], Closed),
    case("a hex length", post!(["Content-Length: 0x5"] "hello"), &[BAD_LENGTH], Closed),
    case("a fractional length", post!(["Content-Length: 5.0"] "hello"), &[BAD_LENGTH], Closed),
    case("an empty length", post!(["Content-Length: "] "hello"), &[BAD_LENGTH], Closed),
    case("a length with a space", post!(["Content-Length: 1 5"] "hello"), &[BAD_LENGTH], Closed),
    case("a length with an underscore", post!(["Content-Length: 1_0"] "hello"), &[BAD_LENGTH], Closed),
    case("a length in other digits", post!(["Content-Length: \u{665}"] "hello"), &[BAD_LENGTH], Closed),
    case("a list of lengths", post!(["Content-Length: 5, 5"] "hello"), &[BAD_LENGTH], Closed),
    case("two lengths that differ", post!(["Content-Length: 5", "Content-Length: 6"] "hello!"), &[BAD_LENGTH], Closed),
    case("the same length twice", post!(["Content-Length: 5", "content-length: 5"] "hello"), &[BAD_LENGTH], Closed),
    case("a length of 2^64", post!(["Content-Length: 18446744073709551616"] "hello"), &[BAD_LENGTH], Closed),
    case("a length of 2^64 + 5", post!(["Content-Length: 18446744073709551621"] "hello"), &[BAD_LENGTH], Closed),
    case("a length of 2^64 - 1", post!(["Content-Length: 18446744073709551615"] "hello"), &[TOO_LARGE], Closed),
    case("a length of 9e18", post!(["Content-Length: 9000000000000000000"] "hello"), &[TOO_LARGE], Closed),
    case("a length one above the limit", post!(["Content-Length: 1048577"] "hello"), &[TOO_LARGE], Closed),
    case("a bad length of GET", get!("Content-Length: x"), &[BAD_LENGTH], Closed),
    case("a body that is not all there", post!(["Content-Length: 6"] "hello"), &[], Waits),
    // Transfer codings (RFC 9112 §6.1). tiny_http RUSTSEC-2020-0031: any Transfer-Encoding counted as chunked, or none.
    case("chunked", chunked!("5\r\nhello\r\n0\r\n\r\n"), &[echo("hello")], Open),
    case("Chunked", post!(["tRANSFER-eNCODING:\tCHUNKED "] "1\r\na\r\n0\r\n\r\n"), &[echo("a")], Open),
    case(
        "both framings",
        post!(["Content-Length: 5", "Transfer-Encoding: chunked"] "0\r\n\r\n"),
        &[BAD_FRAMING],
        Closed,
    ),
    case(
        "both the other way",
        post!(["Transfer-Encoding: chunked", "Content-Length: 5"] "0\r\n\r\n"),
        &[BAD_FRAMING],
        Closed,
    ),
    case(
        "a length beside another coding",
        post!(["Transfer-Encoding: x", "Content-Length: 5"] "hello"),
        &[BAD_FRAMING],
        Closed,
    ),
    case(
        "a coding on 1.0",
        "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[BAD_FRAMING],
        Closed,
    ),
    case("gzip", post!(["Transfer-Encoding: gzip"] "hello"), &[NO_CODING], Closed),
    case("identity", post!(["Transfer-Encoding: identity"] "hello"), &[NO_CODING], Closed),
    case("gzip, chunked", post!(["Transfer-Encoding: gzip, chunked"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("chunked, gzip", post!(["Transfer-Encoding: chunked, gzip"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("identity, chunked", post!(["Transfer-Encoding: identity, chunked"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("chunked, identity", post!(["Transfer-Encoding: chunked, identity"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("chunked twice", post!(["Transfer-Encoding: chunked, chunked"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case(
        "chunked in two fields",
        post!(["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"] "0\r\n\r\n"),
        &[NO_CODING],
        Closed,
    ),
    case(
        "identity in a second field",
        post!(["Transfer-Encoding: chunked", "Transfer-Encoding: identity"] "0\r\n\r\n"),
        &[NO_CODING],
        Closed,
    ),
    case("a coding like chunked", post!(["Transfer-Encoding: xchunked"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("chunked in quotes", post!(["Transfer-Encoding: \"chunked\""] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("chunked with a parameter", post!(["Transfer-Encoding: chunked;q=1"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("an empty coding", post!(["Transfer-Encoding:"] "0\r\n\r\n"), &[NO_CODING], Closed),
    case("a vertical tab before chunked", post!(["Transfer-Encoding: \x0bchunked"] "0\r\n\r\n"), &[BAD_FIELD], Closed),
    case(
        "an underscore for the hyphen",
        post!(["Transfer_Encoding: chunked", "Content-Length: 1"] "x"),
        &[echo("x")],
        Open,
    ),
    case(
        "chunked of GET",
        concat!("GET /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nGET\r\n0\r\n\r\n"),
        &[PONG],
        Open,
    ),
    // The chunked coding (RFC 9112 §7.1).
    case("an empty chunked body", chunked!("0\r\n\r\n"), &[echo("")], Open),
    case("several chunks", chunked!("1\r\na\r\n2\r\nbc\r\n3\r\ndef\r\n0\r\n\r\n"), &[echo("abcdef")], Open),
    case(
        "a chunk in hex",
        chunked!("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        &[echo("01234567890123456789")],
        Open,
    ),
    case("zeros before a size", chunked!("0000000000000001\r\na\r\n00\r\n\r\n"), &[echo("a")], Open),
    case("CRLF in a chunk", chunked!("4\r\n\r\n\r\n\r\n0\r\n\r\n"), &[echo("\r\n\r\n")], Open),
    case(
        "extensions",
        chunked!("1;a\r\nx\r\n1;a=b\r\ny\r\n1; a=\"\t;\" ;c\r\nz\r\n0;last\r\n\r\n"),
        &[echo("xyz")],
        Open,
    ),
    raw(
        "an extension with obs-text",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;\xff\r\n\r\n",
        &[echo("")],
        Open,
    ),
    case("trailers", chunked!("1\r\na\r\n0\r\nA: b\r\nC:\r\n\r\n"), &[echo("a")], Open),
    case("a trailer of an empty body", chunked!("0\r\nA: b\r\n\r\n"), &[echo("")], Open),
    case("a trailer that is a length", chunked!("1\r\na\r\n0\r\nContent-Length: 99\r\n\r\n"), &[echo("a")], Open),
    case("chunks without end", chunked!("1\r\na\r\n"), &[], Waits),
    case("trailers without end", chunked!("0\r\nA: b\r\n"), &[], Waits),
    case("no size", chunked!("\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a size that is no hex", chunked!("g\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a size of 0x1", chunked!("0x1\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a signed size", chunked!("+1\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a negative size", chunked!("-1\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a space before a size", chunked!(" 1\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a space behind a size", chunked!("1 \r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a space before an extension", chunked!("1 ;a\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a tab behind a size", chunked!("1\t\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("an underscore in a size", chunked!("1_0\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("an extension without a size", chunked!(";a\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    // hyper RUSTSEC-2021-0079, actix RUSTSEC-2021-0081, mongoose CVE-2023-34188: a size that overflows.
    case("a size of 17 digits", chunked!("10000000000000001\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("17 zeros", chunked!("00000000000000001\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a size of 2^64 + 3", chunked!("f0000000000000003\r\nabc\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a size of 2^64 - 1", chunked!("ffffffffffffffff\r\na\r\n0\r\n\r\n"), &[TOO_LARGE], Closed),
    case("a size of 2^63", chunked!("8000000000000000\r\na\r\n0\r\n\r\n"), &[TOO_LARGE], Closed),
    case(
        "a second size that overflows the sum",
        chunked!("1\r\na\r\nffffffffffffffff\r\na\r\n0\r\n\r\n"),
        &[TOO_LARGE],
        Closed,
    ),
    // Go CVE-2025-22871: a bare LF ended a chunk line.
    case("a bare LF behind a size", chunked!("1\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a bare LF behind an extension", chunked!("1;a\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a bare LF behind data", chunked!("1\r\na\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a bare LF behind the last chunk", chunked!("1\r\na\r\n0\n\r\n"), &[BAD_CHUNK], Closed),
    case("a bare LF at the end", chunked!("1\r\na\r\n0\r\n\n"), &[BAD_FIELD], Closed),
    case("a bare LF behind a trailer", chunked!("0\r\nA: b\n\r\n"), &[BAD_FIELD], Closed),
    // llhttp CVE-2021-22960: the CR in an extension was passed over.
    case("a bare CR in an extension", chunked!("1;a\rb\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a NUL in an extension", chunked!("1;a\0b\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a bare CR behind a size", chunked!("1\ra\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("CR CR LF behind a size", chunked!("1\r\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    // h11 CVE-2025-43859: two bytes behind the data were taken for CRLF, whatever they were.
    case("a chunk longer than its size", chunked!("1\r\nabc0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("two other bytes behind data", chunked!("1\r\naXX0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("CR and another byte behind data", chunked!("1\r\na\rX0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a chunk shorter than its size", chunked!("3\r\na\r\n0\r\n\r\n"), &[BAD_CHUNK], Closed),
    case("a space before the colon in a trailer", chunked!("0\r\nA : b\r\n\r\n"), &[BAD_FIELD], Closed),
    case("a folded trailer", chunked!("0\r\nA: b\r\n c\r\n\r\n"), &[BAD_FIELD], Closed),
    case("a request for a trailer", chunked!("0\r\nGET /ping HTTP/1.1\r\n\r\n"), &[BAD_FIELD], Closed),
    // Go CVE-2023-39326: bytes that carry nothing are bounded.
    case(
        "an extension of 1024 bytes",
        chunked!(concat!("1;", times_64!("0123456789abcde"), times_8!("0123456"), "1234567", "\r\na\r\n0\r\n\r\n")),
        &[echo("a")],
        Open,
    ),
    case(
        "an extension of 1025 bytes",
        chunked!(concat!("1;", times_64!("0123456789abcdef"), "\r\na\r\n0\r\n\r\n")),
        &[BAD_CHUNK],
        Closed,
    ),
    case(
        "many extensions",
        chunked!(concat!(times_64!(concat!("1;", times_64!("abcd"), "\r\na\r\n")), "0\r\n\r\n")),
        &[BAD_CHUNK],
        Closed,
    ),
    case("64 trailers", chunked!(concat!("0\r\n", times_64!("A: b\r\n"), "\r\n")), &[echo("")], Open),
    case(
        "128 trailers",
        chunked!(concat!("0\r\n", times_64!("A: b\r\nC: d\r\n"), "\r\n")),
        &[FIELDS_TOO_LARGE],
        Closed,
    ),
    case(
        "trailers of 20 KiB",
        chunked!(concat!("0\r\nA: ", times_64!(times_64!("abcde")), "\r\n\r\n")),
        &[FIELDS_TOO_LARGE],
        Closed,
    ),
    case(
        "fields of 20 KiB",
        concat!("GET /ping HTTP/1.1\r\nA: ", times_64!(times_64!("abcde")), "\r\n\r\n"),
        &[FIELDS_TOO_LARGE],
        Closed,
    ),
    case(
        "128 fields",
        concat!("GET /ping HTTP/1.1\r\nHost: test\r\n", times_64!("A: b\r\nC: d\r\n"), "\r\n"),
        &[FIELDS_TOO_LARGE],
        Closed,
    ),
    case("CRLFs without end", times_64!(times_64!("\r\n\r\n")), &[FIELDS_TOO_LARGE], Closed),
    // Expectations (RFC 9110 §10.1.1). Those that are met depend on when the body comes, and are tested below.
    case("another expectation", post!(["Expect: 200-ok", "Content-Length: 5"] ""), &[NO_EXPECTATION], Closed),
    case("two expectations", post!(["Expect: 100-continue, x", "Content-Length: 5"] ""), &[NO_EXPECTATION], Closed),
    case(
        "two fields of it",
        post!(["Expect: 100-continue", "Expect: 100-continue", "Content-Length: 5"] ""),
        &[NO_EXPECTATION],
        Closed,
    ),
    case("an empty expectation", post!(["Expect:", "Content-Length: 5"] ""), &[NO_EXPECTATION], Closed),
    case("an expectation without a body", get!("Expect: 100-continue"), &[PONG], Open),
    case("an expectation of length 0", post!(["Expect: 100-continue", "Content-Length: 0"] ""), &[echo("")], Open),
    case(
        "an expectation on 1.0",
        "POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        &[echo("hello")],
        Closed,
    ),
    case("no 100 on 1.0", "POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", &[], Waits),
    case(
        "another on 1.0",
        "POST /echo HTTP/1.0\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
        &[echo("hello")],
        Closed,
    ),
    case(
        "refused by 404",
        "POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n",
        &[NOT_FOUND],
        Refused,
    ),
    case(
        "refused by 405",
        "POST /ping HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        &[ONLY_GET],
        Refused,
    ),
    case(
        "refused by 405, chunked",
        "PUT /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        &[ONLY_POST],
        Refused,
    ),
    case("refused by 413", post!(["Expect: 100-continue", "Content-Length: 1048577"] ""), &[TOO_LARGE], Closed),
    // Persistence (RFC 9112 §9.3).
    case("keep-alive on 1.1", get!("Connection: keep-alive"), &[PONG], Open),
    case("close", get!("Connection: close"), &[PONG], Closed),
    case("Close", get!("connection: CLOSE"), &[PONG], Closed),
    case("close in a list", get!("Connection: , x ,\tclose,"), &[PONG], Closed),
    case("close in a second field", get!("Connection: x", "Connection: close"), &[PONG], Closed),
    case("close and keep-alive", get!("Connection: keep-alive, close"), &[PONG], Closed),
    case("keep-alive behind close", get!("Connection: close", "Connection: keep-alive"), &[PONG], Closed),
    case("no close", get!("Connection: closed, not-close, x=close"), &[PONG], Open),
    case("close with a body", post!(["Connection: close", "Content-Length: 5"] "hello"), &[echo("hello")], Closed),
    case("close of HEAD", "HEAD /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[head(PONG)], Closed),
    case("close of 404", "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[NOT_FOUND], Closed),
    case("close of 204", "GET /gone HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[GONE], Closed),
    case("1.0", line!("GET /ping HTTP/1.0"), &[PONG], Closed),
    case("1.0 keep-alive", "GET /ping HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", &[kept(PONG)], Open),
    case("1.0 keep-alive of HEAD", "HEAD /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", &[head(kept(PONG))], Open),
    case("1.0 keep-alive and close", "GET /ping HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", &[PONG], Closed),
    case("1.0 POST", "POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", &[echo("hello")], Closed),
    case("1.0 Keep-Alive field", "GET /ping HTTP/1.0\r\nKeep-Alive: timeout=5\r\n\r\n", &[PONG], Closed),
    case(
        "an upgrade is not taken",
        get!("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"),
        &[PONG],
        Open,
    ),
    // Pipelining (RFC 9112 §9.3.2).
    case("two requests", concat!(get!(), get!()), &[PONG, PONG], Open),
    case("CRLF between them", concat!(get!(), "\r\n\r\n", get!()), &[PONG, PONG], Open),
    case(
        "an extra CRLF behind a body",
        concat!(post!(["Content-Length: 5"] "hello"), "\r\n", get!()),
        &[echo("hello"), PONG],
        Open,
    ),
    case(
        "mixed requests",
        concat!(
            get!(),
            post!(["Content-Length: 5"] "hello"),
            line!("HEAD /ping HTTP/1.1"),
            chunked!("3\r\nabc\r\n0\r\nA: b\r\n\r\n"),
            line!("GET /gone HTTP/1.1"),
            line!("GET /none HTTP/1.1"),
            line!("OPTIONS * HTTP/1.1"),
            chunked!("0\r\n\r\n"),
            "GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            post!([] ""),
            line!("GET /users/7 HTTP/1.1"),
        ),
        &[
            PONG,
            echo("hello"),
            head(PONG),
            echo("abc"),
            GONE,
            NOT_FOUND,
            METHODS,
            echo(""),
            kept(PONG),
            echo(""),
            text("200 OK", "user 7\n"),
        ],
        Open,
    ),
    case("nothing is read behind close", concat!(get!("Connection: close"), get!()), &[PONG], Closed),
    case("nothing is read behind 1.0", concat!(line!("GET /ping HTTP/1.0"), get!()), &[PONG], Closed),
    case("a bad request behind a good one", concat!(get!(), get!("A : b"), get!()), &[PONG, BAD_FIELD], Closed),
    case(
        "a body that is too long for its length",
        post!(["Content-Length: 5"] "helloGARBAGE\r\n\r\n"),
        &[echo("hello"), BAD_LINE],
        Closed,
    ),
    case(
        "a request in a body",
        post!(["Content-Length: 39"] "GET /gone HTTP/1.1\r\nHost: smuggled\r\n\r\n!"),
        &[echo("GET /gone HTTP/1.1\r\nHost: smuggled\r\n\r\n!")],
        Open,
    ),
    case(
        "a request in both framings",
        concat!(post!(["Content-Length: 5", "Transfer-Encoding: chunked"] "0\r\n\r\n"), get!()),
        &[BAD_FRAMING],
        Closed,
    ),
    case(
        "a request behind a refused body",
        concat!(post!(["Content-Length: 9000000000000000000"] ""), get!()),
        &[TOO_LARGE],
        Closed,
    ),
    case("part of a second request", concat!(get!(), "GET /ping HT"), &[PONG], Waits),
];

/// The wire bytes of a case's answers.
fn expected(case: &Case) -> String {
    let mut wire = String::new();
    for (number, answer) in case.answers.iter().enumerate() {
        let Answer { status, fields, body, is_to_head, is_to_1_0 } = *answer;
        wire += &format!("HTTP/1.1 {status}\r\nDate: DATE\r\n{fields}");
        if let Some(body) = body {
            wire += &format!("Content-Length: {}\r\n", body.len());
        }
        if matches!(case.end, Closed | Refused) && number + 1 == case.answers.len() {
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

const PONG_WIRE: &str = concat!(
    "HTTP/1.1 200 OK\r\nDate: DATE\r\nContent-Type: text/plain; charset=utf-8\r\n",
    "Content-Length: 4\r\n\r\npong"
);

fn router() -> Router {
    Router::new()
        .get("/ping", |_: &Request<'_>| Response::text("pong"))
        .post("/echo", |request: &Request<'_>| Response::bytes("application/octet-stream", request.body().to_vec()))
        .get("/gone", |_: &Request<'_>| Response::new(Status::NO_CONTENT))
        .delete("/gone", |_: &Request<'_>| Response::new(Status::NO_CONTENT))
        .get("/users/{id}", |request: &Request<'_>| {
            Response::text(format!("user {}\n", request.param("id").unwrap_or_default()))
        })
}

// ---- Expect: 100-continue, which is a conversation -----------------------------------------------------------------

const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

#[track_caller]
fn check_continue(head: &str, body: &str) {
    let site = Site::start(Config { loops: 1, ..Config::default() }, router());
    // The whole head at once, and byte by byte: the body is asked for once, and only when the head is complete.
    for pieces in [vec![head.as_bytes().to_vec()], cut(head.as_bytes(), 1..head.len())] {
        let mut client = site.connect();
        let mut barrier = Barrier(site.connect());
        for piece in pieces {
            client.send(piece);
            barrier.pass();
        }
        assert_eq!(client.reply().head, CONTINUE);
        // The body byte by byte: it is not asked for again. Then a request that expects nothing.
        for piece in cut(body.as_bytes(), 1..body.len()) {
            client.send(piece);
            barrier.pass();
        }
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (200, "hello", false));
        assert_eq!(client.ask(PING).text(), "pong");
    }
    // A client that does not wait is answered like any other, and is asked for nothing that it has sent.
    let mut client = site.connect();
    client.send([head, body, PING].concat());
    assert_eq!([client.reply().text(), client.reply().text()], ["hello", "pong"]);
    client.finish();
    client.expect_fin();
}

#[test]
fn a_body_is_asked_for_once_by_a_client_that_waits() {
    check_continue(post!(["Expect: 100-continue", "Content-Length: 5"] ""), "hello");
    check_continue(
        post!(["expect: 100-Continue", "Transfer-Encoding: chunked"] ""),
        "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    );
}

#[test]
fn a_body_is_asked_for_behind_the_answers_before_it() {
    let site = Site::start(Config::default(), router());
    let mut client = site.connect();
    client.send([PING, post!(["Expect: 100-continue", "Content-Length: 5"] "")].concat());
    assert_eq!(client.reply().text(), "pong");
    assert_eq!(client.reply().head, CONTINUE);
    assert_eq!(client.ask("hello").text(), "hello");
}

#[test]
fn a_refused_body_that_comes_after_all_is_not_read_as_a_request() {
    let site = Site::start(Config { linger: HANG, ..Config::default() }, router());
    let mut client = site.connect();
    let reply = client.ask("POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 36\r\n\r\n");
    assert_eq!((reply.status, reply.is_last()), (404, true));
    client.send(PING);
    client.finish();
    client.expect_fin();
}

// ---- Sending -------------------------------------------------------------------------------------------------------

/// A case, sent in these pieces, each of which the server reads before the next is sent.
struct Play {
    case: &'static Case,
    pieces: Vec<Vec<u8>>,
    /// The last piece ends with another request.
    has_successor: bool,
}

/// Connections that are played at once.
const COMPANY: usize = 48;

/// Plays all, in lockstep, and tells which of them came out wrong.
fn play(mut plays: VecDeque<Play>) {
    // With one loop the answer to a later request shows that earlier bytes of other connections have been read. The
    // long linger is so that a slow machine cannot turn a FIN into a reset.
    let config = Config {
        loops: 1,
        linger: HANG,
        head_timeout: HANG,
        body_timeout: HANG,
        write_timeout: HANG,
        ..Config::default()
    };
    let site = Site::start(config, router());
    let mut barrier = Barrier(site.connect());
    let mut wrong = Vec::new();
    while !plays.is_empty() {
        let batch: Vec<Play> = plays.drain(..COMPANY.min(plays.len())).collect();
        let mut streams: Vec<TcpStream> = batch.iter().map(|_| site.connect().stream).collect();
        barrier.pass();
        for step in 0..batch.iter().map(|play| play.pieces.len()).max().unwrap_or(0) {
            for (play, stream) in batch.iter().zip(&mut streams) {
                if let Some(piece) = play.pieces.get(step) {
                    stream.write_all(piece).unwrap();
                }
            }
            barrier.pass();
        }
        for (play, stream) in batch.iter().zip(&mut streams) {
            if let Some(difference) = outcome(play, stream) {
                wrong.push(difference);
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    drop(barrier);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

/// Compares what comes with what is expected; `None` if it is the same.
fn outcome(play: &Play, stream: &mut TcpStream) -> Option<String> {
    let mut wanted = expected(play.case);
    if play.case.end == Open {
        wanted += PONG_WIRE;
        if !play.has_successor {
            stream.write_all(PING.as_bytes()).unwrap();
        }
    }
    if matches!(play.case.end, Open | Waits) {
        // No server that is to keep the connection open may close it before we do.
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut came = Vec::new();
    let ended = stream.read_to_end(&mut came);
    let came = undated(&String::from_utf8_lossy(&came));
    if ended.is_ok() && came == wanted {
        return None;
    }
    let name = play.case.name;
    let pieces: Vec<usize> = play.pieces.iter().map(Vec::len).collect();
    Some(format!("{name}, in pieces of {pieces:?} ({ended:?}):\n  wanted {wanted:?}\n  came   {came:?}"))
}

/// The same with a fixed text for each date, the form of which is checked.
fn undated(wire: &str) -> String {
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

/// Another connection, whose answers show that the loop has read what was sent before on others.
struct Barrier(Client);

impl Barrier {
    fn pass(&mut self) {
        // The first answer may have been on its way while the bytes came: a connection that waits in the accept queue
        // is read one round later, and a poller that tries all sockets in order may already have tried ours.
        for _ in 0..2 {
            assert_eq!(self.0.ask(PING).status, 200);
        }
    }
}

fn cut(input: &[u8], at: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let mut start = 0;
    let ends = at.into_iter().chain([input.len()]);
    ends.map(|end| input[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

/// Longer inputs are cut at fewer places.
const SHORT: usize = 600;

#[test]
fn requests_that_come_whole() {
    play(CASES.iter().map(|case| Play { case, pieces: vec![case.input.to_vec()], has_successor: false }).collect());
}

#[test]
fn requests_that_come_byte_by_byte() {
    let pieces = |input: &[u8]| cut(input, (1..input.len()).step_by(if input.len() <= SHORT { 1 } else { 61 }));
    play(CASES.iter().map(|case| Play { case, pieces: pieces(case.input), has_successor: false }).collect());
}

#[test]
fn requests_that_come_in_two_parts_cut_anywhere() {
    let cuts = |case: &'static Case| {
        let places = (1..case.input.len()).step_by(if case.input.len() <= SHORT { 1 } else { 397 });
        places.map(move |at| Play { case, pieces: cut(case.input, [at]), has_successor: false })
    };
    // Two servers, so that both halves of the table are played at the same time.
    let (one, two) = CASES.split_at(CASES.len() / 2);
    thread::scope(|scope| {
        scope.spawn(|| play(one.iter().flat_map(cuts).collect()));
        scope.spawn(|| play(two.iter().flat_map(cuts).collect()));
    });
}

#[test]
fn requests_with_another_right_behind_them() {
    // What waits for more would take the successor for it.
    let whole = CASES.iter().filter(|case| matches!(case.end, Open | Closed));
    let with_successor = |input: &[u8]| vec![[input, PING.as_bytes()].concat()];
    play(whole.map(|case| Play { case, pieces: with_successor(case.input), has_successor: true }).collect());
}
