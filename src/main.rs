//! The command `allout`: a small HTTP/1.1 server that loses no request when it stops.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))] // A test says what it expects by panicking.

mod admin;
mod check;
mod command;
mod log;
mod metrics;
mod notify;
mod options;
mod routes;
mod status;
mod threads;

fn main() -> std::process::ExitCode {
    command::run("allout", |router| router)
}
