//! Speed: every server at every workload, in alternating rounds.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use crate::Result;
use crate::clients::Client;
use crate::figures::{median, table, thousands};
use crate::process::Process;
use crate::servers::{self, Server};
use crate::workloads::{Company, IDLE, Route, SLEEPERS, Workload};
use crate::wrk::{Drive, Load};

/// After the idle connections have come, before anything is measured.
const SETTLE: Duration = Duration::from_millis(300);

/// What has been measured: by server and workload, a run for each round.
#[derive(Debug, Default)]
pub struct Speed {
    runs: HashMap<(&'static str, &'static str), Vec<Load>>,
    /// What a server broke at; it is not tried again.
    broken: HashMap<(&'static str, &'static str), String>,
}

/// A column of figures that is shown of each run.
type Figure = (&'static str, fn(&Load) -> f64, fn(f64) -> String);

const FIGURES: [Figure; 3] = [
    ("CPU per request, µs", |load| load.cpu_us, |us| if us < 10.0 { format!("{us:.2}") } else { format!("{us:.1}") }),
    ("requests a second", |load| load.per_second, thousands),
    ("99th percentile, ms", |load| load.p99_ms, |ms| format!("{ms:.2}")),
];

impl Speed {
    /// One round: every workload with every server, each server started anew. The order is another in each round.
    pub fn round(&mut self, number: usize, servers: &[Server], workloads: &[Workload], seconds: u32) -> Result<()> {
        for (at, workload) in workloads.iter().enumerate() {
            let able: Vec<&Server> = servers.iter().filter(|server| server.cannot(workload).is_none()).collect();
            for place in 0..able.len() {
                let server = able[(place + number) % able.len()];
                eprint!("\r\x1b[Kround {number}, workload {} of {}: {}", at + 1, workloads.len(), workload.about);
                eprint!(", {} ({} of {})", server.name, place + 1, able.len());
                let case = (server.name, workload.name);
                if self.broken.contains_key(&case) {
                    continue;
                }
                match run(server, workload, seconds) {
                    Ok(load) => self.runs.entry(case).or_default().push(load),
                    Err(error) if server.is_ours() || server.is_limit() => return Err(error),
                    Err(error) => _ = self.broken.insert(case, error.to_string()),
                }
            }
        }
        eprintln!();
        Ok(())
    }

    /// The median over the rounds.
    pub fn median(&self, server: &str, workload: &str, figure: fn(&Load) -> f64) -> Option<f64> {
        let is_asked = |case: &&(&'static str, &'static str)| **case == (server, workload);
        if self.broken.keys().any(|case| is_asked(&case)) {
            return None;
        }
        let runs = self.runs.get(self.runs.keys().find(is_asked)?)?;
        Some(median(runs.iter().map(figure)))
    }

    /// Tables in Markdown, one for each figure: servers down, workloads across; and what went wrong.
    pub fn tables(&self, servers: &[Server], workloads: &[Workload]) -> String {
        let mut text = String::new();
        for (title, figure, shown) in FIGURES {
            let heads: Vec<&str> = [title].into_iter().chain(workloads.iter().map(|workload| workload.name)).collect();
            let row = |server: &Server| {
                let cell = |workload: &Workload| {
                    self.median(server.name, workload.name, figure).map_or_else(|| "–".to_owned(), shown)
                };
                [server.name.to_owned()].into_iter().chain(workloads.iter().map(cell)).collect()
            };
            text += &table(&heads, 1, &servers.iter().map(row).collect::<Vec<Vec<String>>>());
            text.push('\n');
        }
        for workload in workloads {
            text += &format!("- `{}`: {}\n", workload.name, workload.about);
        }
        for server in servers {
            for workload in workloads {
                if let Some(why) = server.cannot(workload) {
                    text += &format!("- {} is not measured at `{}`: {why}\n", server.name, workload.name);
                }
                if let Some(error) = self.broken.get(&(server.name, workload.name)) {
                    text += &format!("- {} broke at `{}`: {error}\n", server.name, workload.name);
                }
                let runs = self.runs.get(&(server.name, workload.name)).into_iter().flatten();
                let errors: u64 = runs.map(|load| load.errors).sum();
                if errors > 0 {
                    text += &format!("- {} at `{}`: {errors} errors\n", server.name, workload.name);
                }
            }
        }
        text
    }
}

fn run(server: &Server, workload: &Workload, seconds: u32) -> Result<Load> {
    let (process, _) = server.start(workload)?;
    let script = servers::script(workload)?;
    let drive = Drive { script, ..Drive::new(workload.route.path(), workload.connections, seconds) };
    let wrong = |error| format!("{} at `{}`: {error}", server.name, workload.name).into();
    match workload.company {
        Company::Nobody => drive.run(&process).map_err(wrong),
        Company::Idle => {
            let idle = idle(&process, workload)?;
            thread::sleep(SETTLE);
            let load = drive.run(&process).map_err(wrong);
            drop((process, idle));
            load
        }
        Company::Sleepers => {
            let mut sleepers = Drive::new(Route::Sleep.path(), SLEEPERS, seconds + 1).start(&process)?;
            thread::sleep(SETTLE);
            let load = drive.run(&process).map_err(wrong);
            sleepers.wait()?;
            load
        }
    }
}

/// Connections that have each had an answer, and rest.
pub fn idle(process: &Process, workload: &Workload) -> Result<Vec<Client>> {
    let request = workload.request(process.address);
    let open = |number| {
        let ask = || {
            let mut client = Client::connect(process.address)?;
            client.send(&request)?;
            client.answer().map(|_| client)
        };
        ask().map_err(|error| format!("idle connection {number}: {error}").into())
    };
    (1..=IDLE).map(open).collect()
}
