//! Three replicas behind a balancer, restarted one after another under load: no request of a client's fails.
//!
//! The balancers run the very files of `tests/deploy`, in which this puts its own addresses, and the replicas have the
//! options that these files name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

use crate::Result;
use crate::ask::{Ask, Due};
use crate::client::Client;
use crate::demo::Demo;
use crate::kinds::Catalogue;
use crate::load::{Load, Tally, Until};
use crate::proxy::{Kind, deployed};
use crate::restart::wait_for_more;
use crate::routes::Routes;

/// Right answers between two restarts.
const ANSWERS_BETWEEN: u64 = 100;

/// What a balancer needs to see that a replica is there again.
const SETTLES: Duration = Duration::from_secs(2);

/// What was seen of it.
pub(crate) struct Report {
    pub(crate) options: String,
    pub(crate) restarts: usize,
    pub(crate) tally: Tally,
    pub(crate) took: Duration,
}

pub(crate) struct Plan<'a> {
    pub(crate) demo: &'a Path,
    pub(crate) folder: &'a Path,
    /// The last restart begins before this is over.
    pub(crate) time: Duration,
    /// The balancer may send a request to another replica where the first one cannot be reached, as its file has it.
    pub(crate) retries: bool,
    pub(crate) clients: u64,
    pub(crate) seed: u64,
    pub(crate) routes: &'a Routes,
}

impl Plan<'_> {
    pub(crate) fn run(&self, kind: Kind, program: PathBuf) -> Result<Report> {
        let options = deployed(kind).split_once("`allout ").and_then(|(_, rest)| rest.split_once('`'));
        let options = options.ok_or("the file does not say how the replicas are started")?.0.to_owned();
        let words: Vec<_> = options.split(' ').map(str::to_owned).collect();
        let start = || Demo::start_with(self.demo, &words);
        let mut replicas = [start()?, start()?, start()?];
        let proxy =
            kind.deploy(program, self.folder, replicas.each_ref().map(|replica| replica.address), self.retries)?;
        let front = proxy.fronts[0];
        // Else any client could stop a replica, or see who asks for what.
        let mut client = Client::new(front.address);
        for target in ["/shutdown", "/%73hutdown", "/shutdown?", "/metrics", "/status"] {
            let ask = Ask::new(Method::POST, target, Due::no_content());
            let answer =
                tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(client.exchange(&ask));
            if answer.as_ref().map_or(true, |answer| answer.status != StatusCode::FORBIDDEN) {
                return Err(format!("POST {target} is not refused: {answer:?}").into());
            }
            client.leave();
        }
        let (right, told) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let load = Load {
            place: front.address.into(),
            catalogue: Catalogue::new(&front, self.routes, self.seed),
            clients: self.clients,
            seed: self.seed,
            until: Until::Told(Arc::clone(&told)),
            rests: true,
            is_direct: false,
            right: Arc::clone(&right),
        };
        let (begun, load) = (Instant::now(), thread::spawn(move || load.run()));
        let mut restarts = 0;
        let mut restart = || {
            thread::sleep(SETTLES);
            wait_for_more(&right, ANSWERS_BETWEEN)?;
            replicas[restarts % 3].replace()?;
            restarts += 1;
            Ok(())
        };
        let mut restarted = restart();
        while restarted.is_ok() && begun.elapsed() < self.time {
            restarted = restart();
        }
        let restarted = restarted.and_then(|()| wait_for_more(&right, ANSWERS_BETWEEN));
        told.store(true, Ordering::Relaxed);
        let tally = load.join().map_err(|_| "the load panicked")??;
        restarted?;
        let report = Report { options, restarts, tally, took: begun.elapsed() };
        proxy.stop()?;
        replicas.into_iter().try_for_each(Demo::stop)?;
        Ok(report)
    }
}
