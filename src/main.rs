//! The command `allout`: a small HTTP/1.1 server that loses no request when it stops.

mod command;
mod options;

fn main() -> std::process::ExitCode {
    command::run("allout", |router| router)
}
