//! The server is restarted under load, behind a proxy: what the proxy's clients see of it.
//!
//! The next server takes the place of the last as soon as that has closed its listener. In between nobody listens, and
//! the proxy answers 502 or 503 for what it would have sent on a new connection: such requests were never sent to the
//! server. Those that it sent on a connection that it kept are another matter. Each of them is answered, unless it
//! crosses the close of a connection that has been quiet (RFC 9112 §9.6); the proxy's log tells which it was.

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

/// What was seen of some restarts.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) tally: Tally,
    /// What the proxy has said meanwhile, with counts.
    pub(crate) complaints: BTreeMap<String, usize>,
}

/// Restarts the server so many times while the load runs.
pub(crate) fn run(demo: &mut Demo, proxy: &Proxy, restarts: u64, load: Load) -> Result<Report> {
    let log_start = proxy.log_length();
    let (right, told) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let load = Load { until: Until::Told(Arc::clone(&told)), right: Arc::clone(&right), ..load };
    let load = thread::spawn(move || load.run());
    let restarted = (0..restarts).try_for_each(|_| {
        wait_for_more(&right)?;
        demo.restart()
    });
    // The last server is seen at work, too.
    let restarted = restarted.and_then(|()| wait_for_more(&right));
    told.store(true, Ordering::Relaxed);
    let tally = load.join().map_err(|_| "the load panicked")??;
    restarted?;
    Ok(Report { tally, complaints: proxy.complaints(log_start) })
}

fn wait_for_more(right: &AtomicU64) -> Result<()> {
    let (start, before) = (Instant::now(), right.load(Ordering::Relaxed));
    while right.load(Ordering::Relaxed) < before + ANSWERS_BETWEEN {
        if start.elapsed() > HANG {
            return Err("the load gets no answers".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
