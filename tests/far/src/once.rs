//! One stop: a server here, clients in another network namespace, and the network between them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::network::{self, Network};
use crate::rows::Row;
use crate::{Result, clients};

/// Where the server listens.
pub(crate) const ADDRESS: &str = "10.77.0.1:9500";
pub(crate) const CLIENTS: &str = "10.77.0.2";

/// How long the clients are at work before the stop.
const WORK: Duration = Duration::from_millis(3500);
/// Only a server that hangs takes this long to start or to stop.
const HANG: Duration = Duration::from_secs(20);

/// Told to this process if its parent goes, and killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Prints what was lost, what was answered, and the milliseconds that the stop took.
pub(crate) fn run(row: &'static Row, seed: u64, server: &[String]) -> Result<()> {
    let (signal, program, arguments) = match server {
        [signal, program, arguments @ ..] => (signal, program, arguments),
        _ => return Err("a signal and a program are missing".into()),
    };
    let signal = if signal == "QUIT" { Signal::SIGQUIT } else { Signal::SIGTERM };
    network::ip("link set lo up")?;
    let here = network::end("far0")?;
    network::ip("addr add 10.77.0.1/30 dev far0")?;
    network::ip("link set far0 up")?;

    let mut clients = clients::start(row, seed)?;
    let mut said = BufReader::new(clients.stdout.take().ok_or("no stdout")?).lines();
    let ready = said.next().ok_or("the clients do not start")??;
    if ready != clients::READY {
        return Err(format!("the clients say: {ready}").into());
    }
    let there = network::end("far1")?;
    network::ip(&format!("link set far1 netns {}", clients.id()))?;
    Network::start(row, seed, here, there);

    // A group of its own: whoever tells it to stop means the server, and not this process.
    let mut server = Command::new(program);
    server.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut server = Running(server.spawn().map_err(|error| format!("cannot start {program}: {error}"))?);
    let started = Instant::now();
    while TcpStream::connect(ADDRESS).is_err() {
        if started.elapsed() > HANG {
            return Err(format!("{program} does not listen").into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    clients.stdin.take().ok_or("no stdin")?.write_all(b"\n")?;
    thread::sleep(WORK);
    let told = Instant::now();
    kill(Pid::from_raw(server.0.id().try_into()?), signal)?;
    while server.0.try_wait()?.is_none() {
        if told.elapsed() > HANG {
            return Err(format!("{program} does not stop").into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let took_ms = told.elapsed().as_millis();
    let counts = said.next().ok_or("the clients say nothing")??;
    println!("{counts} {took_ms}");
    clients.wait()?;
    Ok(())
}
