//! One process takes another's place on a listening socket, under load: nothing is lost and nobody is refused.
//!
//! Three ways. *Manager*: whoever has bound the socket starts a process, and the next when that has left; in turn with
//! the socket as its standard input and by `LISTEN_FDS`. *Successor* and *exec*: the example `restart`.
//!
//! Clients speak with the server itself: on connections that they keep, on one for each request, with downloads and
//! uploads that take a while. One whose connection has been quiet may find it closed without a word (RFC 9112 §9.6), and
//! asks anew; that is counted, and is no loss.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Place;
use crate::demo::expect_clean_end;
use crate::kinds::Catalogue;
use crate::load::{Load, Tally, Until};
use crate::process::Process;
use crate::restart::wait_for_more;
use crate::routes::Routes;
use crate::{HANG, Result};

/// Right answers between two handovers.
const ANSWERS_BETWEEN: u64 = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Manager,
    Successor,
    Exec,
}

/// The socket that goes from hand to hand.
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Socket {
    fn place(&self) -> Result<Place> {
        Ok(match self {
            Self::Tcp(socket) => Place::Tcp(socket.local_addr()?),
            Self::Unix(_, path) => Place::Unix(path.clone()),
        })
    }

    fn handed_over(&self) -> Result<Stdio> {
        Ok(Stdio::from(match self {
            Self::Tcp(socket) => OwnedFd::from(socket.try_clone()?),
            Self::Unix(socket, _) => OwnedFd::from(socket.try_clone()?),
        }))
    }
}

/// What was seen of some handovers.
pub(crate) struct Report {
    pub(crate) name: String,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

/// `count` of each way, half of them on a TCP socket and half on a Unix socket.
pub(crate) fn run(demo: &Path, folder: &Path, count: u64, clients: u64, routes: &Routes) -> Result<Vec<Report>> {
    let mut reports = Vec::new();
    for way in [Way::Manager, Way::Successor, Way::Exec] {
        let tcp = Socket::Tcp(TcpListener::bind("127.0.0.1:0")?);
        let path = folder.join(format!("{way:?}"));
        let unix = Socket::Unix(UnixListener::bind(&path)?, path);
        for (socket, name, count) in [(tcp, "TCP", count.div_ceil(2)), (unix, "Unix", count / 2)] {
            let start = Instant::now();
            let tally = Site { way, socket, demo: demo.to_owned() }.hand_over(count, clients, routes)?;
            reports.push(Report { name: format!("{way:?}, {name}, {count}"), tally, took: start.elapsed() });
        }
    }
    Ok(reports)
}

struct Site {
    way: Way,
    socket: Socket,
    demo: PathBuf,
}

impl Site {
    fn hand_over(&self, count: u64, clients: u64, routes: &Routes) -> Result<Tally> {
        let mut process = self.start(0)?;
        let (right, told) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let load = Load {
            place: self.socket.place()?,
            catalogue: Catalogue::short(routes, 1),
            clients,
            seed: 1,
            until: Until::Told(Arc::clone(&told)),
            rests: false,
            is_direct: true,
            right: Arc::clone(&right),
        };
        let load = thread::spawn(move || load.run());
        let handed_over = (1..=count).try_for_each(|number| {
            wait_for_more(&right, ANSWERS_BETWEEN)?;
            match self.way {
                Way::Manager => {
                    process.terminate()?;
                    expect_clean_end(&mut process)?;
                    process = self.start(number)?;
                }
                Way::Successor | Way::Exec => self.restart(&mut process, number)?,
            }
            Ok(())
        });
        // The last one is seen at work, too.
        let handed_over = handed_over.and_then(|()| wait_for_more(&right, ANSWERS_BETWEEN));
        told.store(true, Ordering::Relaxed);
        let tally = load.join().map_err(|_| "the load panicked")??;
        handed_over?;
        process.terminate()?;
        process.silence()?;
        // Of the command, each process was looked at. The example says what did not end well between cause and time.
        let is_well = |line: &String| !line.starts_with("all out: ") || line.matches("; ").count() == 1;
        let unwell = process.lines().into_iter().find(|line| self.way != Way::Manager && !is_well(line));
        match unwell {
            None => Ok(tally),
            Some(line) => Err(format!("not all ended well: {line}; {:?}", tally.described).into()),
        }
    }

    fn start(&self, number: u64) -> Result<Process> {
        let mut command = match self.way {
            Way::Manager if number % 2 == 0 => {
                let mut command = Command::new(&self.demo);
                command.args(["--listen", "stdin"]);
                command
            }
            Way::Manager => {
                let script = r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" 3<&0 </dev/null"#;
                let mut command = Command::new("sh");
                command.args(["-c", script]).arg(&self.demo);
                command
            }
            Way::Successor | Way::Exec => {
                let mut command = Command::new(self.demo.with_file_name("restart"));
                command.arg(if self.way == Way::Exec { "exec" } else { "successor" }).stdout(Stdio::null());
                command
            }
        };
        let process = Process::start_with(&mut command, self.socket.handed_over()?)?;
        match process.line_with("listening on ")? {
            Some(_) => Ok(process),
            None => Err(format!("it does not listen: {:?}", process.lines()).into()),
        }
    }

    /// Has the example restart itself, and waits until the new one serves.
    fn restart(&self, process: &mut Process, number: u64) -> Result<()> {
        let before = self.ask("GET /who")?;
        // Who asks may still meet the one before, which is about to leave.
        self.ask_until("POST /restart", |answer| answer != "a restart is under way\n", process)?;
        self.ask_until("GET /who", |answer| answer != before, process)?;
        // The first is our child; those that come after it are not.
        if self.way == Way::Successor && number == 1 && !process.end_within(HANG)?.success() {
            return Err(format!("the old one did not end well: {:?}", process.lines()).into());
        }
        Ok(())
    }

    fn ask_until(&self, request: &str, is_it: impl Fn(&str) -> bool, process: &Process) -> Result<()> {
        let start = Instant::now();
        while !is_it(&self.ask(request)?) {
            if start.elapsed() > HANG {
                return Err(format!("{request}: {:?}", process.lines()).into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// One request on a connection of its own, and the body of its answer.
    fn ask(&self, request: &str) -> Result<String> {
        let mut answer = String::new();
        match &self.socket {
            Socket::Tcp(socket) => exchange(TcpStream::connect(socket.local_addr()?)?, request, &mut answer)?,
            Socket::Unix(_, path) => exchange(UnixStream::connect(path)?, request, &mut answer)?,
        }
        let body = answer.split_once("\r\n\r\n").ok_or_else(|| format!("{request}: {answer:?}"))?.1;
        Ok(body.to_owned())
    }
}

fn exchange(mut stream: impl Read + Write, request: &str, answer: &mut String) -> Result<()> {
    write!(stream, "{request} HTTP/1.1\r\nHost: demo.test\r\nConnection: close\r\n\r\n")?;
    stream.read_to_string(answer)?;
    Ok(())
}
