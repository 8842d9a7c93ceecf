//! Requests from the first byte on: how they were cut makes no difference, and reading them is linear work.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::dice::Dice;
use crate::reader::{DEFAULT, Limits, Reader, TIGHT, read, read_whole};

/// Once in so many inputs one is stretched and timed.
const TIMED_ONCE_IN: usize = 16 * 1024;

pub fn check(data: &[u8]) {
    let mut dice = Dice::of(data);
    let limits = if dice.once_in(4) { TIGHT } else { DEFAULT };
    let cuts = dice.cuts(data.len());
    check_cuts(data, &cuts, limits, dice.once_in(2));
    if dice.once_in(TIMED_ONCE_IN) {
        check_linear(data, &mut dice);
    }
}

/// `is_put_down`: after every piece, as a connection is whose bytes come in packets.
#[track_caller]
pub(crate) fn check_cuts(data: &[u8], cuts: &[usize], limits: Limits, is_put_down: bool) {
    let whole = read_whole(data, limits);
    let cut = read(data, cuts, limits, || is_put_down);
    assert_eq!(cut.requests, whole.requests, "cut at {cuts:?}");
    assert_eq!(cut.end, whole.end, "cut at {cuts:?}");
}

/// The input with one stretch of it repeated to [`STRETCHED`] bytes, fed a byte at a time.
fn check_linear(data: &[u8], dice: &mut Dice) {
    let start = dice.below(data.len().max(1));
    let end = (start + 1 + dice.below(40)).min(data.len());
    let stretch = data.get(start..end).unwrap_or_default();
    if !stretch.is_empty() {
        assert_linear(&data[..start], stretch);
    }
}

/// Long enough that work which grows with the square takes half a second even at 16 bytes a nanosecond.
const STRETCHED: usize = 128 * 1024;
/// A byte takes some 30 ns when the code is instrumented.
const CPU_TIME_MAX: Duration = Duration::from_millis(250);

/// Fails if reading `stretch` behind `start`, again and again and a byte at a time, costs more than linear work. In
/// time of this thread on a processor, of which other processes take nothing.
#[track_caller]
pub(crate) fn assert_linear(start: &[u8], stretch: &[u8]) {
    let mut limits = DEFAULT;
    (limits.head.head_bytes, limits.head.target_bytes, limits.head.fields) = (usize::MAX, usize::MAX, usize::MAX);
    (limits.body.trailer_bytes, limits.body.trailers) = (STRETCHED * 2, usize::MAX);
    let mut reader = Reader::new(limits);
    reader.feed(start, false);
    let begun = cpu_time();
    for byte in stretch.iter().cycle().take(STRETCHED) {
        // Requests that have been read cost what they hold.
        reader.requests.clear();
        reader.feed(std::slice::from_ref(byte), false);
    }
    let taken = cpu_time() - begun;
    assert!(taken < CPU_TIME_MAX, "{taken:?} for {STRETCHED} bytes, one at a time");
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of this thread").into()
}
