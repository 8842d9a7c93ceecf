//! Whole connections, through the real event loop: however the bytes come and the answers go, the answers are the
//! same, well-formed, and one for each request that the parser has found. A stop that comes in the middle takes away no
//! answer to a request that was there before it.

use std::fmt::Write as _;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dice::Dice;
use crate::http::{BodyPlan, Handler, Progress, Reject, Request, Response, Status, Version};
use crate::reader::{DEFAULT, End, Seen, read_whole};
use crate::responses::{Answer, answers};
use crate::server::play::{Outcome, SMOOTH, Script, Site};

pub fn check(data: &[u8]) {
    let mut dice = Dice::of(data);
    let scripts = [script(data, &mut dice), script(data, &mut dice)];
    let stops_at = dice.once_in(4).then(|| dice.below(scripts[0].cuts.len() + 3));
    check_scripts(data, &scripts[..1 + dice.below(2)], stops_at);
}

fn script(data: &[u8], dice: &mut Dice) -> Script {
    let cuts = dice.cuts(data.len());
    Script {
        ends_at_once: dice.once_in(2),
        room: dice.once_in(3).then(|| 1 + dice.below(600)),
        slow_once_in: dice.below(4),
        is_swept: dice.once_in(3),
        breaks_at: dice.once_in(6).then(|| dice.below(cuts.len() + 4)),
        cuts,
    }
}

#[track_caller]
pub(crate) fn check_scripts(data: &[u8], scripts: &[Script], stops_at: Option<usize>) {
    let expected = Expected::of(data);
    let counts = Arc::new(Counts::default());
    let mut site = Site::new(Teller(Arc::clone(&counts)), {
        let counts = Arc::clone(&counts);
        move || {
            counts.rejects.fetch_add(1, Ordering::Relaxed);
        }
    });
    // The same loop and the same buffer for all, and for some at the same time: what one leaves behind, another finds.
    let smooth = &site.play(data, std::slice::from_ref(&SMOOTH), None)[0];
    expected.hold(smooth, &SMOOTH);
    // A handler that streams may be called for a body that never ends, or ends badly; and behind a last answer it is
    // not known whether a reject follows.
    let (wanted, refused) = (expected.requests.len(), usize::from(expected.refused.is_some()));
    assert!((wanted..=wanted + 1).contains(&counts.calls()), "{} calls for {wanted} requests", counts.calls());
    assert!(counts.rejects() <= refused, "{} rejects of {refused}", counts.rejects());

    for (script, outcome) in scripts.iter().zip(&site.play(data, scripts, stops_at)) {
        expected.hold(outcome, script);
    }
    let plays = 1 + scripts.len();
    assert!(counts.calls() <= (wanted + 1) * plays && counts.rejects() <= refused * plays, "called too often");
}

#[derive(Default)]
struct Counts {
    calls: AtomicUsize,
    rejects: AtomicUsize,
}

impl Counts {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn rejects(&self) -> usize {
        self.rejects.load(Ordering::Relaxed)
    }
}

// ---- The handler, and what is expected of it -----------------------------------------------------------------------

/// Tells everything that it knows of a request. Bodies of paths that begin with `/up` are streamed, and make no
/// difference.
struct Teller(Arc<Counts>);

impl Teller {
    fn answer(&self, request: &Request<'_>, body: &[u8]) -> Response {
        let told = tell(
            request.version() == Version::Http11,
            (request.raw_path(), request.query(), request.host()),
            request.headers().iter(),
            body,
        );
        let kind = Kind::of(request.raw_path());
        let response = Response::text(told + &" ".repeat(kind.padding()))
            .with_status(Status::from_code(kind.status()).expect("a final one"))
            .with_field("X-Method", request.method().name());
        if kind == Kind::Last { response.closing() } else { response }
    }
}

impl Handler for Teller {
    fn handle(&self, request: &Request<'_>) -> Response {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let mut body = Vec::new();
        // What comes of a body that breaks off is not sent.
        let _ = request.body_reader().read_to_end(&mut body);
        self.answer(request, &body)
    }

    fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
        if request.raw_path().starts_with("/up") { BodyPlan::Stream } else { BodyPlan::Hold }
    }
}

fn tell<'a>(
    is_1_1: bool,
    target: (&str, Option<&str>, Option<&str>),
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    body: &[u8],
) -> String {
    let mut told = format!("{is_1_1} {target:?}\n");
    for (name, value) in fields {
        let _ = writeln!(told, "{name}: {}", value.escape_ascii());
    }
    let _ = writeln!(told, "{}", body.escape_ascii());
    told
}

/// What a path is answered with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Bodiless(u16),
    /// More than one batch holds twice.
    Large,
    Last,
}

impl Kind {
    fn of(path: &str) -> Self {
        match path {
            "/gone" => Self::Bodiless(204),
            "/same" => Self::Bodiless(304),
            "/large" => Self::Large,
            "/last" => Self::Last,
            _ => Self::Plain,
        }
    }

    fn status(self) -> u16 {
        if let Self::Bodiless(status) = self { status } else { 200 }
    }

    fn padding(self) -> usize {
        if self == Self::Large { 40 * 1024 } else { 0 }
    }
}

/// What must come of a connection, by the parser's word.
struct Expected {
    requests: Vec<Seen>,
    /// The first whose handler asks for the connection to be closed: what has come behind it by then is answered.
    leaving: Option<usize>,
    /// The status of the reject behind them.
    refused: Option<u16>,
    /// Nothing behind the requests may be a body that is streamed.
    is_clear: bool,
    /// No body is too large to be streamed: then more of it is waited for.
    may_wait: bool,
}

impl Expected {
    fn of(data: &[u8]) -> Self {
        let mut read = read_whole(data, DEFAULT);
        let last = read.requests.iter().position(|seen| !seen.keeps_alive);
        if let Some(last) = last {
            read.requests.truncate(last + 1);
        }
        let leaving = read.requests.iter().position(|seen| Kind::of(&seen.head.path) == Kind::Last);
        let refused = match read.end {
            End::Refused(reject) if last.is_none() => Some(reject.status().code()),
            _ => None,
        };
        let is_clear = last.is_some() || matches!(read.end, End::Waits(Progress::Nothing | Progress::Head));
        let may_wait = read.end == End::Refused(Reject::BodyTooLarge);
        Self { requests: read.requests, leaving, refused, is_clear, may_wait }
    }

    #[track_caller]
    fn hold(&self, outcome: &Outcome, script: &Script) {
        let is_head = |number: usize, answer: &Answer| match answer.field("X-Method") {
            Some(method) => method == "HEAD",
            // A reject of HEAD: nothing follows it.
            None => number == self.requests.len() && is_bodiless_reject(&outcome.taken),
        };
        let (answers, rest) = answers(&outcome.taken, is_head);
        let most = self.requests.len() + usize::from(self.refused.is_some());
        let sent = outcome.sent_before_stop.unwrap_or(usize::MAX);
        let least = match self.leaving {
            _ if script.breaks_at.is_some() => 0,
            None if outcome.sent_before_stop.is_none() => most - usize::from(self.may_wait && self.refused.is_some()),
            leaving => {
                let owed = self.requests.iter().filter(|seen| seen.end <= sent).count();
                leaving.map_or(owed, |leaving| owed.min(leaving + 1))
            }
        };
        assert!((least..=most).contains(&answers.len()), "{} answers of {least} to {most}", answers.len());
        assert!(script.breaks_at.is_some() || rest.is_empty(), "half an answer: {:?}", rest.escape_ascii());
        for (number, (seen, answer)) in self.requests.iter().zip(&answers).enumerate() {
            let is_leaving = self.leaving.is_some_and(|leaving| leaving <= number);
            let may_be_last = is_leaving || outcome.sent_before_stop.is_some();
            let is_cut_short = may_be_last && number + 1 == answers.len() && answer.is_last();
            assert!(
                !is_leaving || !self.is_clear || number + 1 < most || is_cut_short,
                "a connection that is to close stays open"
            );
            hold_answer(seen, answer, is_cut_short);
        }
        if let Some(reject) = answers.get(self.requests.len()) {
            assert_eq!((Some(reject.status), reject.is_last()), (self.refused, true), "{reject:?}");
        }
    }
}

/// True if the last head is the end.
fn is_bodiless_reject(wire: &[u8]) -> bool {
    wire.ends_with(b"\r\n\r\n")
}

/// `is_cut_short`: it is the last because of a stop or a handler.
#[track_caller]
fn hold_answer(seen: &Seen, answer: &Answer, is_cut_short: bool) {
    let (head, kind) = (&seen.head, Kind::of(&seen.head.path));
    assert_eq!((answer.status, answer.field("x-method")), (kind.status(), Some(head.method)));
    let connection = match (seen.keeps_alive && !is_cut_short, head.is_1_1) {
        (false, _) => Some("close"),
        (true, false) => Some("keep-alive"),
        (true, true) => None,
    };
    assert_eq!(answer.field("connection"), connection, "{answer:?}");
    let fields = head.fields.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let target = (head.path.as_str(), head.query.as_deref(), head.host.as_deref());
    let told = tell(head.is_1_1, target, fields, &seen.body);
    if !matches!(kind, Kind::Bodiless(_)) {
        assert_eq!(answer.field("content-length"), Some((told.len() + kind.padding()).to_string().as_str()));
        if head.method != "HEAD" {
            let (body, padding) = answer.body.split_at_checked(told.len()).unwrap_or((&answer.body, &[]));
            assert_eq!(String::from_utf8_lossy(body), told);
            assert_eq!(padding.len(), kind.padding());
        }
    }
}
