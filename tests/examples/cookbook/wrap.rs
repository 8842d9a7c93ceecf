//! What is to happen to every request goes around the handler: `around` answers in its
//! place, adds to its answer, or looks on. Streams and refusals pass through it like
//! all else. The outermost wrapper is the one that is written last.
//!
//! A wrapper passes nothing to a handler but the request. What a handler must be given,
//! such as the user who asks, it gets from a function around it alone: so the compiler
//! sees to it that nobody is forgotten.

use std::env::args;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use allout::{Config, GRACE, Group, Handler, Method, Outcome, Server, signals};
use allout::{Request, Response, Router, Status, around};

const ORIGIN: &str = "https://app.example.org";

struct User(&'static str);

/// Who asks: here is where a session is looked up.
fn user(request: &Request<'_>) -> Option<User> {
    let is_alice = request.headers().get("authorization") == Some(b"Bearer secret");
    is_alice.then_some(User("alice"))
}

/// A handler that is given the user.
fn for_user<R: Into<Response>>(
    handler: impl Fn(&Request<'_>, &User) -> R + Send + Sync + 'static,
) -> impl Fn(&Request<'_>) -> Response + Send + Sync + 'static {
    move |request| match user(request) {
        Some(user) => handler(request, &user).into(),
        None => unauthorized(),
    }
}

fn unauthorized() -> Response {
    Response::new(Status::UNAUTHORIZED).with_field("WWW-Authenticate", "Bearer")
}

fn site() -> impl Handler {
    let router = Router::new()
        .get("/", |_| Response::text("hello\n"))
        .get("/me", for_user(|_, User(name)| Response::text(format!("{name}\n"))))
        .get("/admin/users", |_| Response::text("alice\n"))
        .get("/broken", |_| -> Response { panic!("as asked") });

    // A page in place of the plain 500. The connection stays open.
    let with_page = around(router, |request, next| {
        catch_unwind(AssertUnwindSafe(|| next(request))).unwrap_or_else(|panic| {
            Response::bytes("text/html; charset=utf-8", "<h1>Our fault</h1>\n")
                .with_status(Status::INTERNAL_SERVER_ERROR)
                // Goes on once the page is sent, so that `on_notice` hears of it.
                .on_sent(move || resume_unwind(panic))
        })
    });
    let guarded = around(with_page, |request, next| {
        // Decoded, as the router has it: `/%61dmin/` is no way around.
        if request.path().starts_with("/admin/") && user(request).is_none() {
            return unauthorized();
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
    let count = AtomicUsize::new(1);
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
    let site = site(); // here, so that a bad route is found before anything starts
    group.add("http", move |stop| server.run(site, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
