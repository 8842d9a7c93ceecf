//! `demo`: the command `allout` with routes to try things out on, and for black-box tests.
//!
//! ```text
//! cargo run --release --example demo -- OPTIONS
//!
//! POST /echo        the body back (PUT too, for `curl -T`)
//! GET  /sleep/{ms}  answers after so many milliseconds
//! GET  /panic       panics
//! GET  /bytes/{n}   n bytes
//! GET  /stream/{n}  n lines, one every 10 ms, each sent as it is made
//! POST /count       counts the bytes of a body of any length, as they arrive (PUT too)
//! ```

#[path = "../../src/admin.rs"]
mod admin;
#[path = "../../src/check.rs"]
mod check;
#[path = "../../src/command.rs"]
mod command;
#[path = "../../src/log.rs"]
mod log;
#[path = "../../src/metrics.rs"]
mod metrics;
#[path = "../../src/notify.rs"]
mod notify;
#[path = "../../src/options.rs"]
mod options;
#[path = "../../src/routes.rs"]
mod routes;
#[path = "../../src/status/mod.rs"]
mod status;
#[path = "../../src/threads.rs"]
mod threads;

use std::io::{self, Write};
use std::time::Duration;

use allout::{BodyReader, Method, Request, Response, Router, Status};

const BYTES_MAX: usize = 64 * 1024 * 1024;

fn main() -> std::process::ExitCode {
    command::run("demo", routes)
}

fn routes(router: Router) -> Router {
    router
        .post("/echo", echo)
        .put("/echo", echo)
        .get("/sleep/{ms}", |request| {
            let Some(ms) = number(request, "ms") else { return bad_number() };
            std::thread::sleep(Duration::from_millis(ms));
            Response::text(format!("slept {ms} ms\n"))
        })
        .get("/panic", |_| -> Response { panic!("asked to") })
        .get("/bytes/{n}", |request| {
            match number(request, "n").and_then(|n| usize::try_from(n).ok()).filter(|n| *n <= BYTES_MAX) {
                Some(n) => Response::bytes("application/octet-stream", vec![b'x'; n]),
                None => bad_number(),
            }
        })
        .get("/stream/{n}", |request| match number(request, "n") {
            Some(n) => Response::stream("text/plain; charset=utf-8", move |out| {
                for line in 1..=n {
                    writeln!(out, "{line}")?;
                    out.flush()?;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Ok(())
            }),
            None => bad_number(),
        })
        .stream(Method::Post, "/count", count)
        .stream(Method::Put, "/count", count)
}

fn count(_: &Request<'_>, body: &mut BodyReader<'_>) -> Response {
    match io::copy(body, &mut io::sink()) {
        Ok(bytes) => Response::text(format!("{bytes}\n")),
        // Not sent: what is wrong with the body is answered, if anybody is left to answer.
        Err(error) => Response::text(format!("{error}\n")).with_status(Status::BAD_REQUEST),
    }
}

fn echo(request: &Request<'_>) -> Response {
    Response::bytes("application/octet-stream", request.body().to_vec())
}

fn number(request: &Request<'_>, name: &str) -> Option<u64> {
    let text = request.param(name)?;
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn bad_number() -> Response {
    Response::text("a number that is not too large is wanted\n").with_status(Status::BAD_REQUEST)
}
