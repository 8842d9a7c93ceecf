//! The process of a scenario: a group with a server and a job, and a conductor that plays the acts.

use std::io::{Read, Write};
use std::time::Duration;

use super::judge::Ended;
use super::player::Act;
use super::{PATIENCE, TICK, wire};
use crate::group::{Group, MemberResult};
use crate::http::{Method, Request, Response, Status, around};
use crate::net::Kind;
use crate::router::Router;
use crate::server::{Config, Inherited, Notice, Server};
use crate::stop::{Cause, Stop};
use crate::sync;
use crate::world::{self, Why, with};

/// Whom handlers that are held wait for.
const HOLD: Why = Why::Condition(3);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Routes {
    /// Those of `tests/it/wire`.
    Wire,
    /// The same, but that the body is read as it arrives.
    WireStreamed,
    /// Those of `tests/it/drain`, and streams both ways.
    Drain,
}

/// The first thread of the world.
pub(super) fn main() {
    let scenario = with(|world| world.torture.as_ref().map(|torture| sync::Arc::clone(&torture.scenario)));
    let scenario = scenario.expect("a world of torture");
    let numbers: Vec<_> = scenario.listeners.iter().map(|kind| with(|world| world.listen(*kind))).collect();
    with(world::World::players_go_on);
    let mut group = Group::new();
    group.lame_duck(Duration::from_nanos(scenario.lame_duck));
    let stop = group.stop();
    match server(&scenario.listeners, &numbers, scenario.config.clone()) {
        Ok(server) => {
            let stats = server.stats();
            let router = around(router(scenario.routes), |request: &Request<'_>, next| {
                let text = format!("{} {}", request.method(), request.raw_path());
                with(|world| world.torture.as_mut().expect("it is there").called.push(text));
                next(request)
            });
            group.add("http", move |stop| server.run(router, stop));
            group.add("job", job);
            stop.wake_on_cause(move |cause| {
                with(|world| {
                    world.note(|| format!("the stop: {cause}"));
                    world.torture.as_mut().expect("it is there").is_stopping = true;
                });
            });
            let conductor = stop.clone();
            world::spawn("conductor".to_owned(), move || conduct(&conductor));
            let outcome = group.run(Duration::from_nanos(scenario.grace));
            let now = with(|world| world.now);
            let ended = Ended::of(&outcome, now, stop.deadline(), &stats);
            with(|world| {
                world.note(|| format!("the group ends: {outcome}"));
                world.torture.as_mut().expect("it is there").ended = Some(ended);
            });
        }
        Err(error) => with(|world| {
            world.note(|| format!("no server: {error}"));
            world.torture.as_mut().expect("it is there").ended = Some(Ended::without_server(&error));
        }),
    }
    open();
}

fn server(kinds: &[Kind], numbers: &[usize], config: Config) -> Result<Server, String> {
    let (shared, own): (Vec<usize>, Vec<usize>) = numbers.iter().partition(|number| kinds[**number] == Kind::Shared);
    let addresses: Vec<String> = own.iter().map(|number| format!("sim:{number}")).collect();
    let server = Server::bind(addresses, config).map_err(|error| error.to_string())?;
    let server = server.and_listeners(shared.into_iter().map(Inherited::Simulated));
    let server = server.map_err(|error| format!("cannot take over: {error}"))?;
    let server = server.on_notice(on_notice).on_answer(|answered| {
        let method = answered.method.map_or("-".to_owned(), |method| method.to_string());
        let whole = if answered.is_whole { "whole" } else { "lost" };
        let text = format!("{method} {} {} {whole}", answered.path, answered.status.code());
        with(|world| world.torture.as_mut().expect("it is there").answered.push(text));
    });
    Ok(server.on_listening(|_| with(|world| world.torture.as_mut().expect("it is there").is_serving = true)))
}

fn on_notice(notice: &Notice<'_>) {
    with(|world| {
        world.note(|| format!("notice: {notice}"));
        world.torture.as_mut().expect("it is there").notices.push(notice.to_string());
    });
}

#[expect(clippy::unnecessary_wraps)] // As a member's is.
fn job(stop: &Stop) -> MemberResult {
    stop.wait();
    Ok(())
}

// ---- The acts ------------------------------------------------------------------------------------------------------

fn conduct(stop: &Stop) {
    let acts = with(|world| world.torture.as_ref().expect("it is there").scenario.acts.clone());
    let until = |act: &Act| {
        let end = with(|world| world.now) + PATIENCE;
        while !with(|world| world.is_done(act) || world.now >= end) {
            sync::sleep(Duration::from_nanos(TICK));
        }
    };
    for act in acts {
        match act {
            Act::Sleep(time) => sync::sleep(Duration::from_nanos(time)),
            Act::Open => open(),
            Act::Stop => {
                with(|world| world.torture.as_mut().expect("it is there").is_stopping = true);
                let _ = stop.trigger(Cause::Request("the conductor".to_owned()));
            }
            Act::Stage(stage) => with(|world| {
                world.note(|| format!("stage {stage}"));
                world.torture.as_mut().expect("it is there").stage = stage;
                world.players_go_on();
            }),
            act => until(&act),
        }
    }
}

/// Lets all handlers go on that are held.
fn open() {
    with(|world| {
        let now = world.now;
        world.torture.as_mut().expect("it is there").opened_at.get_or_insert(now);
        world.wake_all(HOLD);
    });
}

/// For a handler: waits until it is let go.
fn hold() {
    with(|world| world.torture.as_mut().expect("it is there").held += 1);
    while !with(|world| world.torture.as_ref().expect("it is there").opened_at.is_some()) {
        world::block(HOLD, None);
    }
}

// ---- Handlers ------------------------------------------------------------------------------------------------------

fn router(routes: Routes) -> Router {
    match routes {
        Routes::Wire => wire::routes().post("/echo", echo),
        Routes::WireStreamed => wire::routes().stream(Method::Post, "/echo", |_, body| {
            let mut bytes = Vec::new();
            match body.read_to_end(&mut bytes) {
                Ok(_) => Response::bytes("application/octet-stream", bytes),
                Err(_) => Response::text("never sent\n"),
            }
        }),
        Routes::Drain => drain_routes(),
    }
}

fn echo(request: &Request<'_>) -> Response {
    Response::bytes("application/octet-stream", request.body().to_vec())
}

fn drain_routes() -> Router {
    let number = |request: &Request<'_>| Response::text(request.param("n").unwrap_or_default().into_owned());
    Router::new()
        .get("/ping", |_| Response::text("pong"))
        .get("/n/{n}", number)
        .get("/hold/{n}", move |request| {
            hold();
            number(request)
        })
        .get("/big", |_| Response::bytes("application/octet-stream", vec![b'x'; super::drain::BIG]))
        .get("/stream/{n}", |request| {
            let text = request.param("n").unwrap_or_default().into_owned();
            Response::stream("text/plain", move |out| {
                out.write_all(text.as_bytes())?;
                out.flush()?;
                hold();
                out.write_all(text.as_bytes())
            })
        })
        .post("/echo", echo)
        .stream(Method::Post, "/up", |_, body| {
            let (mut count, mut buffer) = (0, [0; 100]);
            loop {
                match body.read(&mut buffer) {
                    Ok(0) => return Response::text(count.to_string()),
                    Ok(more) => count += more,
                    Err(_) => return Response::text("never sent"),
                }
            }
        })
        .stream(Method::Post, "/up/hold", |_, body| {
            let mut bytes = Vec::new();
            hold();
            match body.read_to_end(&mut bytes) {
                Ok(count) => Response::text(count.to_string()),
                Err(_) => Response::text("never sent"),
            }
        })
}
