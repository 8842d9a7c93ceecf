//! `restart`: a new version takes the old one's place, and no client is lost or refused. Unix.
//!
//! ```text
//! cargo run --release --example restart -- successor|exec [HOST:PORT]
//! curl http://127.0.0.1:8080/who
//! curl -X POST http://127.0.0.1:8080/restart
//! ```
//!
//! `successor`: the new process is started with the listening socket as its standard input, and says `ready` on its
//! standard output. Only then the old one stops. A successor that dies, says something else or is late is killed, and
//! the old one serves on. For programs that nobody watches by their process ID.
//!
//! `exec`: the old process stops, and then executes the new program in its own place, with the same process ID. Clients
//! that come meanwhile wait in the socket's queue, for as long as the drain takes. For PID 1 of a container, for runit,
//! procd and the like, and where there is memory for one process only. If the new program is no good, nobody serves.
//!
//! The third way needs no code: a manager holds the socket, as systemd does (`allout --listen stdin`, `LISTEN_FDS`).

#[cfg(unix)]
fn main() -> Result<std::process::ExitCode, Box<dyn std::error::Error>> {
    unix::main()
}

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
mod unix {
    use std::error::Error;
    use std::io::{self, Read, Write};
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{Command, ExitCode, Stdio, Termination};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
    use std::thread;
    use std::time::{Duration, SystemTime};

    use allout::{Cause, Config, Group, Inherited, LocalAddress, Response, Router, Server, Status};

    /// How long a successor may take until it is ready.
    const READY_TIMEOUT: Duration = Duration::from_secs(3);
    const READY: &[u8; 6] = b"ready\n";
    const RESTART: &str = "/restart";

    pub(super) fn main() -> Result<ExitCode, Box<dyn Error>> {
        let program = Arc::new(Program::find()?);
        let is_exec = match program.arguments.first().map(String::as_str) {
            Some("exec") => true,
            Some("successor") => false,
            _ => return Err("usage: restart successor|exec [HOST:PORT]".into()),
        };
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let who = format!("{} since {}.{:09}\n", std::process::id(), since.as_secs(), since.subsec_nanos());

        let mut group = Group::new();
        let stop = group.stop();
        #[cfg(feature = "signals")]
        let signals = allout::signals::install(&stop)?;
        let held = Arc::clone(&program);
        stop.on_cause(move |cause| {
            if !is_restart(cause) {
                // Nobody comes after us: whoever connects now is refused, and not left in a queue.
                drop(held.socket().take());
            }
        });
        let server = Server::from_listeners(program.another_handle()?, Config::default())?.on_listening(say_ready);
        let old = Arc::clone(&program);
        let router = Router::new().get("/who", move |_| Response::text(who.clone())).post(RESTART, move |_| {
            let started = if is_exec { Ok(()) } else { old.next().and_then(start) };
            if let Err(error) = started {
                return Response::text(format!("{error}\n")).with_status(Status::SERVICE_UNAVAILABLE);
            }
            let stop = stop.clone();
            Response::text("restarting\n").closing().on_sent(move || {
                stop.trigger(Cause::Request(RESTART.to_owned()));
            })
        });
        group.add("http", move |stop| server.run(router, stop));
        #[cfg(feature = "signals")]
        group.add("signals", move |stop| signals.run(stop));
        let outcome = group.run(allout::GRACE);
        if is_exec && outcome.cause().is_some_and(is_restart) {
            return Err(program.next()?.exec().into());
        }
        Ok(outcome.report())
    }

    fn is_restart(cause: &Cause) -> bool {
        matches!(cause, Cause::Request(what) if what == RESTART)
    }

    /// What it takes to start it once more.
    struct Program {
        path: PathBuf,
        arguments: Vec<String>,
        socket: Mutex<Option<Inherited>>,
    }

    impl Program {
        fn find() -> Result<Self, Box<dyn Error>> {
            // Now: once another file has taken its place, the system knows the old one's path no more.
            let path = std::env::current_exe()?;
            let arguments: Vec<_> = std::env::args().skip(1).collect();
            let socket = match Inherited::stdin() {
                Ok(socket) => socket,
                Err(_) => TcpListener::bind(arguments.get(1).map_or("127.0.0.1:8080", String::as_str))?.into(),
            };
            Ok(Self { path, arguments, socket: Mutex::new(Some(socket)) })
        }

        fn socket(&self) -> MutexGuard<'_, Option<Inherited>> {
            self.socket.lock().unwrap_or_else(PoisonError::into_inner)
        }

        /// None if a stop has begun that is not for a restart.
        fn another_handle(&self) -> io::Result<Option<Inherited>> {
            self.socket().as_ref().map(Inherited::try_clone).transpose()
        }

        fn next(&self) -> io::Result<Command> {
            let socket = self.another_handle()?.ok_or_else(|| io::Error::other("stopping"))?;
            let mut next = Command::new(&self.path);
            next.args(&self.arguments).stdin(OwnedFd::from(socket));
            Ok(next)
        }
    }

    /// On standard output, for a predecessor: nobody else may read it, nor anything that is said there later.
    fn say_ready(place: &LocalAddress) {
        let _ = writeln!(io::stderr(), "listening on http://{place}");
        let mut stdout = io::stdout();
        let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
    }

    /// Returns once the successor is ready to serve.
    fn start(mut successor: Command) -> io::Result<()> {
        let mut child = successor.stdout(Stdio::piped()).spawn()?;
        let (sender, said) = mpsc::channel();
        let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("the successor has no standard output"))?;
        let reader = thread::Builder::new().name("ready".to_owned()).spawn(move || {
            let mut word = [0; READY.len()];
            let _ = sender.send(stdout.read_exact(&mut word).is_ok() && word == *READY);
        });
        if reader.is_ok() && said.recv_timeout(READY_TIMEOUT) == Ok(true) {
            return Ok(());
        }
        child.kill()?;
        child.wait()?;
        Err(io::Error::other("the successor was not ready; the old one serves on"))
    }
}
