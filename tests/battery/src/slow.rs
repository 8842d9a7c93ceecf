//! Slow heads, slow bodies, slow readers and silent connections, many of each at once. Whoever comes afresh meanwhile
//! is served, each slow one is cut in time, and memory comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::clients::{Ask, Fresh};
use crate::crowd::{Crowd, Deadlines, KINDS, Tally};
use crate::delays::Delays;
use crate::ground::Ground;
use crate::server::Server;
use crate::{HANG, Report, Result};

/// What may be left of each connection that there was at once, and in all: tables keep their size, threads the stack
/// that they have touched, and the allocator its pages.
const LEFT_KB_OF_EACH: u64 = 2;
const LEFT_KB: u64 = 2048;

pub(crate) fn run(ground: &Ground) -> Result<Report> {
    // The long form is of the command's own timeouts.
    let deadlines = Deadlines::new(ground.form([2, 3, 2, 4], [5, 30, 30, 75]));
    let (of_each, time) = ground.form((50, Duration::from_secs(4)), (1000, Duration::from_secs(240)));
    let look = ground.form(Duration::from_millis(50), Duration::from_millis(200));
    let command = ground.form(ground.timed(&deadlines.text()), ground.demo());
    let server = Server::start(&mut Ground::giving_back(command))?;
    for _ in 0..20 {
        Ask::Bytes(100).once(server.address)?;
    }
    let (base_kb, descriptors) = (server.resident_kb()?, server.descriptors()?);
    let (delays, is_over) = (Delays::default(), AtomicBool::new(false));
    let (mut tally, fresh, peak_kb) = thread::scope(|scope| -> Result<_> {
        scope.spawn(|| delays.note(server.pid));
        let fresh = scope.spawn(|| Fresh::come(server.address, Duration::from_millis(20), &is_over));
        let tally = crowd(&server, deadlines, &delays, of_each, time, look);
        is_over.store(true, Ordering::Relaxed);
        delays.end();
        let (tally, peak_kb) = tally?;
        Ok((tally, fresh.join().map_err(|_| "the fresh clients panicked")?, peak_kb))
    })?;
    server.expect_descriptors(descriptors)?;
    let left_kb = server.resident_kb()?.saturating_sub(base_kb);
    let may_be_left_kb = LEFT_KB + LEFT_KB_OF_EACH * 4 * of_each as u64;

    let mut faults = std::mem::take(&mut tally.faults);
    faults.extend(fresh.faults);
    if left_kb > may_be_left_kb {
        faults.push(format!("{left_kb} kB are left, of {peak_kb} kB, and {may_be_left_kb} kB may be"));
    }
    for kind in KINDS {
        let cut = tally.cut.get(&kind).map_or(0, |(cut, _)| *cut);
        if cut < of_each as u64 {
            faults.push(format!("{cut} of {of_each} {kind:?} were cut"));
        }
    }
    server.expect_clean_stop(&mut faults)?;
    let cut: Vec<_> = KINDS
        .iter()
        .filter_map(|kind| {
            tally.cut.get(kind).map(|(cut, late)| format!("{kind:?} {cut} (+{:.2} s)", late.as_secs_f64()))
        })
        .collect();
    let figures = format!(
        "cut, and last seen open after the deadline: {}; fresh {}, the slowest {:.2} s; memory {base_kb} kB, at most \
         {peak_kb} kB, left {left_kb} kB",
        cut.join(", "),
        fresh.served,
        fresh.slowest.as_secs_f64(),
    );
    let done = format!("{of_each} of each of {} kinds for {} s", KINDS.len(), time.as_secs());
    Ok(Report { done, figures, faults, ..Report::default() })
}

/// Keeps so many of each at it for the time, and then waits until all of them have been cut.
fn crowd(
    server: &Server,
    deadlines: Deadlines,
    delays: &Delays,
    of_each: usize,
    time: Duration,
    look: Duration,
) -> Result<(Tally, u64)> {
    let mut crowd = Crowd::new(server.address, deadlines, delays);
    let (until, mut peak_kb) = (Instant::now() + time, 0);
    loop {
        if Instant::now() < until {
            crowd.fill_up(of_each, of_each)?;
        } else if crowd.count() == 0 {
            return Ok((crowd.tally, peak_kb));
        } else if Instant::now() > until + deadlines.idle + HANG {
            crowd.tally.faults.push(format!("{} are never cut", crowd.count()));
            return Ok((crowd.tally, peak_kb));
        }
        crowd.look()?;
        peak_kb = peak_kb.max(server.resident_kb()?);
        thread::sleep(look);
    }
}
