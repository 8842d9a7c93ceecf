//! What there is to see of the running command: `/status`, as a page, as text and as events, and who is still here at
//! half the grace.
//!
//! ```text
//! serving ──cause──▶ lame duck ──told──▶ draining ──everybody has left──▶ over: the last line is known
//!    └──────────────── without a lame-duck time ─────▲
//! ```
//!
//! Each arrow wakes the streams of events; otherwise they send what there is to see at intervals. A stream ends
//!
//! - once it has sent the last line. Only the admin listener is still there by then;
//! - on the public listener, whose drain waits for it, once it is all that is left, or shortly before the deadline;
//! - once it has sent so much that a client who does not read might make the next write wait. The others come back.
//!
//! So no page holds up a stop, and none can keep a handler for long; [`PAGES_MAX`] bounds how many handlers they have.

mod markup;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use allout::{BodyWriter, Busy, Figures, Response, Stats, Status, Stop};

use crate::metrics;
use markup::Markup;

/// How many streams of events there may be.
const PAGES_MAX: usize = 4;
/// How often a stream sends what there is to see while nothing happens: before a stop, and in one.
const PACE: Duration = Duration::from_secs(1);
const DRAIN_PACE: Duration = Duration::from_millis(250);
/// How often a stream that a drain waits for looks whether it is the last.
const LAST_PACE: Duration = Duration::from_millis(20);
/// How long before the deadline it ends at the latest.
const BEFORE_DEADLINE: Duration = Duration::from_millis(200);
/// After how many bytes a stream ends: any system takes so many for a client that reads nothing. Before a stop, some
/// are left for it.
const STREAM_BYTES_MAX: usize = 48 * 1024;
const SERVING_BYTES_MAX: usize = 10 * 1024;
/// How many of those that are busy are named, and how long to wait for the event loops to tell of them.
const BUSY_MAX: usize = 10;
const BUSY_TIME: Duration = Duration::from_millis(100);
/// How many are named at half the grace, in one line.
const STILL_HERE_MAX: usize = 3;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Nothing but the page's own style and script, by their SHA-256, and its own events. A test holds them together.
const POLICY: &str = concat!(
    "default-src 'none'; style-src 'sha256-/1oCqFMckqvtW0G3pVcAgdMUdOfo/uvl5SMio2pgYko='; ",
    "script-src 'sha256-KQCFTQHW1dvUuRfvCIeu2thJ0zVQVLLYQwXot7oRmrY='; ",
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
);

/// How far the process has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    LameDuck,
    Draining,
    Over,
}

pub(crate) struct Overview {
    stats: Stats,
    stop: Stop,
    lame_duck: Duration,
    grace: Duration,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Each member's name, and whether it has left.
    members: Vec<(&'static str, bool)>,
    caused_at: Option<Instant>,
    last_line: Option<String>,
    /// How many streams of events there are.
    pages: usize,
    /// How often something has happened that is worth an event at once.
    changes: usize,
}

/// A member that has not left. Dropped when it leaves.
pub(crate) struct Here {
    overview: Arc<Overview>,
    number: usize,
}

/// A stream of events. Dropped when it ends.
struct Page {
    overview: Arc<Overview>,
    is_admin: bool,
}

impl Overview {
    pub(crate) fn new(stats: Stats, stop: &Stop, lame_duck: Duration, grace: Duration) -> Arc<Self> {
        let (stop, started) = (stop.clone(), Instant::now());
        let (state, changed) = (Mutex::default(), Condvar::new());
        let overview = Arc::new(Self { stats, stop, lame_duck, grace, started, state, changed });
        let (on_cause, on_stop) = (Arc::clone(&overview), Arc::clone(&overview));
        overview.stop.on_cause(move |_| on_cause.change(|state| state.caused_at = Some(Instant::now())));
        overview.stop.on_stop(move || on_stop.change(|_| {}));
        overview
    }

    /// Enters a member.
    pub(crate) fn enter(self: &Arc<Self>, name: &'static str) -> Here {
        let mut number = 0;
        self.change(|state| {
            number = state.members.len();
            state.members.push((name, false));
        });
        Here { overview: Arc::clone(self), number }
    }

    /// Everybody has left: the streams send this line, and end.
    pub(crate) fn end(&self, last_line: &str) {
        self.change(|state| state.last_line = Some(last_line.to_owned()));
    }

    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// One line: who is still here, of these members, at half the grace.
    pub(crate) fn still_here(&self, members: &[String]) -> String {
        let (figures, busy) = (self.stats.figures(), self.stats.busy(STILL_HERE_MAX, BUSY_TIME));
        let mut line = format!("still here: {}", members.join(", "));
        let connections = figures.connections.total();
        if connections > 0 {
            let _ = write!(line, "; {}", counted(connections, "connection"));
            busy.iter().for_each(|busy| _ = write!(line, "; {busy}"));
            if connections > busy.len() && !busy.is_empty() {
                let _ = write!(line, "; {} more", connections - busy.len());
            }
        }
        let _ = write!(line, "; {} s left", tenths(self.left().unwrap_or_default()));
        line
    }

    pub(crate) fn metrics(&self) -> Response {
        let left = if self.stop.is_set() { self.left() } else { None };
        Response::bytes(metrics::CONTENT_TYPE, metrics::text(&self.stats.figures(), left))
    }

    pub(crate) fn text(&self) -> Response {
        let mut out = Markup::new(false);
        self.write(&mut out);
        Response::text(out.into_text())
    }

    pub(crate) fn page(&self) -> Response {
        let mut out = Markup::new(true);
        out.html("<!doctype html><html lang=en><meta charset=utf-8><title>allout</title>");
        out.html("<meta name=viewport content='width=device-width'><link rel=icon href=data:,>");
        out.html("<noscript><meta http-equiv=refresh content=2></noscript><style>");
        out.html(STYLE);
        out.html("</style><div id=all>");
        self.write(&mut out);
        out.html("</div><script>");
        out.html(SCRIPT);
        out.html("</script>");
        Response::bytes("text/html; charset=utf-8", out.into_text())
            .with_field("Content-Security-Policy", POLICY)
            .with_field("X-Content-Type-Options", "nosniff")
            .with_field("Referrer-Policy", "no-referrer")
    }

    /// The events: each is what there is to see.
    pub(crate) fn events(self: &Arc<Self>, is_admin: bool) -> Response {
        let mut state = self.state();
        if state.pages >= PAGES_MAX {
            let response = Response::text("too many pages are open\n").with_field("Retry-After", "2");
            return response.with_status(Status::SERVICE_UNAVAILABLE);
        }
        state.pages += 1;
        drop(state);
        let page = Page { overview: Arc::clone(self), is_admin };
        Response::stream("text/event-stream", move |out| page.write(out)).with_field("X-Accel-Buffering", "no")
    }

    /// How long is left: of the lame-duck time, or until the deadline. `None` before the stop.
    fn left(&self) -> Option<Duration> {
        self.stop.cause()?;
        let end = match self.stop.deadline() {
            Some(deadline) => deadline,
            // Noted by a helper's thread, a moment after the cause.
            None => self.state().caused_at.unwrap_or_else(Instant::now) + self.lame_duck,
        };
        Some(end.saturating_duration_since(Instant::now()))
    }

    fn stage(&self) -> Stage {
        if self.state().last_line.is_some() {
            Stage::Over
        } else if self.stop.is_set() {
            Stage::Draining
        } else if self.stop.cause().is_some() {
            Stage::LameDuck
        } else {
            Stage::Serving
        }
    }

    /// True if no connection is left but those of pages.
    fn is_deserted(&self) -> bool {
        self.stats.figures().connections.total() <= self.state().pages
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.changes += 1;
        self.changed.notify_all();
    }

    // Nothing panics while this is locked.
    #[inline(never)]
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- What is written -------------------------------------------------------------------------------------------

    fn write(&self, out: &mut Markup) {
        let (stage, figures, busy) = (self.stage(), self.stats.figures(), self.stats.busy(BUSY_MAX, BUSY_TIME));
        let (class, title) = match stage {
            Stage::Serving => ("serving", "Serving"),
            Stage::LameDuck => ("lame", "Lame duck"),
            Stage::Draining => ("draining", "Draining"),
            Stage::Over if figures.cut_off == 0 => ("over", "All out"),
            Stage::Over => ("'over cut'", "All out"),
        };
        out.html("<main class=");
        out.html(class);
        out.html("><header><h1>allout</h1><p>");
        out.plain("allout ");
        out.text(concat!(env!("CARGO_PKG_VERSION"), ", up "));
        out.text(&age(self.started.elapsed()));
        out.html("</header><section class=hero><h2>");
        out.plain("\n\n");
        out.text(title);
        out.html("</h2>");
        self.write_stop(out, stage, &figures);
        out.html("</section>");
        if !busy.is_empty() {
            write_busy(out, stage, &busy);
        }
        write_rates(out, &figures);
        write_tables(out, &figures);
        out.table("Members", "");
        for (name, has_left) in &self.state().members {
            out.row(name, if *has_left { &"has left" } else { &"runs" });
        }
        out.end_table();
        out.html("</main>");
    }

    fn write_stop(&self, out: &mut Markup, stage: Stage, figures: &Figures) {
        if matches!(stage, Stage::LameDuck | Stage::Draining) {
            let left = self.left().unwrap_or_default();
            let whole = if stage == Stage::Draining { self.grace } else { self.lame_duck };
            let (left_ms, whole_ms) = (millis(left), millis(whole).max(1));
            out.html(&format!("<p class=left data-left={left_ms} data-of={whole_ms}><b>"));
            out.plain(", ");
            out.text(&tenths(left));
            out.html("</b><small>");
            out.plain(" ");
            out.text("s left");
            out.html("</small></p><svg viewBox='0 0 100 4' preserveAspectRatio=none><rect width=100 height=4 />");
            out.html(&format!("<rect width={} height=4 /></svg>", left_ms * 100 / whole_ms));
        }
        out.html("<p>");
        out.plain("\n");
        if let Some(line) = &self.state().last_line {
            return out.text(line);
        }
        let (connections, handlers) = (figures.connections.total(), figures.handlers);
        if let Some(cause) = self.stop.cause() {
            out.text(&format!("stopping: {cause}; "));
            if stage == Stage::Draining {
                out.text(&format!("{} finished since; still here: ", figures.drained));
            }
        }
        out.text(&format!("{}, {}", counted(connections, "connection"), counted(handlers, "running handler")));
        if figures.connections.waiting > 0 {
            out.text(&format!(", {}", counted(figures.connections.waiting, "waiting request")));
        }
        out.plain("\n");
    }
}

/// Totals; the page's script draws how fast they grow.
fn write_rates(out: &mut Markup, figures: &Figures) {
    let answers = figures.answers.iter().sum::<u64>();
    for (name, total) in [("requests", answers), ("connections", figures.accepted), ("bytes sent", figures.bytes_out)] {
        out.html(&format!("<figure data-n={total}><b>{total}</b><span>{name}</span>"));
        out.html("<svg viewBox='0 0 120 32' preserveAspectRatio=none>");
        out.html("<polyline points=''/></svg></figure>");
    }
}

fn write_busy(out: &mut Markup, stage: Stage, busy: &[Busy]) {
    out.table(if stage == Stage::Serving { "Busy for longest" } else { "Still here" }, "wide");
    for Busy { peer, work, method, path, age, client_has_gone, .. } in busy {
        let gone = if *client_has_gone { ", which has gone" } else { "" };
        let value = format!("{peer}{gone}, {work} for {} s", tenths(*age));
        match method {
            Some(method) => out.row(&format_args!("{method} {path}"), &value),
            None => out.row(&"a client", &value),
        }
    }
    out.end_table();
}

fn write_tables(out: &mut Markup, figures: &Figures) {
    out.table("Connections", "");
    for (name, count) in metrics::states(&figures.connections) {
        out.row(&name, &count);
    }
    out.end_table();
    out.table("Answers", "");
    Figures::CLASSES.into_iter().zip(figures.answers).for_each(|(class, count)| out.row(&class, &count));
    for (name, count) in [("while draining", figures.drained), ("cut off", figures.cut_off)] {
        out.row(&name, &count);
    }
    out.end_table();
    out.table("Since the start", "");
    for (name, count) in [
        ("connections", figures.accepted),
        ("bytes in", figures.bytes_in),
        ("bytes out", figures.bytes_out),
        ("hand-offs", figures.hand_offs),
        ("panics", figures.panics),
        ("refused", figures.refused_for_connections + figures.refused_for_handlers + figures.refused_for_memory),
    ] {
        out.row(&name, &count);
    }
    out.end_table();
}

impl Page {
    fn write(&self, out: &mut BodyWriter<'_>) -> io::Result<()> {
        let overview = &*self.overview;
        let mut bytes = 0;
        out.write_all(b"retry: 250\n\n")?;
        loop {
            let (stage, changes) = (overview.stage(), overview.state().changes);
            let mut html = Markup::new(true);
            overview.write(&mut html);
            let event = format!("data: {}\n\n", html.into_text());
            out.write_all(event.as_bytes())?;
            out.flush()?;
            bytes += event.len();
            // Not before it has shown the drain.
            let is_over = stage == Stage::Over || stage == Stage::Draining && self.must_leave();
            let bytes_max = if stage == Stage::Serving { SERVING_BYTES_MAX } else { STREAM_BYTES_MAX };
            if is_over || bytes >= bytes_max {
                return Ok(());
            }
            self.wait(if stage == Stage::Serving { PACE } else { DRAIN_PACE }, changes);
        }
    }

    /// True if the drain would wait for this page alone, or cut it off.
    fn must_leave(&self) -> bool {
        let overview = &*self.overview;
        let is_late = || overview.left().is_some_and(|left| left < BEFORE_DEADLINE);
        !self.is_admin && overview.stop.is_set() && (overview.is_deserted() || is_late())
    }

    /// Waits until something has happened, or for as long as this.
    fn wait(&self, pace: Duration, changes: usize) {
        let overview = &*self.overview;
        let until = Instant::now() + pace;
        let mut state = overview.state();
        while state.changes == changes {
            let mut timeout = until.saturating_duration_since(Instant::now());
            if timeout.is_zero() {
                return;
            }
            if !self.is_admin && overview.stop.is_set() {
                timeout = timeout.min(LAST_PACE);
            }
            state = overview.changed.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0;
            if !self.is_admin && overview.stop.is_set() {
                drop(state);
                if self.must_leave() {
                    return;
                }
                state = overview.state();
            }
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.overview.state().pages -= 1;
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let number = self.number;
        self.overview.change(|state| state.members[number].1 = true);
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn millis(time: Duration) -> u64 {
    time.as_secs() * 1000 + u64::from(time.subsec_millis())
}

fn tenths(time: Duration) -> String {
    let time = time + Duration::from_millis(50);
    format!("{}.{}", time.as_secs(), time.subsec_millis() / 100)
}

fn age(time: Duration) -> String {
    let s = time.as_secs();
    match (s / 86_400, s / 3600 % 24, s / 60 % 60) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, min) => format!("{min} min {} s", s % 60),
        (0, h, min) => format!("{h} h {min} min"),
        (days, h, _) => format!("{days} d {h} h"),
    }
}
