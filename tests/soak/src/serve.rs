//! The server of one stop, and what stops it.

use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use allout::{Config, Group, LocalAddress, Method, Outcome, Request, Response, Router, Server, Status, Stop};
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::Result;
use crate::ask::{Ask, lines, noise};
use crate::client::{Client, HANG, Place};
use crate::plan::{Cause, LastWords, Plan, Sockets, When};

/// What the group has come to.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    pub(crate) cut_off: u64,
}

/// Binds, says where, and runs until the cause that the plan has; it comes when `go` does.
pub(crate) fn serve(
    plan: &Plan,
    folder: &Path,
    listening: impl FnOnce(Vec<Place>),
    go: Receiver<()>,
    stuck: &Arc<AtomicUsize>,
) -> Result<Ended> {
    let mut group = Group::new();
    group.lame_duck(plan.lame_duck);
    let stop = group.stop();
    let signals = allout::signals::install(&stop)?;
    let (server, breaker) = bind(plan, folder)?;
    let places: Vec<Place> = server.addresses().map(place).collect();
    let (stats, router) = (server.stats(), routes(plan, &stop, stuck));
    let (job, orders) = channel();
    let last_words = plan.last_words;
    let cause = Causing { cause: plan.cause, stop: stop.clone(), place: places[0].clone(), breaker, job };
    listening(places);

    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    group.add("job", move |stop| work(stop, &orders, last_words));
    let causing = match plan.when {
        When::Before => {
            let _ = go.recv();
            // What a member is to do waits for it, and so does what the server is to notice.
            cause.happen()?;
            None
        }
        When::During(after) => {
            let _ = go.recv();
            Some(thread::spawn(move || {
                thread::sleep(after);
                cause.happen().map_err(|error| error.to_string())
            }))
        }
        When::After => Some(thread::spawn(move || {
            let _ = go.recv();
            cause.happen().map_err(|error| error.to_string())
        })),
    };
    let outcome = group.run(plan.grace);
    if let Some(causing) = causing {
        causing.join().map_err(|_| "the cause panicked")??;
    }
    Ok(Ended { outcome, cut_off: stats.cut_off() })
}

fn place(bound: &LocalAddress) -> Place {
    match bound {
        LocalAddress::Tcp(address) => Place::Tcp(*address),
        LocalAddress::Unix(path) => Place::Unix(path.clone()),
        other => unreachable!("what is bound by this is not {other}"),
    }
}

/// The server, and what breaks its listener, if that is to be the cause.
fn bind(plan: &Plan, folder: &Path) -> Result<(Server, Option<TcpStream>)> {
    let config = Config {
        loops: plan.loops,
        handlers_max: plan.threads,
        idle_grace: plan.idle_grace,
        // Nobody is refused, however slow the machine is.
        head_timeout: HANG,
        body_timeout: HANG,
        write_timeout: HANG,
        queue_timeout: HANG,
        ..Config::default()
    };
    if plan.cause == Cause::Broken {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // `accept` of a socket that was shut down fails for good.
        let breaker = TcpStream::from(OwnedFd::from(listener.try_clone()?));
        return Ok((Server::from_listeners([listener], config)?, Some(breaker)));
    }
    let unix = format!("unix:{}", folder.join(format!("{:x}.sock", plan.seed)).display());
    let addresses = match plan.sockets {
        Sockets::Tcp => vec!["127.0.0.1:0".to_owned()],
        Sockets::Unix => vec![unix],
        Sockets::Both => vec!["127.0.0.1:0".to_owned(), unix],
    };
    Ok((Server::bind(&addresses, config)?, None))
}

/// The stop, and all by which it can come.
struct Causing {
    cause: Cause,
    stop: Stop,
    place: Place,
    breaker: Option<TcpStream>,
    job: Sender<LastWords>,
}

impl Causing {
    fn happen(self) -> Result<()> {
        match self.cause {
            Cause::Signal(signal) => {
                kill(Pid::this(), signal)?;
                // The handler has a thread of its own.
                let until = Instant::now() + HANG;
                while self.stop.cause().is_none() {
                    if Instant::now() > until {
                        return Err(format!("{signal} does not stop").into());
                    }
                    thread::sleep(Duration::from_micros(50));
                }
            }
            Cause::Asked(target) => {
                let ask = Ask::stop(target);
                let mut client = Client::connect(&self.place)?;
                client.send(&ask.bytes).1?;
                ask.check(&client.answer(false)?)?;
            }
            Cause::Triggered => _ = self.stop.trigger(allout::Cause::Request("the soak".to_owned())),
            Cause::Done => self.job.send(LastWords::Fine)?,
            Cause::Failed => self.job.send(LastWords::Failed)?,
            Cause::Panicked => self.job.send(LastWords::Panicked)?,
            Cause::Broken => self.breaker.ok_or("nothing breaks it")?.shutdown(Shutdown::Both)?,
        }
        Ok(())
    }
}

/// A member with nothing to do but to leave when and how it is told.
fn work(stop: &Stop, orders: &Receiver<LastWords>, last_words: LastWords) -> allout::MemberResult {
    let words = loop {
        match orders.recv_timeout(Duration::from_millis(1)) {
            Ok(words) => break words,
            Err(RecvTimeoutError::Timeout) if !stop.is_set() => {}
            Err(RecvTimeoutError::Disconnected) if !stop.is_set() => _ = stop.wait_timeout(HANG),
            Err(_) => break last_words,
        }
    };
    match words {
        LastWords::Fine => Ok(()),
        LastWords::Failed => Err("the job failed".into()),
        LastWords::Panicked => panic!("the job panicked"),
    }
}

/// Every answer bears the number of its request.
fn tagged(request: &Request<'_>, response: Response) -> Response {
    match request.headers().get("id") {
        Some(id) => response.with_field("Id", String::from_utf8_lossy(id).into_owned()),
        None => response,
    }
}

fn number(request: &Request<'_>) -> usize {
    request.param("n").and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn routes(plan: &Plan, stop: &Stop, stuck: &Arc<AtomicUsize>) -> Router {
    let (ready, inside, behind, end, stuck) =
        (stop.clone(), stop.clone(), stop.clone(), stop.clone(), Arc::clone(stuck));
    let grace = plan.grace;
    Router::new()
        .get("/ping", |request| tagged(request, Response::text("pong")))
        .at_once(Method::Get, "/once", |request| tagged(request, Response::text("at once")))
        .at_once(Method::Get, "/readyz", move |request| {
            let status = if ready.cause().is_some() { Status::SERVICE_UNAVAILABLE } else { Status::OK };
            tagged(request, Response::text("").with_status(status))
        })
        .get("/sleep/{n}", |request| {
            thread::sleep(Duration::from_millis(number(request) as u64));
            tagged(request, Response::text("slept"))
        })
        .get("/spin", |request| {
            let until = Instant::now() + Duration::from_micros(300);
            while Instant::now() < until {}
            tagged(request, Response::text("spun"))
        })
        .get("/bytes/{n}", |request| {
            tagged(request, Response::bytes("application/octet-stream", noise(0, number(request))))
        })
        .get("/stream/{n}", |request| {
            let count = number(request);
            let stream = Response::stream("text/plain", move |out| {
                for line in lines(count).lines() {
                    writeln!(out, "{line}")?;
                    if count % 2 == 0 {
                        out.flush()?;
                        thread::sleep(Duration::from_micros(300));
                    }
                }
                Ok(())
            });
            tagged(request, stream)
        })
        .post("/echo", |request| tagged(request, Response::bytes("application/octet-stream", request.body().to_vec())))
        .stream(Method::Post, "/count", |request, body| {
            let (mut bytes, due) = (Vec::new(), noise(0, 1 << 20));
            let is_whole = body.read_to_end(&mut bytes).is_ok() && due.starts_with(&bytes);
            tagged(request, Response::text(if is_whole { bytes.len().to_string() } else { "other bytes".to_owned() }))
        })
        .get("/panic", |_| -> Response { panic!("asked to") })
        .get("/shutdown", move |request| {
            let behind = behind.clone();
            tagged(request, Response::text("stopping")).closing().on_sent(move || {
                behind.trigger(allout::Cause::Request("/shutdown".to_owned()));
            })
        })
        .get("/stop", move |request| {
            inside.trigger(allout::Cause::Request("/stop".to_owned()));
            thread::sleep(Duration::from_millis(5));
            tagged(request, Response::text("stopping"))
        })
        .get("/stuck", move |request| {
            stuck.fetch_add(1, Ordering::SeqCst);
            end.wait();
            thread::sleep(grace + Duration::from_millis(300));
            tagged(request, Response::text("unstuck"))
        })
}

/// The server as a process: told to go by a line on stdin, it says on stdout where it listens, and what it has cut off.
pub(crate) fn as_process(seed: u64, folder: &Path) -> Result<ExitCode> {
    let plan = Plan::new(seed);
    let (told, go) = channel();
    let stuck = Arc::new(AtomicUsize::new(0));
    let running = Arc::clone(&stuck);
    crate::stops::silence();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        let _ = told.send(());
    });
    let listening = |places: Vec<Place>| {
        places.iter().for_each(|place| println!("listening on {place}"));
        println!();
    };
    let ended = serve(&plan, folder, listening, go, &running)?;
    println!("cut off {}", ended.cut_off);
    println!("said {:?}", ended.outcome);
    println!("stuck {}", stuck.load(Ordering::SeqCst));
    Ok(ExitCode::from(ended.outcome.exit_code()))
}
