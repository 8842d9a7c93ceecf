//! What must hold, whichever call has failed.
//!
//! A failure does harm as far as it must, and no further ([`Harm`]): many harm nobody, some cost one connection, few end
//! the server. Whoever is not harmed gets, byte for byte, what is owed to it. A connection that is lost ends at once. A
//! server that ends says why, once, with exit code 1, and counts what it owes. Whatever happens: the group ends in time,
//! no descriptor is open and no thread left, nobody panics, and nothing is told that would not be told without the
//! failure, beyond the failure itself, once.

use std::collections::BTreeMap;

use super::player::{End, Player};
use super::{Call, EAGAIN, EINVAL, EMFILE, ENOMEM, EPERM, Failed, Role, Scenario, Way};
use crate::group::{CutOff, Exit, Outcome};
use crate::net::DOWN;
use crate::server::Stats;
use crate::world::{MS, Nanos, SEC, World, with};

/// How long after its deadline a group may take.
const LATE_MAX: Nanos = 100 * MS;
/// Longer than anything but the deadline holds a stop.
const LONG: Nanos = 10 * SEC;
/// A failure that harms nobody holds nobody up for longer: it is less than the conductor's patience.
const SOON: Nanos = 3500 * MS;
/// How long a connection that is lost may stay.
const LOST_MAX: Nanos = 100 * MS;

/// How the group has ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended {
    code: u8,
    text: String,
    causes: Vec<String>,
    exits: Vec<(String, Exit)>,
    at: Nanos,
    deadline: Option<Nanos>,
    cut_off: usize,
    /// More may have been cut off.
    is_vague: bool,
    /// What the server's figures say that should be nothing by now.
    left: Vec<(&'static str, u64)>,
}

impl Ended {
    pub(super) fn of(outcome: &Outcome, at: Nanos, deadline: Option<std::time::Instant>, stats: &Stats) -> Self {
        let exits: Vec<_> = outcome.exits().map(|(name, exit, _)| (name.to_owned(), exit.clone())).collect();
        let (mut cut_off, mut is_vague) = (0, false);
        for (_, exit) in &exits {
            match exit {
                Exit::CutOff(CutOff { owed, details }) => {
                    cut_off += owed;
                    let words = ["whoever else", "whatever else", "unknown"];
                    is_vague |= details.iter().any(|detail| words.iter().any(|word| detail.contains(word)));
                }
                Exit::Failed(text) => {
                    let number = text.split("cut off ").nth(1).and_then(|rest| rest.split(' ').next());
                    cut_off += number.and_then(|number| number.parse().ok()).unwrap_or(0);
                }
                _ => {}
            }
        }
        let figures = stats.figures();
        let left = vec![
            ("connections", figures.connections.total() as u64),
            ("handlers", figures.handlers as u64),
            ("panics", figures.panics),
            ("refused for connections", figures.refused_for_connections),
            ("refused for handlers", figures.refused_for_handlers),
            ("refused for memory", figures.refused_for_memory),
        ];
        Self {
            code: outcome.exit_code(),
            text: outcome.to_string(),
            causes: outcome.cause().map(|cause| format!("{cause}")).into_iter().collect(),
            exits,
            at,
            deadline: deadline.map(|deadline| with(|world| world.nanos(deadline))),
            cut_off,
            is_vague,
            left,
        }
    }

    /// There was nothing to run.
    pub(super) fn without_server(error: &str) -> Self {
        Self { code: 1, text: error.to_owned(), causes: vec![error.to_owned()], ..Self::default() }
    }
}

/// What a world has told, to compare others with.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    notices: BTreeMap<String, usize>,
    answered: BTreeMap<String, usize>,
    ended_at: Nanos,
}

/// What a failure may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    Nothing,
    /// This connection.
    Connection(usize),
    /// Clients that are not accepted yet: they cannot be, or the system does not say that they are about to come.
    Newcomers,
    /// What a client of this connection sends while the server closes: it comes after the last look.
    LastWords(usize),
    /// The server: it ends, in order.
    Server,
}

impl Failed {
    fn harm(&self, scenario: &Scenario) -> Harm {
        match (self.call, self.way) {
            (Call::NewPoller | Call::TakeOver(_) | Call::ProveRoom(_), _) => Harm::Server,
            // Whoever has broken a listener of a server that stops has had its queue.
            (Call::Accept(_), Way::Error(EINVAL)) if self.was_stopping => Harm::Newcomers,
            (Call::Accept(_) | Call::Wait, Way::Error(EINVAL)) => Harm::Server,
            // A queue that is empty is the end.
            (Call::Accept(_), Way::Error(EAGAIN)) if self.was_stopping => Harm::Newcomers,
            (Call::RegisterListener(_), _) if !self.was_serving => Harm::Server,
            (Call::Spawn(Role::Member), _) => Harm::Server,
            (Call::Spawn(Role::Worker(number)), _) if number < scenario.config.loops => Harm::Server,
            (Call::Refuse(_) | Call::Handshakes(_), Way::Error(EPERM | ENOMEM)) => Harm::Newcomers,
            (Call::Read(number), Way::WouldBlock) if self.was_stopping => Harm::LastWords(number),
            (Call::Read(_) | Call::Write(_), Way::WouldBlock | Way::Short) => Harm::Nothing,
            (
                Call::Register(number)
                | Call::Read(number)
                | Call::Write(number)
                | Call::WaitUpTo(number)
                | Call::NeverWait(number)
                | Call::TakeError(number),
                _,
            ) => Harm::Connection(number),
            _ => Harm::Nothing,
        }
    }

    /// How a notice of this failure begins, if there is to be one, and whether there must be.
    fn notice(&self, scenario: &Scenario) -> Option<(&'static str, bool)> {
        match (self.call, self.way) {
            // A queue that was found to have an end needs no descriptor; and an idle connection may make room.
            (Call::Accept(_), Way::Error(EMFILE | ENOMEM)) => Some(("cannot accept on ", false)),
            // With several loops, one may have been given from one to the other: it was idle.
            (Call::Register(_), _) => Some(("cannot accept on ", scenario.config.loops == 1)),
            (Call::Spawn(Role::Worker(number)), _) if number >= scenario.config.loops => {
                Some(("cannot start a thread: ", true))
            }
            (Call::Accept(_), Way::Error(EINVAL)) => Some(("listener ", false)),
            _ => None,
        }
    }
}

impl World {
    pub(super) fn report(&self) -> Report {
        let mut report = Report::default();
        if let Some(torture) = &self.torture {
            for notice in &torture.notices {
                *report.notices.entry(notice.clone()).or_default() += 1;
            }
            for answered in &torture.answered {
                *report.answered.entry(answered.clone()).or_default() += 1;
            }
            report.ended_at = torture.ended.as_ref().map_or(0, |ended| ended.at);
        }
        report
    }

    /// What does not hold. `before`: what was told without a failure.
    pub(super) fn judge_torture(&self, report: &Report, before: Option<&Report>) -> Vec<String> {
        let Some(torture) = &self.torture else { return Vec::new() };
        let mut wrong = Vec::new();
        if self.is_dead {
            return wrong;
        }
        let stuck = self.stuck();
        let Some(ended) = torture.ended.as_ref().filter(|_| stuck.is_empty()) else {
            wrong.push(format!("nothing can happen any more: {}", stuck.join(", ")));
            return wrong;
        };
        if torture.failing.is_some() && torture.failed.is_none() {
            wrong.push("the call that was to fail was not made: the world is not the same".to_owned());
        }
        let harm = torture.failed.map_or(Harm::Nothing, |failed| failed.harm(&torture.scenario));
        self.judge_end(harm, ended, before, &mut wrong);
        for (number, player) in torture.players.iter().enumerate() {
            self.judge_player(harm, number, player, &mut wrong);
        }
        self.judge_lost(harm, &mut wrong);
        self.judge_rest(&mut wrong);
        if let Some(before) = before {
            self.judge_told(harm, ended, report, before, &mut wrong);
        }
        wrong
    }

    fn judge_end(&self, harm: Harm, ended: &Ended, before: Option<&Report>, wrong: &mut Vec<String>) {
        let Some(torture) = &self.torture else { return };
        let scenario = &torture.scenario;
        let text = &ended.text;
        if ended.deadline.is_some_and(|deadline| ended.at > deadline + LATE_MAX) {
            wrong.push(format!("the group ends late: {text}"));
        }
        let longest = if harm == Harm::Nothing { SOON } else { LONG };
        if let Some(before) = before.filter(|before| ended.at > before.ended_at + longest) {
            let (now, then) = (ended.at as f64 / 1e9, before.ended_at as f64 / 1e9);
            wrong.push(format!("the group ends at {now} s, and without the failure at {then} s"));
        }
        let code = if harm == Harm::Server { 1 } else { scenario.code };
        // A connection that is lost was not cut off.
        let is_let_off = harm != Harm::Nothing && harm != Harm::Server && ended.code == 0;
        if ended.code != code && !is_let_off {
            wrong.push(format!("exit code {} and not {code}: {text}", ended.code));
        }
        if harm == Harm::Nothing && ended.cut_off != scenario.cut_off {
            wrong.push(format!("{} are cut off and not {}: {text}", ended.cut_off, scenario.cut_off));
        }
        // Handlers may still run at the deadline, or when the server fails.
        let is_held = scenario.cut_off > 0 || harm == Harm::Server && torture.held > 0;
        let left = ended.left.iter().filter(|(what, count)| *count > 0 && !(is_held && *what == "handlers"));
        let left: Vec<_> = left.collect();
        if !left.is_empty() {
            wrong.push(format!("at the end the server counts {left:?}"));
        }
        if harm != Harm::Server {
            return;
        }
        let failures =
            ended.exits.iter().filter(|(_, exit)| matches!(exit, Exit::Failed(_) | Exit::NotStarted)).count();
        let has_cause = ended.causes.iter().any(|cause| cause.contains("failed") || cause.contains("cannot"));
        if failures > 1 || !has_cause && failures == 0 {
            wrong.push(format!("a failure of the server is told {failures} times: {text}"));
        }
        let owed: usize = torture.players.iter().map(|player| self.owed(player)).sum();
        if owed > ended.cut_off && !ended.is_vague {
            wrong.push(format!("{owed} were received and not answered, and {} counted: {text}", ended.cut_off));
        }
    }

    /// How many requests a server has received on a connection, and not answered.
    fn owed(&self, player: &Player) -> usize {
        let Some(pipe) = player.connection.map(|number| &self.net.pipes[number]) else { return 0 };
        let listener = &self.net.listeners[pipe.listener];
        // What waits in a queue is owed too, once the server has said that it listens; what others hold too is theirs.
        let was_serving = self.torture.as_ref().and_then(|torture| torture.failed).is_some_and(|it| it.was_serving);
        let is_nobodys = listener.is_dead || !was_serving || pipe.is_others;
        if !pipe.is_accepted && is_nobodys || player.end == Some(End::Own) {
            return 0;
        }
        let closed_at = listener.closed_at.unwrap_or(self.now);
        let looked_at = pipe.ended_at.map_or(self.now, |(at, looked_at)| if pipe.is_accepted { looked_at } else { at });
        let looked_at = if pipe.is_accepted { looked_at } else { looked_at.min(closed_at) };
        let had_come =
            pipe.deliveries.iter().filter(|(_, at)| *at <= looked_at).map(|(sum, _)| *sum).max().unwrap_or(0);
        let received = player.requests.iter().filter(|end| **end <= had_come).count();
        let came = bare(&player.came());
        let (mut rest, mut answered) = (came.as_str(), 0);
        for answer in &player.script.wanted {
            let Some(more) = rest.strip_prefix(bare(answer).as_str()) else { break };
            (rest, answered) = (more, answered + usize::from(!answer.starts_with("HTTP/1.1 100")));
        }
        // A body that comes while the server cuts off may be refused as one that has not come.
        received.saturating_sub(answered + usize::from(refuses(rest)))
    }

    fn judge_player(&self, harm: Harm, number: usize, player: &Player, wrong: &mut Vec<String>) {
        let (came, wanted) = (player.came(), player.wanted());
        let is_harmed = match harm {
            Harm::Nothing => false,
            Harm::Connection(connection) | Harm::LastWords(connection) => player.connection == Some(connection),
            Harm::Newcomers => player.got.is_empty(),
            Harm::Server => true,
        };
        let Some(torture) = &self.torture else { return };
        let may_be_cut_off = torture.failed.is_some() || torture.scenario.cut_off > 0;
        let is_cut_off = player.script.is_cut_off && may_be_cut_off;
        // What it sends against its word may cost it the end of the answer.
        let is_lawless = player.script.may_be_reset && player.end == Some(End::Reset);
        if came != wanted {
            // The last answer may have become another.
            let (plain, wanted_plain) = (bare(&came), bare(&wanted));
            let refusal = plain.rfind("HTTP/1.1 ").filter(|at| refuses(&plain[*at..])).map_or("", |at| &plain[..at]);
            let is_part = wanted_plain.starts_with(&plain) || !refusal.is_empty() && wanted_plain.starts_with(refusal);
            let is_refused = refuses(&plain);
            if !((is_harmed || is_cut_off || is_lawless) && (is_part || is_refused)) {
                wrong.push(format!("player {number} ({:?}) gets\n  {came:?} and not\n  {wanted:?}", player.end));
            }
        }
        let is_right_end = match player.end {
            Some(End::Fin | End::Own) => true,
            Some(End::Reset) => is_harmed || is_cut_off || player.script.may_be_reset,
            Some(End::Refused) => is_harmed,
            // It waits in a queue that others hold too.
            None => is_cut_off || player.connection.is_none_or(|number| self.net.pipes[number].is_others),
        };
        if !is_right_end {
            wrong.push(format!("the connection of player {number} ends so: {:?}", player.end));
        }
    }

    /// A connection that is lost ends at once, unless a handler works for it.
    fn judge_lost(&self, harm: Harm, wrong: &mut Vec<String>) {
        let (Some(torture), Harm::Connection(number)) = (&self.torture, harm) else { return };
        let Some(failed) = torture.failed else { return };
        let since = if torture.held > 0 { failed.at.max(torture.opened_at.unwrap_or(self.now)) } else { failed.at };
        let (held_at_end, closed_at) = (torture.scenario.cut_off > 0, self.net.pipes[number].closed_at);
        if !held_at_end && closed_at.is_none_or(|at| at > since + LOST_MAX) {
            let at = closed_at.map(|at| at as f64 / 1e9);
            wrong.push(format!("connection {number} fails at {:.6} and is closed at {at:?}", failed.at as f64 / 1e9));
        }
    }

    /// Whatever becomes of an answer is told, and once.
    fn judge_answers(&self, harm: Harm, report: &Report, before: &Report, wrong: &mut Vec<String>) {
        let Some(torture) = &self.torture else { return };
        // A body that will not come whole any more is refused, and that is told.
        let owed = |of: &Report| {
            let answered = of.answered.iter().filter(|(text, _)| !text.contains(" 408 "));
            by_request(answered.map(|(text, count)| (text, *count)))
        };
        let (told, told_before) = (owed(report), owed(before));
        let count = |of: &BTreeMap<String, usize>, request: &String| of.get(request).copied().unwrap_or(0);
        let has_method = |request: &&String| !request.starts_with("- ");
        for request in told.keys().filter(has_method) {
            let (now, then) = (count(&told, request), count(&told_before, request));
            if now > then {
                wrong.push(format!(
                    "answers to {request} are told of {now} times, and without the failure {then} times"
                ));
            }
        }
        // Of what is cut off no end is told.
        if harm == Harm::Server || torture.scenario.cut_off > 0 {
            return;
        }
        let told_all = by_request(report.answered.iter().map(|(text, count)| (text, *count)));
        for (request, called) in &by_request(torture.called.iter().map(|text| (text, 1))) {
            let now = count(&told_all, request);
            if now < *called {
                wrong.push(format!("{called} handlers were called for {request}, and {now} answers are told of"));
            }
        }
    }

    /// What the process leaves behind.
    fn judge_rest(&self, wrong: &mut Vec<String>) {
        let open: Vec<_> = (0..self.net.pipes.len())
            .filter(|number| self.net.pipes[*number].is_accepted && !self.net.pipes[*number].ends[DOWN].is_closed)
            .collect();
        if self.net.descriptors > 0 || !open.is_empty() {
            wrong.push(format!("{} descriptors are open at the end: {open:?}", self.net.descriptors));
        }
        if self.net.listeners.iter().any(|listener| listener.is_open) {
            wrong.push("a listener is open at the end".to_owned());
        }
    }

    /// What is told beside what is told without the failure.
    fn judge_told(&self, harm: Harm, ended: &Ended, report: &Report, before: &Report, wrong: &mut Vec<String>) {
        let Some((torture, failed)) = self.torture.as_ref().and_then(|torture| torture.failed.map(|f| (torture, f)))
        else {
            return;
        };
        let own = failed.notice(&torture.scenario);
        let is_own = |notice: &str| own.is_some_and(|(start, _)| notice.starts_with(start));
        // Whoever is lost in the middle may be refused for it.
        let may_differ = |text: &str| harm != Harm::Nothing && text.starts_with("rejected ");
        let count = |of: &BTreeMap<String, usize>, text: &String| of.get(text).copied().unwrap_or(0);
        let mut own_count = 0;
        for (notice, times) in &report.notices {
            match () {
                () if is_own(notice) => own_count += times,
                () if may_differ(notice) && *times <= 1 => {}
                () if *times > count(&before.notices, notice) => wrong.push(format!("told {times} times: {notice}")),
                () => {}
            }
        }
        if own_count > 1 || own_count == 0 && own.is_some_and(|(_, must)| must) {
            wrong.push(format!("the failure is told {own_count} times: {:?}", report.notices));
        }
        if own_count > 0 && ended.causes.iter().any(|cause| cause.starts_with("listener ")) {
            wrong.push(format!("the failure is told as a notice, and as the cause: {}", ended.text));
        }
        self.judge_answers(harm, report, before, wrong);
        if harm != Harm::Nothing {
            return;
        }
        for (notice, times) in &before.notices {
            if count(&report.notices, notice) < *times {
                wrong.push(format!("not told any more: {notice}"));
            }
        }
        // At the deadline, what the socket does not take at once is lost.
        let may_be_lost = torture.scenario.scripts.iter().any(|script| script.is_cut_off);
        if report.answered != before.answered && !may_be_lost {
            wrong.push(format!("answers are told of as {:?} and not {:?}", report.answered, before.answered));
        }
    }
}

/// How often each request is named, in texts that begin with method and path.
fn by_request<'a>(texts: impl Iterator<Item = (&'a String, usize)>) -> BTreeMap<String, usize> {
    let mut sums = BTreeMap::new();
    for (text, count) in texts {
        let request: Vec<_> = text.split(' ').take(2).collect();
        *sums.entry(request.join(" ")).or_default() += count;
    }
    sums
}

/// Answers without what they say of their connection.
fn bare(answers: &str) -> String {
    answers.replace("Connection: close\r\n", "").replace("Connection: keep-alive\r\n", "")
}

/// True for the server's own refusals.
fn refuses(answer: &str) -> bool {
    ["408 ", "500 ", "503 "]
        .iter()
        .any(|status| answer.strip_prefix("HTTP/1.1 ").is_some_and(|rest| rest.starts_with(status)))
}
