//! `timed`: the command `allout`, whole, with `demo`'s heavier routes, and with timeouts of one's own, for which the
//! command itself has no options.
//!
//! `BATTERY_TIMEOUTS=head=2,body=3,write=2,idle=4`, in seconds: those that are named, in place of their defaults.

#[path = "../../../src/admin.rs"]
mod admin;
#[path = "../../../src/check.rs"]
mod check;
#[path = "../../../src/command.rs"]
mod command;
#[path = "../../../src/options.rs"]
mod command_line;
#[path = "../../../src/log.rs"]
mod log;
#[path = "../../../src/metrics.rs"]
mod metrics;
#[path = "../../../src/notify.rs"]
mod notify;
#[path = "../../../src/routes.rs"]
mod routes;
#[path = "../../../src/status/mod.rs"]
mod status;
#[path = "../../../src/threads.rs"]
mod threads;

use std::io::Write;
use std::time::Duration;

use allout::{Response, Router, Status};

fn main() -> std::process::ExitCode {
    command::run("timed", routes)
}

/// The command's own reading of its options, and then the timeouts.
mod options {
    use std::ffi::OsString;
    use std::time::Duration;

    use allout::Config;

    pub(crate) use crate::command_line::{Command, Options, UsageError, Volume};

    pub(crate) fn read(
        name: &str,
        arguments: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Command, UsageError> {
        let timeouts = variable("BATTERY_TIMEOUTS").unwrap_or_default().into_string().expect("text");
        let mut command = crate::command_line::read(name, arguments, variable)?;
        if let Command::Serve(options) = &mut command {
            timeouts.split(',').filter(|text| !text.is_empty()).for_each(|text| set(&mut options.config, text));
        }
        Ok(command)
    }

    fn set(config: &mut Config, text: &str) {
        let (name, seconds) = text.split_once('=').expect("NAME=SECONDS");
        let timeout = match name {
            "head" => &mut config.head_timeout,
            "body" => &mut config.body_timeout,
            "write" => &mut config.write_timeout,
            "idle" => &mut config.idle_timeout,
            _ => panic!("there is no timeout `{name}`"),
        };
        *timeout = Duration::from_secs_f64(seconds.parse().expect("a number of seconds"));
    }
}

fn routes(router: Router) -> Router {
    router
        .post("/echo", |request| Response::bytes("application/octet-stream", request.body().to_vec()))
        .get("/sleep/{ms}", |request| {
            let Some(ms) = request.param("ms").and_then(|ms| ms.parse().ok()) else { return bad_number() };
            std::thread::sleep(Duration::from_millis(ms));
            Response::text("slept")
        })
        .get("/panic", |_| -> Response { panic!("asked to") })
        .get("/bytes/{n}", |request| match request.param("n").and_then(|n| n.parse().ok()) {
            Some(n) => Response::bytes("application/octet-stream", vec![b'x'; n]),
            None => bad_number(),
        })
        .get("/stream/{n}", |request| match request.param("n").and_then(|n| n.parse::<u32>().ok()) {
            Some(n) => Response::stream("text/plain; charset=utf-8", move |out| {
                (1..=n).try_for_each(|line| {
                    writeln!(out, "{line}")?;
                    out.flush()
                })
            }),
            None => bad_number(),
        })
}

fn bad_number() -> Response {
    Response::text("a number is wanted\n").with_status(Status::BAD_REQUEST)
}
