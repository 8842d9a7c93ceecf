//! The load generator `wrk`, and what it prints.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::process::Process;

/// What a server is driven with.
#[derive(Clone, Debug)]
pub struct Drive {
    pub path: &'static str,
    pub connections: u32,
    pub seconds: u32,
    /// In Lua: a body, fields, pipelining.
    pub script: Option<PathBuf>,
}

/// What one run of `wrk` came to.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub requests: u64,
    pub per_second: f64,
    /// The 99th percentile of the latency, in milliseconds.
    pub p99_ms: f64,
    /// Connections that failed, and answers other than 2xx.
    pub errors: u64,
    /// User and system time of the server for each request, in microseconds.
    pub cpu_us: f64,
}

impl Drive {
    /// Keep-alive connections that ask for one path.
    pub fn new(path: &'static str, connections: u32, seconds: u32) -> Self {
        Self { path, connections, seconds, script: None }
    }

    fn command(&self, server: &Process) -> Command {
        let mut command = Command::new("wrk");
        command.arg("-t1").arg(format!("-c{}", self.connections)).arg(format!("-d{}", self.seconds));
        command.args(["--latency", "--timeout", "10"]);
        if let Some(script) = &self.script {
            command.arg("-s").arg(script);
        }
        command.arg(format!("http://{}{}", server.address, self.path));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    /// Drives a server.
    pub fn run(&self, server: &Process) -> Result<Load> {
        let before = server.cpu()?;
        let output = self.command(server).output().map_err(|error| format!("cannot run wrk: {error}"))?;
        let cpu = server.cpu()? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        let word_after = |label: &str| text.split(label).nth(1).and_then(|rest| rest.split_whitespace().next());
        let word_before = |label: &str| text.split(label).next().and_then(|rest| rest.split_whitespace().last());
        let requests: u64 =
            word_before(" requests in").and_then(|word| word.parse().ok()).ok_or("wrk printed no count")?;
        let numbers = |line: &str| -> u64 {
            line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse::<u64>().ok()).sum()
        };
        let failed = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
        Ok(Load {
            requests,
            per_second: word_after("Requests/sec:").and_then(|word| word.parse().ok()).ok_or("wrk printed no rate")?,
            // After the heading: before it, another column may well end in "99%".
            p99_ms: word_of_percentile(&text).and_then(milliseconds).ok_or("wrk printed no percentile")?,
            // "Non-2xx or 3xx responses: N": the digits of its own text are taken off.
            errors: text.lines().filter(failed).map(|line| numbers(&line.replace("Non-2xx or 3xx", ""))).sum(),
            cpu_us: cpu.as_secs_f64() * 1e6 / requests.max(1) as f64,
        })
    }

    /// The same in the background; it ends by itself.
    pub fn start(&self, server: &Process) -> Result<Child> {
        Ok(self.command(server).stdout(Stdio::null()).spawn()?)
    }
}

fn word_of_percentile(text: &str) -> Option<&str> {
    text.split("Latency Distribution").nth(1)?.split("99%").nth(1)?.split_whitespace().next()
}

fn milliseconds(word: &str) -> Option<f64> {
    let (number, factor) = match word {
        _ if word.ends_with("us") => (word.trim_end_matches("us"), 0.001),
        _ if word.ends_with("ms") => (word.trim_end_matches("ms"), 1.0),
        _ => (word.trim_end_matches('s'), 1000.0),
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}
