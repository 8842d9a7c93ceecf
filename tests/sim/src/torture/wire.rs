//! The tables of `tests/it/wire`, as they are. After each case somebody else comes, who finds a server that is well: it
//! has room for one connection and one handler at a time.

use super::Scenario;
use super::player::{Act, Script, Step};
use super::site::Routes;
use crate::http::{Response, Status};
use crate::router::Router;
use crate::server::Config;
use crate::world::SEC;

// Before the tables, which are written with its macros.
#[macro_use]
#[path = "../../../it/wire/case.rs"]
mod case;
#[path = "../../../it/wire/attacks.rs"]
mod attacks;
#[path = "../../../it/wire/chunks.rs"]
mod chunks;
#[path = "../../../it/wire/connections.rs"]
mod connections;
#[path = "../../../it/wire/fields.rs"]
mod fields;
#[path = "../../../it/wire/framing.rs"]
mod framing;
#[path = "../../../it/wire/requests.rs"]
mod requests;

pub(super) use case::routes;
use case::{Case, Done, Open, PONG_WIRE, Refused, TOO_LARGE, Waits, expected, undated};

const ABOUT_HEADS: [&[Case]; 2] = [requests::CASES, fields::CASES];
const ABOUT_BODIES: [&[Case]; 4] = [framing::CASES, chunks::CASES, connections::CASES, attacks::CASES];
/// Longer ones are not sent byte by byte.
const SHORT: usize = 2500;

const PING: &str = "GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";
const LAST_PING: &str = "GET /ping HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
const EXPECTS: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

pub(super) fn undated_text(wire: &str) -> String {
    undated(wire)
}

/// The same, as the last answer.
pub(super) fn last(answer: &str) -> String {
    answer.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1)
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let heads = ABOUT_HEADS.into_iter().flatten();
    let bodies = || ABOUT_BODIES.into_iter().flatten();
    // But for the limit of a body held in memory.
    let has_limit = |case: &&Case| case.answers.iter().any(|answer| answer.status == TOO_LARGE.status);
    let plain = heads.chain(bodies()).map(|case| scenario("wire", Routes::Wire, case));
    let streamed = bodies().filter(|case| !has_limit(case));
    let streamed = streamed.map(|case| scenario("wire, streamed", Routes::WireStreamed, case));
    let expecting = [("wire", Routes::Wire), ("wire, streamed", Routes::WireStreamed)].map(expecting);
    let all: Vec<_> = plain.chain(streamed).chain(expecting).collect();
    // Byte by byte, by either poller: no call of these fails.
    let short = all.iter().filter(|scenario| super::sent(scenario) <= SHORT);
    let bytewise = short.flat_map(|scenario| [false, true].map(|is_swept| super::bytewise(scenario, is_swept)));
    let bytewise: Vec<_> = bytewise.collect();
    all.into_iter().chain(bytewise).collect()
}

fn scenario(group: &str, routes: Routes, case: &'static Case) -> Scenario {
    // What is refused was never owed.
    let is_owed = |answer: &&case::Answer| answer.status < "400" || answer.status < "406" && answer.status > "403";
    let requests = if case.end == Refused { 0 } else { case.answers.iter().filter(is_owed).count() };
    let mut steps = vec![Step::Send(case.input.to_vec(), requests)];
    let mut wanted = each(&expected(case));
    if case.end == Open {
        steps.extend([Step::Answers(wanted.len()), Step::Send(PING.into(), 1)]);
        wanted.push(PONG_WIRE.to_owned());
    }
    if matches!(case.end, Open | Waits) {
        // No server that is to keep the connection open may close it before its client does.
        steps.extend([Step::Answers(wanted.len()), Step::Finish]);
    }
    let mut script = Script::new(steps, wanted);
    // What the client sends against its word comes later than the answer, if it comes in pieces.
    script.may_be_reset = case.end == Done;
    with_successor(format!("{group}: {}", case.name), routes, script)
}

/// The answers one by one.
fn each(wire: &str) -> Vec<String> {
    wire.split("HTTP/1.1 ").skip(1).map(|answer| format!("HTTP/1.1 {answer}")).collect()
}

/// A body that is asked for.
fn expecting((group, routes): (&str, Routes)) -> Scenario {
    let steps = vec![
        Step::Send(EXPECTS.into(), 0),
        Step::Answers(1),
        Step::Send("hello".into(), 1),
        Step::Answers(2),
        Step::Send(PING.into(), 1),
        Step::Answers(3),
        Step::Finish,
    ];
    let echo = PONG_WIRE
        .replace("text/plain; charset=utf-8", "application/octet-stream")
        .replace("4\r\n\r\npong", "5\r\n\r\nhello");
    let wanted = vec!["HTTP/1.1 100 Continue\r\n\r\n".to_owned(), echo, PONG_WIRE.to_owned()];
    with_successor(format!("{group}: a body that is asked for"), routes, Script::new(steps, wanted))
}

fn with_successor(name: String, routes: Routes, script: Script) -> Scenario {
    let wait = std::time::Duration::from_secs(300);
    let mut scenario = Scenario::new(name, routes);
    scenario.config = Config {
        loops: 1,
        handlers_max: 1,
        connections_max: 1,
        head_timeout: wait,
        body_timeout: wait,
        idle_timeout: wait,
        write_timeout: wait,
        ..Config::default()
    };
    let mut successor = Script::new(vec![Step::Send(LAST_PING.into(), 1)], vec![last(PONG_WIRE)]);
    successor.steps.insert(0, Step::Stage(1));
    scenario.scripts = vec![script, successor];
    scenario.acts = vec![Act::Over(0), Act::Stage(1), Act::Over(1), Act::Stop];
    scenario.grace = 20 * SEC;
    scenario
}
