//! `--torture`: children run the scenarios, so that one that aborts or hangs is a finding like any other.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use super::{Call, Failing, PANICS, Run, Scenario, run, scenarios};

/// How many scenarios a child runs.
const BATCH: usize = 40;

#[derive(Clone, Default)]
struct Options {
    scenario: Option<String>,
    call: Option<usize>,
    /// Of the scenarios of which there are many: one world of so many.
    every: usize,
    /// For a child: which scenarios.
    from: usize,
    count: Option<usize>,
}

/// Does what the command line says behind `--torture`.
pub fn command(words: impl Iterator<Item = String>) -> ExitCode {
    let options = match options(words) {
        Ok(options) => options,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    match options.count {
        Some(count) => child(&options, count),
        None => all(&options),
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { every: 1, ..Options::default() };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        let number = |text: String| text.parse().map_err(|_| format!("`{text}` is no number"));
        match word.as_str() {
            "--scenario" => options.scenario = Some(value()?),
            "--call" => options.call = Some(number(value()?)?),
            "--every" => options.every = number(value()?)?.max(1),
            "--from" => options.from = number(value()?)?,
            "--child" => options.count = Some(number(value()?)?),
            _ => return Err("usage: sim --torture [--scenario NAME] [--call K] [--every N]".to_owned()),
        }
    }
    Ok(options)
}

// ---- A child -------------------------------------------------------------------------------------------------------

fn child(options: &Options, count: usize) -> ExitCode {
    std::panic::set_hook(Box::new(|info| PANICS.with(|panics| panics.borrow_mut().push(info.to_string()))));
    let mut out = std::io::stdout().lock();
    for (index, scenario) in scenarios().into_iter().enumerate().skip(options.from).take(count) {
        let is_left = torture(options, index, &Arc::new(scenario), &mut out);
        let _ = writeln!(out, "DONE {index}");
        if is_left {
            // What is stuck keeps what it has, for ever.
            break;
        }
    }
    ExitCode::SUCCESS
}

/// A scenario as it is, and with each call failing. True if a world was left in the middle.
fn torture(options: &Options, index: usize, scenario: &Arc<Scenario>, out: &mut impl Write) -> bool {
    let mut begin = |text: String| {
        let _ = writeln!(out, "BEGIN {index} {text}");
        let _ = out.flush();
    };
    begin("as it is".to_owned());
    let before = run(scenario, None, None, false);
    let mut worlds = vec![(None, before.broken.is_empty())];
    let mut is_left = before.is_left;
    let mut number = index;
    // Where all is of one byte no call fails: there are too many.
    let calls = if scenario.is_bytewise || !before.broken.is_empty() { &[][..] } else { &before.calls[..] };
    for (at, call) in calls.iter().enumerate() {
        for way in 0..call.ways().len() {
            number += 1;
            let is_left_out = scenario.is_one_of_many() && number % options.every != 0;
            if options.call.is_some_and(|call| call != at) || is_left_out || is_left {
                continue;
            }
            begin(format!("call {at}, {call:?}: {:?}", call.ways()[way]));
            let failing = Failing { call: at, way };
            let now = run(scenario, Some(failing), Some(&before.report), false);
            is_left |= now.is_left;
            worlds.push((Some(failing), now.broken.is_empty()));
        }
    }
    for (failing, is_well) in &worlds {
        let kind = failing.map_or("as they are", |failing| kind(before.calls[failing.call]));
        let _ = writeln!(out, "WORLD {kind}");
        if !is_well && !is_left {
            let again = run(scenario, *failing, failing.map(|_| &before.report), true);
            show(index, scenario, &before.calls, *failing, &again, out);
        }
    }
    is_left
}

/// What was wrong with a world, with its trace.
fn show(index: usize, scenario: &Scenario, calls: &[Call], failing: Option<Failing>, run: &Run, out: &mut impl Write) {
    let what = failing.map_or("as it is".to_owned(), |Failing { call, way }| {
        format!("call {call}, {:?}: {:?}", calls[call], calls[call].ways()[way])
    });
    let _ = writeln!(out, "BROKEN {index} {}: {what}", scenario.name);
    for line in run.broken.iter().flat_map(|text| text.lines()) {
        let _ = writeln!(out, "WRONG {line}");
    }
    for line in &run.trace {
        let _ = writeln!(out, "TRACE {line}");
    }
}

fn kind(call: Call) -> &'static str {
    match call {
        Call::NewPoller | Call::TakeOver(_) | Call::ProveRoom(_) => "pollers made, listeners taken over",
        Call::Accept(_) => "accept",
        Call::Refuse(_) | Call::Handshakes(_) => "newcomers refused, handshakes looked for",
        Call::Register(_) | Call::RegisterListener(_) | Call::AwaitRoom(_) => "epoll_ctl",
        Call::Wait => "epoll_wait",
        Call::Read(_) => "read",
        Call::Write(_) => "write",
        Call::WaitUpTo(_) | Call::NeverWait(_) => "options of sockets",
        Call::TakeError(_) | Call::Path(_) => "questions about sockets",
        Call::Spawn(_) => "threads started",
    }
}

// ---- The parent ----------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Sum {
    scenarios: usize,
    worlds: BTreeMap<String, usize>,
    failed: usize,
    /// The first is shown whole, of the others the first line.
    shown: Vec<String>,
}

fn all(options: &Options) -> ExitCode {
    let began = std::time::Instant::now();
    let names: Vec<String> = scenarios().into_iter().map(|scenario| scenario.name).collect();
    let chosen: Vec<usize> = match &options.scenario {
        Some(name) => (0..names.len()).filter(|index| names[*index].contains(name.as_str())).collect(),
        None => (0..names.len()).collect(),
    };
    if chosen.is_empty() {
        eprintln!("there is no such scenario; there are:\n{}", names.join("\n"));
        return ExitCode::from(2);
    }
    let mut sum = Sum::default();
    let mut rest = &chosen[..];
    while let Some(first) = rest.first() {
        let in_a_row = rest.iter().zip(*first..).take_while(|(index, wanted)| **index == *wanted).count().min(BATCH);
        let done = batch(options, *first, in_a_row, &names, &mut sum);
        rest = &rest[done.clamp(1, in_a_row)..];
        if chosen.len() > 1 {
            let (worlds, seconds) = (sum.worlds.values().sum::<usize>(), began.elapsed().as_secs_f64());
            eprintln!(
                "{} of {} scenarios, {worlds} worlds, {} failed, {seconds:.0} s",
                sum.scenarios,
                chosen.len(),
                sum.failed
            );
        }
    }
    sum.shown.iter().for_each(|line| println!("{line}"));
    sum.worlds.iter().for_each(|(kind, count)| println!("{count:>12} {kind}"));
    let worlds: usize = sum.worlds.values().sum();
    let calls = worlds - sum.worlds.get("as they are").copied().unwrap_or(0);
    println!("{} scenarios, {calls} calls failed, {worlds} worlds, {} failed", sum.scenarios, sum.failed);
    if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs scenarios in a child. Returns how many.
fn batch(options: &Options, from: usize, count: usize, names: &[String], sum: &mut Sum) -> usize {
    let me = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(me);
    command.args(["--torture", "--from", &from.to_string(), "--child", &count.to_string()]);
    command.args(["--every", &options.every.to_string()]);
    if let Some(call) = options.call {
        command.args(["--call", &call.to_string()]);
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("a child can be started");
    let out = child.stdout.take().expect("it is piped");
    let (mut done, mut begun, mut is_first) = (0, None, false);
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let (word, text) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "BEGIN" => begun = Some(text.to_owned()),
            "DONE" => {
                (begun, done) = (None, done + 1);
                sum.scenarios += 1;
            }
            "WORLD" => *sum.worlds.entry(text.to_owned()).or_default() += 1,
            "BROKEN" => {
                sum.failed += 1;
                is_first = sum.failed == 1;
                sum.shown.push(format!("\n{text}"));
            }
            "WRONG" => sum.shown.push(format!("  {text}")),
            "TRACE" if is_first => sum.shown.push(text.to_owned()),
            _ => {}
        }
    }
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    if let Some(text) = begun {
        sum.failed += 1;
        let (index, what) = text.split_once(' ').unwrap_or(("", &text));
        let name = index.parse().ok().and_then(|index: usize| names.get(index)).map_or("", String::as_str);
        sum.shown.push(format!("\n{index} {name}: {what}: the process ends: {status}"));
        done += 1;
    }
    done
}
