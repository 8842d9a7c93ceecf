//! allout behind real proxies, and in front of a real browser.
//!
//! nginx and HAProxy stand in front of the release example `demo`; clients, whose HTTP is `hyper`'s, send requests of
//! mixed kinds, and every answer is checked whole. Then the server is restarted again and again under the same load.
//! If asked for: three replicas behind each proxy are restarted in turn, and a listening socket goes from one process to
//! the next, without a proxy, in three ways.
//! What is not installed is skipped, aloud, and the exit code tells.

mod ask;
mod browser;
mod client;
mod demo;
mod handover;
mod kinds;
mod load;
mod options;
mod process;
mod proxy;
mod restart;
mod rolling;
mod routes;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use demo::Demo;
use kinds::Catalogue;
use load::{Load, Tally, Until};
use options::Options;
use proxy::{Front, Kind, Proxy};
use restart::Report;
use routes::Routes;
use tempfile::TempDir;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let options = match options::read(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error} (try --help)");
            return ExitCode::from(2);
        }
    };
    let mut verdict = Verdict::default();
    match prepare().and_then(|folder| run(&options, folder.path(), &mut verdict)) {
        Err(error) => {
            println!("\nFAILED: {error}");
            ExitCode::from(1)
        }
        Ok(()) if verdict.wrong > 0 => {
            println!("\nWRONG: {} of what is told above", verdict.wrong);
            ExitCode::from(1)
        }
        Ok(()) if !verdict.skipped.is_empty() => {
            println!("\nnothing was wrong, but skipped: {}", verdict.skipped.join("; "));
            ExitCode::from(3)
        }
        Ok(()) => {
            println!("\nall of it was right");
            ExitCode::SUCCESS
        }
    }
}

/// What the exit code will tell.
#[derive(Debug, Default)]
struct Verdict {
    wrong: u64,
    skipped: Vec<String>,
}

impl Verdict {
    fn skip(&mut self, what: &str, why: &str) {
        println!("\nSKIPPED: {what}: {why}");
        self.skipped.push(what.to_owned());
    }
}

/// Makes a folder for all files. Whoever tells the program to leave finds neither it nor a process left behind.
fn prepare() -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("allout-proxies-").tempdir()?;
    let path = folder.path().to_owned();
    ctrlc::set_handler(move || {
        process::kill_all();
        let _ = std::fs::remove_dir_all(&path);
        std::process::exit(130);
    })?;
    Ok(folder)
}

fn run(options: &Options, folder: &Path, verdict: &mut Verdict) -> Result<()> {
    let demo_program = options.demo.clone().map_or_else(demo::build, Ok)?;
    let mut demo = Demo::start(&demo_program)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let routes = runtime.block_on(Routes::probe(demo.address))?;
    if routes.streams.is_empty() {
        verdict.skip("GET /stream/{n}", "demo has no such route");
    }
    if routes.count.is_none() {
        verdict.skip("POST /count", "demo has no such route");
    }
    let chromium = if options.browser { browser::program() } else { None };
    if let Some(chromium) = &chromium {
        let page = browser::page(&routes);
        browser::fetch(chromium, folder, demo.address, &page)?;
        println!("\nChromium shows {} of demo itself whole", page.0);
    } else if options.browser {
        verdict.skip("the browser", &format!("Debian's package {} is not installed", browser::PACKAGE));
    }
    run_handovers(options, &demo_program, folder, &routes, verdict)?;
    for kind in &options.proxies {
        let Some(program) = kind.program() else {
            let package = kind.package();
            verdict.skip(package, "this Debian package is not installed");
            continue;
        };
        run_rolling(
            *kind,
            &program,
            &rolling::Plan {
                demo: &demo_program,
                folder,
                time: Duration::from_secs(options.rolling),
                retries: options.retries,
                clients: options.clients,
                seed: options.seed,
                routes: &routes,
            },
            verdict,
        )?;
        if options.requests + options.restarts == 0 {
            continue;
        }
        let proxy = kind.start(program, folder, demo.address)?;
        for front in proxy.fronts.clone() {
            let load = |until| Load {
                place: front.address.into(),
                catalogue: Catalogue::new(&front, &routes, options.seed),
                clients: options.clients,
                seed: options.seed,
                until,
                rests: false,
                is_direct: false,
                right: Arc::default(),
            };
            verdict.wrong += check_answers(front.name, &proxy, load(Until::Count(options.requests)))?;
            if let Some(chromium) = &chromium {
                let page = browser::page(&routes);
                browser::fetch(chromium, folder, front.address, &page)?;
                println!("\nChromium shows {} through {} whole", page.0, front.name);
            }
            if options.restarts > 0 {
                let load = load(Until::Count(0));
                let report = restart::run(&mut demo, &proxy, options.restarts, load)?;
                print_restarts(&front, options.restarts, &report);
                verdict.wrong += report.faults(options.restarts);
            }
        }
        proxy.stop()?;
    }
    demo.stop()
}

/// Has a listening socket handed over, if that is asked for.
fn run_handovers(options: &Options, demo: &Path, folder: &Path, routes: &Routes, verdict: &mut Verdict) -> Result<()> {
    if options.handovers == 0 {
        return Ok(());
    }
    println!("\n## {} handovers of each way, under load\n", options.handovers);
    println!("| way, socket, handovers | requests | lost | refused | wrong | asked anew | slowest | s |");
    println!("|---|---:|---:|---:|---:|---:|---|---:|");
    let reports = handover::run(demo, folder, options.handovers, options.clients, routes)?;
    for handover::Report { name, tally, took } in &reports {
        let (lost, refused) = (tally.broken_off - tally.refused, tally.refused);
        let (sent, wrong, anew) = (tally.sent(), tally.wrong() - tally.broken_off, tally.renewals);
        let (slowest, took) = (slowest(tally), took.as_secs());
        println!("| {name} | {sent} | {lost} | {refused} | {wrong} | {anew} | {slowest} | {took} |");
        verdict.wrong += tally.wrong();
    }
    reports.iter().for_each(|report| describe(&report.tally));
    Ok(())
}

/// Has three replicas restarted in turn, if that is asked for.
fn run_rolling(kind: Kind, program: &Path, plan: &rolling::Plan<'_>, verdict: &mut Verdict) -> Result<()> {
    if plan.time.is_zero() {
        return Ok(());
    }
    let rolling::Report { options, restarts, tally, took } = plan.run(kind, program.to_owned())?;
    let tries = if plan.retries { "as its file has it" } else { "trying nothing again" };
    println!("\n## {}, {tries}: rolling restarts of three replicas, `allout {options}`\n", kind.package());
    println!("| restarts | requests | failed | slowest | s |\n|---:|---:|---:|---|---:|");
    let (sent, wrong, slowest) = (tally.sent(), tally.wrong(), slowest(&tally));
    println!("| {restarts} | {sent} | {wrong} | {slowest} | {} |\n", took.as_secs());
    describe(&tally);
    if plan.retries || kind == Kind::Haproxy {
        verdict.wrong += wrong;
    }
    Ok(())
}

/// How long the slowest took, by kind, of those that are meant to be quick, and of all.
fn slowest(tally: &Tally) -> String {
    let most = |kind: &str| tally.slowest.get(kind).copied().unwrap_or_default().as_secs_f64();
    let all = tally.slowest.values().max().copied().unwrap_or_default().as_secs_f64();
    format!("{:.2} s of /ping, {all:.2} s of all", most("GET /ping"))
}

/// Runs a load and prints what became of it. Returns how many answers were wrong, and what the proxy
/// had to say against the server.
fn check_answers(name: &str, proxy: &Proxy, load: Load) -> Result<u64> {
    let (before, log_start, start) = (proxy.counts()?, proxy.log_length(), Instant::now());
    let tally = load.run()?;
    let upstream = proxy.counts()?.upstream_since(before);
    println!("\n## {name}\n\n| kind | requests | wrong |\n|---|---:|---:|");
    for (kind, (count, wrong)) in &tally.kinds {
        println!("| {kind} | {count} | {wrong} |");
    }
    println!("| **all** | {} | {} |\n", tally.sent(), tally.wrong());
    println!("{:.1} s; {} connections from the clients,", start.elapsed().as_secs_f64(), tally.connects);
    println!("{upstream} to the server: {:.1} requests on each", tally.sent() as f64 / upstream.max(1) as f64);
    describe(&tally);
    let mut blamed = 0;
    for (complaint, count) in proxy.complaints(log_start) {
        println!("- {name} said {count} times: {complaint}");
        blamed += if proxy.blames_server(&complaint) { count } else { 0 };
    }
    Ok(tally.wrong() + blamed)
}

/// Prints what was seen of restarts.
fn print_restarts(front: &Front, restarts: u64, report: &Report) {
    let Report { tally, unsent, lost, wrong, complaints } = report;
    println!("\n## {}: {restarts} restarts of the server under load\n", front.name);
    println!("| requests | not sent, for want of a connection | sent and lost | wrong |\n|---:|---:|---:|---:|");
    println!("| {} | {unsent} | {lost} | {wrong} |\n", tally.sent());
    for (complaint, count) in complaints {
        println!("- {} said {count} times: {complaint}", front.name);
    }
    if lost + wrong > 0 {
        describe(tally);
    }
}

fn describe(tally: &Tally) {
    for problem in &tally.described {
        println!("- {problem}");
    }
}
