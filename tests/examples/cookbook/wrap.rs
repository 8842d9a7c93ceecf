//! What is to happen to every request goes around the handler: `around` answers in its
//! place, adds to its answer, or looks on. Streams and refusals pass through it like
//! all else. The outermost wrapper is the one that is written last.

use std::env::args;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use allout::{Config, GRACE, Group, Handler, Method, Outcome, Server, signals};
use allout::{Response, Router, Status, around};

const ORIGIN: &str = "https://app.example.org";

fn site() -> impl Handler {
    let router = Router::new()
        .get("/", |_| Response::text("hello\n"))
        .get("/admin/users", |_| Response::text("alice\n"))
        .get("/broken", |_| -> Response { panic!("as asked") });

    // A page in place of the plain 500. The connection stays open.
    let with_page = around(router, |request, next| {
        catch_unwind(AssertUnwindSafe(|| next(request))).unwrap_or_else(|_| {
            Response::bytes("text/html; charset=utf-8", "<h1>Our fault</h1>\n")
                .with_status(Status::INTERNAL_SERVER_ERROR)
        })
    });
    let guarded = around(with_page, |request, next| {
        let is_known = request.headers().get("authorization") == Some(b"Bearer secret");
        // Decoded, as the router has it: `/%61dmin/` is no way around.
        if request.path().starts_with("/admin/") && !is_known {
            return Response::new(Status::UNAUTHORIZED)
                .with_field("WWW-Authenticate", "Bearer");
        }
        next(request)
    });
    // Outside the guard, since a browser asks without credentials whether it may ask.
    let shared = around(guarded, |request, next| {
        let response = if request.method() == Method::Options {
            Response::new(Status::NO_CONTENT)
                .with_field("Access-Control-Allow-Methods", "GET, POST")
                .with_field("Access-Control-Allow-Headers", "Authorization")
        } else {
            next(request)
        };
        response.with_field("Access-Control-Allow-Origin", ORIGIN)
    });
    let count = AtomicU64::new(1);
    around(shared, move |request, next| {
        let id = format!("{:x}", count.fetch_add(1, Relaxed));
        next(request).with_field("X-Request-Id", id)
    })
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    group.add("http", move |stop| server.run(site(), stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
