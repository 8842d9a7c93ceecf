//! `restart`: a new version takes the old one's place, and no client is lost or refused. Unix.
//!
//! ```text
//! cargo run --release --example restart -- successor|exec [HOST:PORT]
//! curl http://127.0.0.1:8080/who
//! curl -N http://127.0.0.1:8080/stream/200 & # two seconds: a restart meets it
//! curl -X POST http://127.0.0.1:8080/restart
//! ```
//!
//! `successor`: the new process is started with the listening socket as its standard input, and says `ready` on its
//! standard output. Only then the old one stops. A successor that dies, says something else or is late is killed, and
//! the old one serves on. For programs that nobody watches by their process ID, and for systemd (`Type=notify`), which is
//! told the new one.
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
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::UnixDatagram;
    use std::os::unix::process::CommandExt;
    use std::path::PathBuf;
    use std::process::{Child, Command, ExitCode, Stdio, Termination};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
    use std::thread;
    use std::time::{Duration, SystemTime};

    use allout::{
        BodyReader, Cause, Config, Group, Inherited, LocalAddress, Method, Request, Response, Router, Server, Status,
        Stop,
    };

    /// How long a successor may take until it is ready.
    const READY_TIMEOUT: Duration = Duration::from_secs(3);
    const READY: &[u8; 6] = b"ready\n";
    /// How long a message may wait for room in the service manager's queue.
    const NOTIFY_TIMEOUT: Duration = Duration::from_millis(100);
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

        // One stop to leave by, and one to leave by for good: a signal that comes while the first is under way counts.
        let (mut group, last) = (Group::new(), Group::new());
        let (stop, for_good) = (group.stop(), last.stop());
        #[cfg(feature = "signals")]
        let signals = allout::signals::install(&for_good)?;
        let (held, also) = (Arc::clone(&program), stop.clone());
        for_good.on_cause(move |cause| {
            // Nobody comes after us: whoever connects now is refused, and not left in a queue.
            drop(held.socket().take());
            notify("STOPPING=1");
            also.trigger(cause.clone());
        });
        let end = for_good.clone();
        stop.on_cause(move |cause| {
            if !is_restart(cause) {
                end.trigger(cause.clone());
            }
        });
        let server = Server::from_listeners(program.another_handle()?, Config::default())?.on_listening(say_ready);
        let old = Arc::clone(&program);
        let restart = move |_: &Request<'_>| match old.restart(is_exec, &stop) {
            Ok(()) => Response::text("restarting\n"),
            Err(error) => Response::text(format!("{error}\n")).with_status(Status::SERVICE_UNAVAILABLE),
        };
        let router = Router::new()
            .get("/who", move |_| Response::text(who.clone()))
            .post(RESTART, restart)
            .get("/ping", |_| Response::text("pong"))
            .get("/stream/{n}", stream)
            .stream(Method::Post, "/count", count);
        group.add("http", move |stop| server.run(router, stop));
        #[cfg(feature = "signals")]
        group.add("signals", move |stop| signals.run(stop));
        let outcome = group.run(allout::GRACE);
        let _ = writeln!(io::stderr(), "all out: {outcome}");
        if is_exec && !for_good.is_set() {
            return Err(program.next()?.exec().into());
        }
        Ok(outcome.report())
    }

    /// A line every 10 ms.
    fn stream(request: &Request<'_>) -> Response {
        let lines = request.param("n").and_then(|n| n.parse::<u32>().ok()).unwrap_or_default();
        Response::stream("text/plain; charset=utf-8", move |out| {
            for line in 1..=lines {
                writeln!(out, "{line}")?;
                out.flush()?;
                thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        })
    }

    /// The bytes of a body, counted as they arrive.
    fn count(_: &Request<'_>, body: &mut BodyReader<'_>) -> Response {
        match io::copy(body, &mut io::sink()) {
            Ok(bytes) => Response::text(format!("{bytes}\n")),
            Err(error) => Response::text(format!("{error}\n")).with_status(Status::BAD_REQUEST),
        }
    }

    fn is_restart(cause: &Cause) -> bool {
        matches!(cause, Cause::Request(what) if what == RESTART)
    }

    /// What it takes to start it once more.
    struct Program {
        path: PathBuf,
        arguments: Vec<String>,
        socket: Mutex<Option<Inherited>>,
        is_restarting: AtomicBool,
    }

    impl Program {
        /// Now: once another file has taken its place, the system knows the old one's path no more. And as it was called,
        /// if by a path: that may be a link, which leads to another version by then.
        fn find() -> Result<Self, Box<dyn Error>> {
            let called = std::env::args_os().next().map(PathBuf::from);
            let called = called.filter(|path| path.as_os_str().as_bytes().contains(&b'/') && path.exists());
            let path = called.map_or_else(std::env::current_exe, std::path::absolute)?;
            let arguments: Vec<_> = std::env::args().skip(1).collect();
            let socket = match Inherited::stdin() {
                Ok(socket) => socket,
                Err(_) => TcpListener::bind(arguments.get(1).map_or("127.0.0.1:8080", String::as_str))?.into(),
            };
            Ok(Self { path, arguments, socket: Mutex::new(Some(socket)), is_restarting: AtomicBool::new(false) })
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
            // They are for this process.
            ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"]
                .iter()
                .for_each(|name| _ = next.env_remove(name));
            Ok(next)
        }

        /// One at a time, and the last: after it, this process leaves.
        fn restart(&self, is_exec: bool, stop: &Stop) -> io::Result<()> {
            if self.is_restarting.swap(true, Ordering::Relaxed) {
                return Err(io::Error::other("a restart is under way"));
            }
            let result = if is_exec { Ok(None) } else { self.next().and_then(start).map(Some) };
            let result = result.and_then(|successor| leave(successor, stop));
            if result.is_err() {
                self.is_restarting.store(false, Ordering::Relaxed);
            }
            result
        }
    }

    /// Stops this process, unless it stops for another reason: then nobody is to come after it.
    fn leave(successor: Option<Child>, stop: &Stop) -> io::Result<()> {
        let is_first = stop.trigger(Cause::Request(RESTART.to_owned()));
        match successor {
            Some(child) if is_first => notify(&format!("MAINPID={}", child.id())),
            Some(child) => kill(child)?,
            None => {}
        }
        if is_first { Ok(()) } else { Err(io::Error::other("stopping")) }
    }

    fn kill(mut child: Child) -> io::Result<()> {
        child.kill()?;
        child.wait().map(drop)
    }

    /// To the service manager, if there is one that listens: as sd_notify(3) has it.
    fn notify(message: &str) {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(NOTIFY_TIMEOUT))?;
            #[cfg(target_os = "linux")]
            if let [b'@', name @ ..] = name.as_bytes() {
                use std::os::linux::net::SocketAddrExt;
                use std::os::unix::net::SocketAddr;

                return socket.send_to_addr(message.as_bytes(), &SocketAddr::from_abstract_name(name)?);
            }
            socket.send_to(message.as_bytes(), &name)
        });
        if let Err(error) = sent {
            let _ = writeln!(io::stderr(), "cannot notify `{}`: {error}", name.to_string_lossy());
        }
    }

    /// On standard output, for a predecessor: nobody else may read it, nor anything that is said there later.
    fn say_ready(place: &LocalAddress) {
        let _ = writeln!(io::stderr(), "listening on http://{place}");
        notify("READY=1");
        let mut stdout = io::stdout();
        let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
    }

    /// Returns once the successor is ready to serve.
    fn start(mut successor: Command) -> io::Result<Child> {
        let mut child = successor.stdout(Stdio::piped()).spawn()?;
        let (sender, said) = mpsc::channel();
        let mut stdout = child.stdout.take().ok_or_else(|| io::Error::other("the successor has no standard output"))?;
        let reader = thread::Builder::new().name("ready".to_owned()).spawn(move || {
            let mut word = [0; READY.len()];
            let _ = sender.send(stdout.read_exact(&mut word).is_ok() && word == *READY);
        });
        if reader.is_ok() && said.recv_timeout(READY_TIMEOUT) == Ok(true) {
            return Ok(child);
        }
        kill(child)?;
        Err(io::Error::other("the successor was not ready; the old one serves on"))
    }
}
