//! Many clients at once, and what became of their requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::Result;
use crate::client::{Client, NO_CONNECTION, Place, is_unserved};
use crate::kinds::Catalogue;

/// How many wrong answers are described.
const DESCRIBED_MAX: usize = 10;

/// The longest rest of a client, a little more than the server keeps a quiet connection while it drains.
const REST_MAX_MS: u64 = 300;

/// A load.
pub(crate) struct Load {
    pub(crate) place: Place,
    pub(crate) catalogue: Catalogue,
    pub(crate) clients: u64,
    pub(crate) seed: u64,
    pub(crate) until: Until,
    /// Every second client rests for a moment between its requests, so that connections fall quiet.
    pub(crate) rests: bool,
    /// It speaks with a server itself, without a proxy. Every third client needs a connection for each request.
    pub(crate) is_direct: bool,
    /// Right answers so far, for whoever watches.
    pub(crate) right: Arc<AtomicU64>,
}

/// When a load ends.
#[derive(Clone, Debug)]
pub(crate) enum Until {
    /// After so many requests, whose kinds and contents depend on the seed alone.
    Count(u64),
    /// When it is told to.
    Told(Arc<AtomicBool>),
}

/// What became of a load's requests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By kind: requests, and those whose answer was not right.
    pub(crate) kinds: BTreeMap<&'static str, (u64, u64)>,
    /// Of those that were not right: the proxy answered that it has no answer: 502, 503 or 504.
    pub(crate) unserved: u64,
    /// No whole answer came from the proxy.
    pub(crate) broken_off: u64,
    /// Nobody listened.
    pub(crate) refused: u64,
    /// Quiet connections that a draining server has closed, so that the client asked anew.
    pub(crate) renewals: u64,
    /// By kind, how long the slowest took.
    pub(crate) slowest: BTreeMap<&'static str, Duration>,
    /// The first few that were not right.
    pub(crate) described: Vec<String>,
    /// Connections that the clients needed.
    pub(crate) connects: u64,
}

impl Load {
    /// Runs it to its end.
    pub(crate) fn run(self) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let load = Arc::new(self);
        runtime.block_on(async {
            let clients = (0..load.clients).map(|number| tokio::spawn(Arc::clone(&load).client(number)));
            let clients: Vec<_> = clients.collect();
            let mut tally = Tally::default();
            for client in clients {
                tally.add(client.await?);
            }
            Ok(tally)
        })
    }

    async fn client(self: Arc<Self>, number: u64) -> Tally {
        let mut tally = Tally::default();
        let mut client = Client::new(self.place.clone());
        if self.is_direct {
            client = client.renewing();
        }
        let is_one_shot = self.is_direct && number % 3 == 0;
        let mut rng = Rng::with_seed(self.seed.wrapping_add(number));
        let mut sent = 0;
        while self.goes_on(number, sent) {
            sent += 1;
            if self.rests && number % 2 == 1 {
                tokio::time::sleep(Duration::from_millis(rng.u64(..REST_MAX_MS))).await;
            }
            let (kind, mut ask) = self.catalogue.draw(&mut rng);
            if is_one_shot {
                client.leave();
                ask = ask.with_header("connection", "close");
            }
            let (count, wrong) = tally.kinds.entry(kind).or_default();
            *count += 1;
            let start = Instant::now();
            let outcome = client.exchange(&ask).await;
            let slowest = tally.slowest.entry(kind).or_default();
            *slowest = (*slowest).max(start.elapsed());
            let problem = match &outcome {
                Ok(answer) => ask.due.check(answer).err(),
                Err(problem) => Some(problem.clone()),
            };
            let Some(problem) = problem else {
                self.right.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            *wrong += 1;
            match outcome {
                Ok(answer) if is_unserved(answer.status) => {
                    tally.unserved += 1;
                    // Where the server is restarted, the proxy's log says more of it.
                    if let Until::Told(_) = self.until {
                        continue;
                    }
                }
                Ok(_) => {}
                Err(problem) => {
                    tally.broken_off += 1;
                    tally.refused += u64::from(problem.starts_with(NO_CONNECTION));
                }
            }
            tally.described.push(format!("{kind}: {}: {problem}", ask.describe()));
            tally.described.truncate(DESCRIBED_MAX);
        }
        (tally.connects, tally.renewals) = (client.connects, client.renewals);
        tally
    }

    fn goes_on(&self, number: u64, sent: u64) -> bool {
        match &self.until {
            // The first few clients take one more where it does not come out even.
            Until::Count(count) => sent < count / self.clients + u64::from(number < count % self.clients),
            Until::Told(told) => !told.load(Ordering::Relaxed),
        }
    }
}

impl Tally {
    /// All requests.
    pub(crate) fn sent(&self) -> u64 {
        self.kinds.values().map(|(count, _)| count).sum()
    }

    /// Those whose answer was not right.
    pub(crate) fn wrong(&self) -> u64 {
        self.kinds.values().map(|(_, wrong)| wrong).sum()
    }

    fn add(&mut self, other: Self) {
        for (kind, (count, wrong)) in other.kinds {
            let sum = self.kinds.entry(kind).or_default();
            *sum = (sum.0 + count, sum.1 + wrong);
        }
        self.unserved += other.unserved;
        self.broken_off += other.broken_off;
        self.refused += other.refused;
        self.renewals += other.renewals;
        for (kind, slowest) in other.slowest {
            let most = self.slowest.entry(kind).or_default();
            *most = (*most).max(slowest);
        }
        self.described.extend(other.described);
        self.described.truncate(DESCRIBED_MAX);
        self.connects += other.connects;
    }
}
