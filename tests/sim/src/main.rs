//! See lib.rs. The seeds run in child processes, so that one that aborts or hangs is a finding like any other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use allout_sim::{Choice, faults_of, names_of, run};

/// How many seeds a child runs: what they leave behind goes with it.
const BATCH: u64 = 250;

struct Options {
    first: u64,
    seeds: u64,
    is_one: bool,
    is_child: bool,
    faults: u32,
    clients: usize,
    keep_going: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if_eq("--torture").is_some() {
        return allout_sim::torture::command(words);
    }
    let options = match options() {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    // Panics are a part of it. Those that are not caught end in a report.
    std::panic::set_hook(Box::new(|info| {
        if std::env::var_os("SIM_PANICS").is_some() {
            eprintln!("{info}");
        }
    }));
    match () {
        () if options.is_child => child(&options),
        () if options.is_one => one(&options),
        () => all(&options),
    }
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        first: 1,
        seeds: 1000,
        is_one: false,
        is_child: false,
        faults: u32::MAX,
        clients: usize::MAX,
        keep_going: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: String| text.parse().map_err(|_| format!("`{text}` is no number"));
        match word.as_str() {
            "--seeds" => options.seeds = number(value()?)?,
            "--from" => options.first = number(value()?)?,
            "--seed" => (options.first, options.is_one) = (number(value()?)?, true),
            "--faults" => options.faults = faults_of(&value()?)?,
            "--clients" => options.clients = number(value()?)? as usize,
            "--keep-going" => options.keep_going = true,
            "--child" => options.is_child = true,
            _ => return Err(
                "usage: sim [--seeds N] [--from S] [--seed S] [--faults all|none|NAME,…] [--clients N] [--keep-going]\n   \
                    or: sim --torture [--scenario NAME] [--call K] [--every N]"
                    .to_owned(),
            ),
        }
    }
    Ok(options)
}

/// One seed, with its trace.
fn one(options: &Options) -> ExitCode {
    let choice = Choice { seed: options.first, faults: options.faults, clients_max: options.clients };
    let result = run(choice, true);
    let mut out = std::io::stdout().lock();
    for line in &result.trace {
        let _ = writeln!(out, "{line}");
    }
    let _ = writeln!(out, "{}", result.plan);
    let _ = writeln!(
        out,
        "seed {}: {} requests, {} answered, {} steps, {:.3} s, {:?}",
        options.first, result.requests, result.answered, result.steps, result.seconds, result.tally
    );
    for text in &result.broken {
        let _ = writeln!(out, "BROKEN: {text}");
    }
    if result.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A batch of seeds: a line when each begins, and one with what came of it.
fn child(options: &Options) -> ExitCode {
    let mut out = std::io::stdout().lock();
    for seed in options.first..options.first + options.seeds {
        let _ = writeln!(out, "BEGIN {seed}");
        let _ = out.flush();
        let result = run(Choice { seed, faults: options.faults, clients_max: options.clients }, false);
        for (what, count) in &result.tally {
            let _ = writeln!(out, "TALLY {count} {what}");
        }
        let (faults, clients) = (result.faults, result.clients);
        let (requests, answered, steps, seconds) = (result.requests, result.answered, result.steps, result.seconds);
        let _ = writeln!(out, "END {requests} {answered} {steps} {seconds} {faults} {clients}");
        for text in &result.broken {
            let _ = writeln!(out, "BROKEN {}", text.replace('\n', " "));
        }
        if result.is_left {
            break;
        }
    }
    ExitCode::SUCCESS
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    requests: u64,
    answered: u64,
    steps: u64,
    seconds: f64,
    tally: BTreeMap<String, u64>,
    faults: BTreeMap<String, u64>,
    failed: Vec<(u64, Vec<String>)>,
}

fn all(options: &Options) -> ExitCode {
    let began = std::time::Instant::now();
    let mut sum = Sum::default();
    let (mut next, end) = (options.first, options.first + options.seeds);
    while next < end {
        next = batch(options, next, (end - next).min(BATCH), &mut sum);
        eprintln!(
            "{} seeds, {} requests, {} failed, {:.0} s",
            sum.seeds,
            sum.requests,
            sum.failed.len(),
            began.elapsed().as_secs_f64()
        );
        if !sum.failed.is_empty() && !options.keep_going {
            break;
        }
    }
    for (what, count) in sum.tally.iter().chain(&sum.faults) {
        println!("{count:>12} {what}");
    }
    for (seed, texts) in &sum.failed {
        println!("seed {seed}: {}", texts.first().map_or("", String::as_str));
    }
    if let Some((seed, texts)) = sum.failed.first() {
        shrink(options, *seed, texts);
    }
    let lost = sum.failed.iter().filter(|(_, texts)| texts.iter().any(|text| text.contains("LOST"))).count();
    println!(
        "{} seeds, {} requests, {} answered, {} steps, {:.2} virtual hours, {} failed, lost {lost}",
        sum.seeds,
        sum.requests,
        sum.answered,
        sum.steps,
        sum.seconds / 3600.0,
        sum.failed.len()
    );
    if sum.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a batch in a child. Returns the seed to go on with.
fn batch(options: &Options, first: u64, count: u64, sum: &mut Sum) -> u64 {
    let (mut current, mut is_begun) = (first, false);
    let status = lines_of(options, first, count, |line| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "BEGIN" => {
                (current, is_begun) = (rest.parse().unwrap_or(current), true);
                sum.seeds += 1;
            }
            "TALLY" => {
                let (count, what) = rest.split_once(' ').unwrap_or(("0", rest));
                *sum.tally.entry(what.to_owned()).or_default() += count.parse::<u64>().unwrap_or(0);
            }
            "END" => {
                is_begun = false;
                let mut words = rest.split(' ');
                let mut number = || words.next().and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0);
                sum.requests += number() as u64;
                sum.answered += number() as u64;
                sum.steps += number() as u64;
                sum.seconds += number();
                for name in names_of(number() as u32).split(',') {
                    *sum.faults.entry(format!("seeds with {name}")).or_default() += 1;
                }
            }
            "BROKEN" => match sum.failed.last_mut() {
                Some((seed, texts)) if *seed == current => texts.push(rest.to_owned()),
                _ => sum.failed.push((current, vec![rest.to_owned()])),
            },
            _ => {}
        }
    });
    if is_begun {
        sum.failed.push((current, vec![format!("the process ends: {status}")]));
    }
    current + 1
}

fn lines_of(options: &Options, first: u64, count: u64, mut take: impl FnMut(&str)) -> String {
    let me = std::env::current_exe().expect("this program has a path");
    let faults = names_of(options.faults);
    let mut command = Command::new(me);
    command.args(["--child", "--from", &first.to_string(), "--seeds", &count.to_string(), "--faults", &faults]);
    if options.clients != usize::MAX {
        command.args(["--clients", &options.clients.to_string()]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a child can be started");
    let out = child.stdout.take().expect("it is piped");
    BufReader::new(out).lines().map_while(Result::ok).for_each(|line| take(&line));
    child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// The same with fewer clients and fewer faults, as long as it fails.
fn shrink(options: &Options, seed: u64, texts: &[String]) {
    println!("\nseed {seed} fails:");
    texts.iter().for_each(|text| println!("  {text}"));
    let fails = |faults: u32, clients: usize| {
        let options = Options { faults, clients, ..*options };
        let mut is_broken = false;
        let mut has_ended = false;
        lines_of(&options, seed, 1, |line| {
            is_broken |= line.starts_with("BROKEN");
            has_ended |= line.starts_with("END");
        });
        is_broken || !has_ended
    };
    let (mut faults, mut clients) = (options.faults, options.clients.min(32));
    for bit in 0..32 {
        let fewer = faults & !(1 << bit);
        if fewer != faults && fails(fewer, clients) {
            faults = fewer;
        }
    }
    for fewer in 0..20 {
        if fewer < clients && fails(faults, fewer) {
            clients = fewer;
            break;
        }
    }
    let faults = names_of(faults);
    println!("its trace: --seed {seed} --faults {faults} --clients {clients}\n");
}
