//! The server is restarted under load, behind a proxy: what the proxy's clients see of it.
//!
//! The next server takes the place of the last as soon as that has closed its listener. In between nobody listens, and
//! the proxy answers 502 or 503 for what it would have sent on a new connection: such requests were never sent to the
//! server. Those that it sent on a connection that it kept are another matter. Each of them is answered, unless it
//! crosses the close of a connection that has been quiet (RFC 9112 §9.6). The proxy tells how many it could not send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::demo::Demo;
use crate::load::{Load, Tally, Until};
use crate::proxy::Proxy;
use crate::{HANG, Result};

/// Right answers between two restarts.
const ANSWERS_BETWEEN: u64 = 500;

/// How long a line of the proxy's log is waited for.
const LOG_LAG_MAX: Duration = Duration::from_secs(2);

/// So many restarts may lose one request: more is no coincidence. What crosses a close does so within microseconds, in
/// the proxy.
const RESTARTS_PER_LOSS: u64 = 10;

/// What was seen of some restarts.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// Requests that the proxy could not send: it got no connection.
    pub(crate) unsent: u64,
    /// Requests that were sent, as far as the proxy tells, and not answered.
    pub(crate) lost: u64,
    /// Requests whose answer came and was not right.
    pub(crate) wrong: u64,
    /// What the proxy has said meanwhile, with counts.
    pub(crate) complaints: BTreeMap<String, u64>,
}

impl Report {
    /// What is wrong with it: answers that were, and losses that are not to be explained.
    pub(crate) fn faults(&self, restarts: u64) -> u64 {
        self.wrong + self.lost.saturating_sub(restarts.div_ceil(RESTARTS_PER_LOSS))
    }
}

/// Restarts the server so many times while the load runs.
pub(crate) fn run(demo: &mut Demo, proxy: &Proxy, restarts: u64, load: Load) -> Result<Report> {
    let (log_start, before) = (proxy.log_length(), proxy.counts()?);
    let (right, told) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let load = Load { until: Until::Told(Arc::clone(&told)), right: Arc::clone(&right), rests: true, ..load };
    let load = thread::spawn(move || load.run());
    let restarted = (0..restarts).try_for_each(|_| {
        wait_for_more(&right, ANSWERS_BETWEEN)?;
        demo.restart()
    });
    // The last server is seen at work, too.
    let restarted = restarted.and_then(|()| wait_for_more(&right, ANSWERS_BETWEEN));
    told.store(true, Ordering::Relaxed);
    let tally = load.join().map_err(|_| "the load panicked")??;
    restarted?;
    let unanswered = tally.unserved + tally.broken_off;
    let start = Instant::now();
    let unsent = loop {
        let unsent = proxy.counts()?.unsent_since(before);
        // A log may lag behind the answers.
        if unsent >= unanswered || start.elapsed() > LOG_LAG_MAX {
            break unsent;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let complaints = proxy.complaints(log_start);
    let lost = unanswered.saturating_sub(unsent);
    let wrong = tally.wrong() - unanswered;
    Ok(Report { tally, unsent, lost, wrong, complaints })
}

pub(crate) fn wait_for_more(right: &AtomicU64, count: u64) -> Result<()> {
    let (start, before) = (Instant::now(), right.load(Ordering::Relaxed));
    while right.load(Ordering::Relaxed) < before + count {
        if start.elapsed() > HANG {
            return Err("the load gets no answers".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
