//! The situations of `tests/it/drain`: what a stop finds.

use std::time::Duration;

use super::player::{Act, Script, Step};
use super::site::Routes;
use super::wire::last;
use super::{Scenario, bytewise};
use crate::net::Kind;
use crate::server::Config;
use crate::world::{MS, Nanos};

/// More than the buffers hold between a server that writes and a client that does not read.
pub(super) const BIG: usize = 600_000;

const PING: &str = "GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";
const POST: &str = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n";
const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nha\r";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").into_bytes()
}

fn answer(status: &str, kind: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nDate: DATE\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn text(body: &str) -> String {
    answer("200 OK", "text/plain; charset=utf-8", body)
}

fn half() -> String {
    last(&answer("200 OK", "application/octet-stream", "half"))
}

fn too_late() -> String {
    last(&answer("408 Request Timeout", "text/plain; charset=utf-8", "request not received in time\n"))
}

/// Comes later than the others.
fn late(stage: usize, script: Script) -> Script {
    Script { steps: [vec![Step::Stage(stage)], script.steps].concat(), ..script }
}

fn send(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into(), 1)
}

/// Of a request that is not whole with it.
fn part(bytes: impl Into<Vec<u8>>) -> Step {
    Step::Send(bytes.into(), 0)
}

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut all = queues();
    all.extend(handlers());
    all.extend(bodies());
    all.extend(quiet());
    all.extend(streams());
    all.extend(many());
    let again: Vec<_> = all
        .iter()
        .map(|scenario| Scenario { name: format!("{}, swept", scenario.name), is_swept: true, ..scenario.clone() })
        .collect();
    let bytes = all.iter().flat_map(|scenario| [false, true].map(|is_swept| bytewise(scenario, is_swept)));
    // The poller by reports is sent byte by byte, and each only once the one before it has been read.
    let bytes: Vec<_> = bytes.filter(|scenario| scenario.is_swept || !scenario.is_behind).collect();
    all.into_iter().chain(again).chain(bytes).collect()
}

fn drain(name: &str, scripts: Vec<Script>, acts: Vec<Act>) -> Scenario {
    Scenario { scripts, acts, ..Scenario::new(format!("drain: {name}"), Routes::Drain) }
}

fn with(mut scenario: Scenario, change: impl FnOnce(&mut Scenario)) -> Scenario {
    change(&mut scenario);
    scenario
}

/// What its clients send behind a request comes although nobody reads it yet.
fn comes_whole(scenario: &mut Scenario) {
    scenario.is_behind = true;
}

fn ms(time: Nanos) -> Duration {
    Duration::from_nanos(time * MS)
}

// ---- The accept queue ----------------------------------------------------------------------------------------------

fn queues() -> Vec<Scenario> {
    let held = |n: usize| Script::new(vec![send(get(&format!("/hold/{n}")))], vec![last(&text(&n.to_string()))]);
    let either = || Script { is_either: true, ..Script::new(vec![send(PING), Step::Answers(1)], vec![text("pong")]) };
    let just_before = || {
        let acts = vec![Act::Come(0), Act::Stop];
        with(drain("just before the stop", (0..4).map(|_| either()).collect(), acts), |it| it.config.loops = 2)
    };
    let far = |latency| Script { latency, ..either() };
    vec![
        drain(
            "in the accept queue",
            (0..4).map(held).collect(),
            vec![Act::Held(1), Act::Stop, Act::Sleep(5 * MS), Act::Open],
        ),
        just_before(),
        with(just_before(), |it| {
            it.name += ", Unix";
            it.listeners = vec![Kind::Unix];
        }),
        with(just_before(), |it| {
            it.name += ", without a filter";
            it.listeners = vec![Kind::Plain];
        }),
        with(just_before(), |it| {
            it.name += ", shared";
            it.listeners = vec![Kind::Shared];
        }),
        with(just_before(), |it| {
            it.name += ", two listeners";
            it.listeners = vec![Kind::Filtered, Kind::Unix];
            it.scripts.iter_mut().step_by(2).for_each(|script| script.listener = 1);
        }),
        // Its SYN is there, its ACK is not.
        drain(
            "a handshake under way",
            vec![either(), late(1, far(3 * MS))],
            vec![Act::Come(0), Act::Stage(1), Act::Sleep(4 * MS), Act::Stop],
        ),
    ]
}

// ---- Handler running, or answer being written ------------------------------------------------------------------------

fn handlers() -> Vec<Scenario> {
    let held = || Script::new(vec![send(get("/hold/1"))], vec![last(&text("1"))]);
    let stop = || vec![Act::Held(1), Act::Come(0), Act::Stop, Act::Refuses, Act::Open];
    let big = |is_heard: bool| {
        let wait = if is_heard { 1 } else { 9 };
        let steps = vec![Step::Deaf(true), send(get("/big")), Step::Stage(wait), Step::Deaf(false)];
        let content = answer("200 OK", "application/octet-stream", &"x".repeat(BIG));
        Script::new(steps, vec![content])
    };
    let behind = [get("/hold/1"), get("/n/2"), get("/n/3")].concat();
    let behind = Script::new(vec![Step::Send(behind, 3)], vec![text("1"), text("2"), last(&text("3"))]);
    let later = vec![send(get("/hold/1")), Step::Stage(1), send(get("/n/2"))];
    let later = Script::new(later, vec![text("1"), last(&text("2"))]);
    let acts_later = vec![Act::Held(1), Act::Stop, Act::Stage(1), Act::Come(0), Act::Open];
    let waiting = |n: usize| Script::new(vec![send(get(&format!("/n/{n}")))], vec![last(&text(&n.to_string()))]);
    // Where the handler before them is lost, they need not wait.
    let waiting = (1..4).map(|n| Script { is_either: true, ..late(1, waiting(n)) });
    let gone = Script::new(vec![send(get("/hold/7")), Step::Stage(1), Step::Close], vec![]);
    let acts_gone =
        vec![Act::Held(2), Act::Stage(1), Act::Over(1), Act::Sleep(2 * MS), Act::Stop, Act::Sleep(2 * MS), Act::Open];
    vec![
        drain("a running handler", vec![held()], stop()),
        with(drain("requests behind a running handler", vec![behind], stop()), comes_whole),
        with(
            drain("a request that comes after the stop behind a running handler", vec![later], acts_later),
            comes_whole,
        ),
        with(
            drain(
                "requests that wait for a permit",
                std::iter::once(held()).chain(waiting).collect(),
                vec![
                    Act::Held(1),
                    Act::Stage(1),
                    Act::Come(1),
                    Act::Come(2),
                    Act::Come(3),
                    Act::Sleep(5 * MS),
                    Act::Stop,
                    Act::Open,
                ],
            ),
            |it| it.config.handlers_max = 1,
        ),
        drain("a handler whose client has gone", vec![held(), gone], acts_gone),
        drain(
            "an answer being written",
            vec![big(true)],
            vec![Act::Sleep(20 * MS), Act::Stop, Act::Sleep(5 * MS), Act::Stage(1)],
        ),
        with(
            drain(
                "a reader that never reads",
                vec![Script { is_cut_off: true, ..big(false) }],
                vec![Act::Sleep(20 * MS), Act::Stop],
            ),
            |it| (it.grace, it.code, it.cut_off) = (250 * MS, 124, 1),
        ),
        with(
            drain(
                "a handler that never returns",
                vec![Script { is_cut_off: true, ..held() }],
                vec![Act::Held(1), Act::Stop],
            ),
            |it| (it.grace, it.code, it.cut_off) = (250 * MS, 124, 1),
        ),
        drain(
            "a neighbour of a slow handler",
            vec![held(), late(1, idle())],
            vec![Act::Held(1), Act::Stage(1), Act::Answers(1, 1), Act::Stop, Act::Open],
        ),
        with(drain("a lame duck", vec![duck(), late(1, idle())], duck_acts()), |it| it.lame_duck = 300 * MS),
    ]
}

fn duck() -> Script {
    let steps = vec![send(PING), Step::Answers(1), Step::Stage(1), send(PING), Step::Answers(2)];
    Script::new(steps, vec![text("pong"), text("pong")])
}

fn idle() -> Script {
    Script::new(vec![send(PING), Step::Answers(1)], vec![text("pong")])
}

fn duck_acts() -> Vec<Act> {
    vec![Act::Answers(0, 1), Act::Stop, Act::Sleep(5 * MS), Act::Stage(1), Act::Answers(0, 2), Act::Answers(1, 1)]
}

// ---- Body arriving ---------------------------------------------------------------------------------------------------

fn bodies() -> Vec<Scenario> {
    let cut = |before: String, after: &str| Script::new(vec![part(before), Step::Stage(1), send(after)], vec![half()]);
    let asked =
        vec![part(format!("{POST}Expect: 100-continue\r\n\r\n")), Step::Answers(1), Step::Stage(1), send("half")];
    let scripts = vec![
        cut(format!("{POST}\r\n"), "half"),
        cut(format!("{POST}\r\nha"), "lf"),
        cut(CHUNKED.to_owned(), "\n2\r\nlf\r\n0\r\n\r\n"),
        Script::new(asked, vec![CONTINUE.to_owned(), half()]),
    ];
    let come = (0..4).map(Act::Come);
    let acts = come.chain([Act::Answers(3, 1), Act::Stop, Act::Refuses, Act::Stage(1)]).collect();
    let never = || Script::new(vec![part(format!("{POST}\r\nha"))], vec![too_late()]);
    // It is not owed: the socket takes it at once, or not at all.
    let at_last = || Script { is_cut_off: true, ..never() };
    let acts_never = || vec![Act::Come(0), Act::Sleep(5 * MS), Act::Stop];
    vec![
        drain("bodies that are arriving", scripts, acts),
        with(drain("a body that never completes", vec![never()], acts_never()), |it| it.config.body_timeout = ms(250)),
        with(drain("a body that never completes, at the deadline", vec![at_last()], acts_never()), |it| {
            it.grace = 250 * MS
        }),
    ]
}

// ---- Idle, or part of a head -----------------------------------------------------------------------------------------

fn quiet() -> Vec<Scenario> {
    let quiet = |name: &str, sent: &str, answers: usize, end: Option<String>| {
        let wanted: Vec<_> = (0..answers).map(|_| text("pong")).chain(end).collect();
        let steps = if sent.is_empty() { Vec::new() } else { vec![Step::Send(sent.into(), answers)] };
        let acts = vec![Act::Come(0), Act::Answers(0, answers), Act::Sleep(5 * MS), Act::Stop];
        drain(name, vec![Script::new(steps, wanted)], acts)
    };
    let cases: [(&str, usize, &str); 5] = [
        ("", 0, PING),
        (PING, 1, PING),
        ("\r\n", 0, PING),
        ("GET /ping HTTP/1.1\r\nHo", 0, "st: test\r\n\r\n"),
        ("GET /ping HTTP/1.1\r\nHost: test\r\n\r\nG", 1, "ET /ping HTTP/1.1\r\nHost: test\r\n\r\n"),
    ];
    let again = |(before, answers, after): &(&str, usize, &str)| {
        let begin = if before.is_empty() { Vec::new() } else { vec![Step::Send((*before).into(), *answers)] };
        let steps = [begin, vec![Step::Answers(*answers), Step::Stage(1), send(*after)]].concat();
        let wanted = (0..*answers).map(|_| text("pong")).chain([last(&text("pong"))]).collect();
        Script::new(steps, wanted)
    };
    let come = (0..5).map(Act::Come).chain([Act::Answers(1, 1), Act::Answers(4, 1)]);
    let acts = come.chain([Act::Sleep(2 * MS), Act::Stop, Act::Refuses, Act::Stage(1)]).collect();
    let patient = Config { loops: 1, idle_grace: Duration::from_secs(15), ..Config::default() };
    vec![
        quiet("an idle connection", PING, 1, None),
        quiet("a silent connection", "", 0, None),
        quiet("an empty line", "\r\n", 0, None),
        quiet("part of a head", "GET /ping HTTP/1.1\r\nHo", 0, Some(too_late())),
        quiet("part of a second head", &format!("{PING}G"), 1, Some(too_late())),
        with(drain("requests within the grace", cases.iter().map(again).collect(), acts), |it| it.config = patient),
        drain("nobody is there", Vec::new(), vec![Act::Sleep(2 * MS), Act::Stop]),
    ]
}

// ---- Streams ---------------------------------------------------------------------------------------------------------

fn streams() -> Vec<Scenario> {
    let head = |path: &str| format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 400\r\n\r\n");
    let piece = "x".repeat(200);
    let upload = |path: &str| {
        let steps = vec![part(head(path) + &piece), Step::Stage(1), send(piece.clone())];
        Script::new(steps, vec![last(&text("400"))])
    };
    let chunked = "HTTP/1.1 200 OK\r\nDate: DATE\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
    let download = |behind: &[u8], answers: Vec<String>| {
        let body = "3\r\nabc\r\n3\r\nabc\r\n0\r\n\r\n";
        let steps = vec![Step::Send([&get("/stream/abc")[..], behind].concat(), 1 + answers.len())];
        let first = format!("{chunked}{body}");
        Script::new(steps, std::iter::once(first).chain(answers).collect())
    };
    let begun = format!("{chunked}3\r\nabc\r\n");
    let gone = Script::new(vec![send(get("/stream/abc")), Step::Stage(1), Step::Close], vec![begun]);
    let stop = |act: Act| vec![act, Act::Sleep(3 * MS), Act::Stop, Act::Sleep(3 * MS), Act::Stage(1), Act::Open];
    let torn = Script { is_cut_off: true, ..download(b"", Vec::new()) };
    vec![
        drain("an upload under way", vec![upload("/up")], stop(Act::Come(0))),
        drain("an upload whose handler is late", vec![upload("/up/hold")], stop(Act::Held(1))),
        drain("a stream under way", vec![download(b"", Vec::new())], stop(Act::Held(1))),
        drain(
            "a stream with a request behind it",
            vec![download(&get("/n/2"), vec![last(&text("2"))])],
            stop(Act::Held(1)),
        ),
        drain("a stream whose client goes", vec![gone], stop(Act::Held(1))),
        with(drain("a stream at the deadline", vec![torn], vec![Act::Held(1), Act::Stop]), |it| {
            (it.grace, it.code, it.cut_off) = (250 * MS, 124, 1);
        }),
    ]
}

// ---- Several loops, and no room ---------------------------------------------------------------------------------------

fn many() -> Vec<Scenario> {
    let twice = || {
        let steps = vec![send(PING), Step::Answers(1), Step::Stage(1), send(PING), Step::Answers(2), Step::Finish];
        Script::new(steps, vec![text("pong"), text("pong")])
    };
    let acts = (0..6).map(|number| Act::Answers(number, 1)).chain([Act::Sleep(5 * MS), Act::Stage(1)]);
    let acts = acts.chain((0..6).map(Act::Over)).chain([Act::Stop]).collect();
    let room = vec![
        Act::Answers(0, 1),
        Act::Answers(1, 1),
        Act::Sleep(5 * MS),
        Act::Stage(1),
        Act::Answers(2, 1),
        Act::Sleep(5 * MS),
        Act::Stage(2),
        Act::Answers(3, 1),
        Act::Sleep(5 * MS),
        Act::Stop,
    ];
    vec![
        with(drain("connections that change loops", (0..6).map(|_| twice()).collect(), acts), |it| it.config.loops = 2),
        with(drain("idle connections make room", vec![idle(), idle(), late(1, idle()), late(2, idle())], room), |it| {
            it.config.connections_max = 2;
        }),
    ]
}
