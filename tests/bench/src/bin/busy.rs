//! How long a newcomer waits at a busy server:
//!
//! ```text
//! cargo run --release --manifest-path tests/bench/Cargo.toml --bin busy [ROUNDS]
//! ```
//!
//! Each round starts a server of this program's own, has it kept busy in one way, and meanwhile comes again and again
//! on a new connection with one request for a route that is answered at once. The time is that from before the connect
//! to the answer. For each way, with one loop and with two: the median of all, the longest in the median round, and
//! the longest of all. The first row, with nobody else there, is the machine's own noise. Linux.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use allout::{Config, Group, Method, Request, Response, Router, Server, Status};
use allout_bench::clients::Client;
use allout_bench::figures::{Times, ms, table};
use allout_bench::process::Process;
use allout_bench::{HANG, Result};

const ROUNDS: usize = 5;
const GOAL: Duration = Duration::from_millis(50);
/// Between two newcomers.
const PAUSE: Duration = Duration::from_millis(2);

const BLOCKED: usize = 64;
const WAITING: usize = 2_000;
const FOR_ONE_PERMIT: usize = 2_500;
const BATCH_BYTES: usize = 64 * 1024;
const UPLOAD_BYTES: usize = 1_000_000;

/// What keeps the server busy.
#[derive(Clone, Copy)]
enum Company {
    Nobody,
    /// Handlers that block, and requests that wait for one of them to end.
    Blocked,
    /// One client's pipelined requests to a handler that computes for so many microseconds.
    Batch(u32),
    /// One client's uploads, one behind the other.
    Uploads,
    /// Requests on a connection each that wait for the only permit, and then get it one after the other.
    OnePermit,
}

const COMPANIES: [(Company, &str, &str); 8] = [
    (Company::Nobody, "nobody", "/livez"),
    (Company::Blocked, "64 blocked handlers, 2,000 waiting requests", "/livez"),
    (Company::Batch(100), "64 KiB of requests to a handler of 0.1 ms", "/ping"),
    (Company::Batch(400), "64 KiB of requests to a handler of 0.4 ms", "/ping"),
    (Company::Batch(800), "64 KiB of requests to a handler of 0.8 ms", "/ping"),
    (Company::Batch(1200), "64 KiB of requests to a handler of 1.2 ms", "/ping"),
    (Company::Uploads, "a flood of uploads of 1 MB", "/ping"),
    (Company::OnePermit, "2,500 requests that wait for one permit", "/ping"),
];

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let rounds = match arguments.next().as_deref() {
        Some("--listen") => return serve(arguments),
        Some(rounds) => rounds.parse().ok().filter(|rounds| *rounds > 0).ok_or("usage: busy [ROUNDS]")?,
        None => ROUNDS,
    };
    let program = std::env::current_exe()?;
    let mut rows = Vec::new();
    let mut is_missed = false;
    for loops in ["1", "2"] {
        for (company, name, path) in COMPANIES {
            eprintln!("{loops} loops: {name}");
            let rounds = (0..rounds).map(|_| round(&program, loops, company, path)).collect::<Result<Vec<_>>>()?;
            let all = Times::new(rounds.iter().flatten().copied().collect());
            let longest = Times::new(rounds.into_iter().map(|times| Times::new(times).max()).collect());
            let is_good = longest.median() < GOAL;
            is_missed |= !is_good;
            let goal = if is_good { "< 50 ms" } else { "< 50 ms: missed" };
            let times = [ms(all.median()), ms(longest.median()), ms(longest.max()), goal.to_owned()];
            rows.push([&[name.to_owned(), path.to_owned(), loops.to_owned()][..], &times].concat());
        }
    }
    println!("{rounds} rounds each, {} cores.\n", thread::available_parallelism()?);
    let heads = ["a newcomer beside", "asks for", "loops", "median", "longest of a round, median", "longest", "goal"];
    println!("{}", table(&heads, 2, &rows));
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What newcomers wait in one round.
fn round(program: &Path, loops: &str, company: Company, path: &str) -> Result<Vec<Duration>> {
    let is_one = matches!(company, Company::OnePermit);
    let threads = if is_one { "1".to_owned() } else { BLOCKED.to_string() };
    let server = Process::start_with(program, &["--loops", loops, "--threads", &threads])?;
    let address = server.address;
    let times = match company {
        Company::Nobody => newcomers(address, path, for_a_while(Duration::from_secs(1))),
        Company::Blocked => {
            let blocked = on_a_connection_each(address, BLOCKED, "/block")?;
            // Until all are, there is room for others.
            let mut witness = Client::connect(address)?;
            while witness.get("/all-blocked")?.status != 200 {
                thread::sleep(PAUSE);
            }
            let waiting = on_a_connection_each(address, WAITING, "/sleep/0")?;
            let times = newcomers(address, path, for_a_while(Duration::from_secs(2)));
            let is_answered = |client: &Client| !client.is_resting();
            let answered = blocked.iter().chain(&waiting).filter(|client| is_answered(client)).count();
            if answered > 0 { Err(format!("{answered} of those that wait were answered").into()) } else { times }
        }
        Company::Batch(us) => {
            let request = format!("GET /spin/{us} HTTP/1.1\r\nHost: bench\r\n\r\n");
            beside(address, path, move |client| {
                let count = BATCH_BYTES / request.len();
                client.send(&request.repeat(count))?;
                (0..count).try_for_each(|_| expect_200(client))
            })
        }
        Company::Uploads => {
            let head = format!("POST /length HTTP/1.1\r\nHost: bench\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
            let upload = head + &"x".repeat(UPLOAD_BYTES);
            let until = Instant::now() + Duration::from_secs(2);
            beside(address, path, move |client| {
                // Without a pause: the next ones are on their way while one is answered.
                client.send(&upload)?;
                while Instant::now() < until {
                    client.send(&upload)?;
                    expect_200(client)?;
                }
                expect_200(client)
            })
        }
        Company::OnePermit => {
            let mut holder = on_a_connection_each(address, 1, "/sleep/1500")?;
            let mut waiting = on_a_connection_each(address, FOR_ONE_PERMIT, "/spin/200")?;
            let is_over = Arc::new(AtomicBool::new(false));
            let over = Arc::clone(&is_over);
            let readers = thread::spawn(move || {
                let done = holder.iter_mut().chain(&mut waiting).try_for_each(expect_200);
                over.store(true, Ordering::Relaxed);
                done.map_err(|error| error.to_string())
            });
            let times = newcomers(address, path, || !is_over.load(Ordering::Relaxed));
            joined(readers)?;
            times
        }
    }?;
    if times.is_empty() { Err("nobody came meanwhile".into()) } else { Ok(times) }
}

/// Newcomers beside one client, for as long as it works.
fn beside(
    address: SocketAddr,
    path: &str,
    work: impl Fn(&mut Client) -> Result<()> + Send + 'static,
) -> Result<Vec<Duration>> {
    let mut client = Client::connect(address)?;
    let working = thread::spawn(move || work(&mut client).map_err(|error| error.to_string()));
    let times = newcomers(address, path, || !working.is_finished());
    joined(working)?;
    times
}

fn joined(thread: JoinHandle<Result<(), String>>) -> Result<()> {
    Ok(thread.join().map_err(|_| "a client panicked")??)
}

/// One newcomer after the other, as long as there is to be one: what each waits from the connect to its answer.
fn newcomers(address: SocketAddr, path: &str, mut goes_on: impl FnMut() -> bool) -> Result<Vec<Duration>> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    let mut times = Vec::new();
    while goes_on() {
        let came = Instant::now();
        let mut client = Client::connect(address)?;
        client.send(&request)?;
        expect_200(&mut client)?;
        times.push(came.elapsed());
        thread::sleep(PAUSE);
    }
    Ok(times)
}

fn for_a_while(time: Duration) -> impl FnMut() -> bool {
    let until = Instant::now() + time;
    move || Instant::now() < until
}

fn on_a_connection_each(address: SocketAddr, count: usize, path: &str) -> Result<Vec<Client>> {
    let ask = |_| {
        let mut client = Client::connect(address)?;
        client.ask(path)?;
        Ok(client)
    };
    (0..count).map(ask).collect()
}

fn expect_200(client: &mut Client) -> Result<()> {
    match client.answer()?.status {
        200 => Ok(()),
        status => Err(format!("answered {status}").into()),
    }
}

/// The server: `--listen ADDRESS --loops N --threads N`.
fn serve(mut arguments: impl Iterator<Item = String>) -> Result<ExitCode> {
    let address = arguments.next().ok_or("no address")?;
    let mut number = |option: &str| -> Result<usize> {
        match (arguments.next(), arguments.next()) {
            (Some(given), Some(number)) if given == option => Ok(number.parse()?),
            given => Err(format!("{option} is wanted, not {given:?}").into()),
        }
    };
    let config = Config {
        loops: number("--loops")?,
        handlers_max: number("--threads")?,
        queue_timeout: HANG,
        ..Config::default()
    };
    let server = Server::bind(address, config)?.on_listening(|place| eprintln!("listening on http://{place}"));
    let param = |request: &Request<'_>| request.param("n").and_then(|n| n.parse().ok()).unwrap_or(0);
    let router = Router::new()
        .at_once(Method::Get, "/livez", |_| Response::text("live\n"))
        .at_once(Method::Get, "/ping", |_| Response::text("pong"))
        .get("/sleep/{n}", move |request| {
            thread::sleep(Duration::from_millis(param(request)));
            Response::text("slept")
        })
        .get("/spin/{n}", move |request| {
            let until = Instant::now() + Duration::from_micros(param(request));
            while Instant::now() < until {}
            Response::text("spun")
        })
        .post("/length", |request| Response::text(request.body().len().to_string()));
    let blocked = Arc::new(AtomicUsize::new(0));
    let all_blocked = Arc::clone(&blocked);
    let router = router
        .get("/block", move |_| -> Response {
            blocked.fetch_add(1, Ordering::Relaxed);
            loop {
                thread::park();
            }
        })
        .at_once(Method::Get, "/all-blocked", move |_| {
            let is_so = all_blocked.load(Ordering::Relaxed) == BLOCKED;
            Response::new(if is_so { Status::OK } else { Status::SERVICE_UNAVAILABLE })
        });
    let mut group = Group::new();
    group.add("http", move |stop| server.run(router, stop));
    Ok(ExitCode::from(group.run(allout::GRACE).exit_code()))
}
