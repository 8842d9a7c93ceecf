//! Handlers that are put together from others: what is to become of a body, wrappers, a fallback.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::time::Duration;

use allout::{
    BodyPlan, Config, Handler, Method, Next, Peer, Reject, Request, Response, Router, Server, Status, answer, around,
};

use crate::drain::get;
use crate::handoff::reset;
use crate::support::{Client, Gate, HANG, PING, Reply, Site, poll};

/// Whoever is idle when the stop comes is not waited for.
fn one_loop() -> Config {
    Config { loops: 1, body_bytes_max: 100, idle_grace: Duration::ZERO, ..Config::default() }
}

/// `/ping`, `/echo`, and more than a body held in memory may have: counted by `/count`, held by `/large`.
fn routes() -> Router {
    let echo = |request: &Request<'_>| Response::bytes("text/plain", request.body().to_vec());
    Router::new()
        .at_once(Method::Get, "/ping", |_| Response::text("pong"))
        .post("/echo", echo)
        .hold(Method::Post, "/large", 1000, echo)
        .stream(Method::Post, "/count", |_, body| {
            let bytes = io::copy(body, &mut io::sink()).map_err(|_| Status::BAD_REQUEST)?;
            Ok::<_, Status>(Response::text(bytes.to_string()))
        })
        .get("/stream", |_| Response::stream("text/plain", |out| out.write_all(b"as it is made")))
        .get("/panic", |_| -> Response { panic!("asked to") })
}

/// Says of every answer that it has passed.
fn marked(inner: impl Handler) -> impl Handler {
    around(inner, |request, next| next(request).with_field("X-Passed", request.raw_path().to_owned()))
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: test\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Waits for the answer to something of a body's length that has not been sent.
fn ask_first(client: &mut Client, path: &str, length: usize) -> Reply {
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.reply()
}

// ---- Bodies --------------------------------------------------------------------------------------------------------

#[test]
fn a_route_has_a_limit_of_its_own_for_bodies() {
    let site = Site::start(one_loop(), routes());
    for (path, length, status) in
        [("/echo", 100, 200), ("/echo", 101, 413), ("/large", 101, 200), ("/large", 1000, 200), ("/large", 1001, 413)]
    {
        let body = "x".repeat(length);
        let mut client = site.connect();
        assert_eq!(client.ask(post(path, "", &body)).status, status, "{path} {length}");
        let mut client = site.connect();
        // In two chunks: what counts is the sum.
        let (size, rest) = (60, length - 60);
        let chunks = format!("{size:x}\r\n{}\r\n{rest:x}\r\n{}\r\n0\r\n\r\n", &body[..size], &body[size..]);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"));
        assert_eq!(client.reply().status, status, "{path} {length}, chunked");
    }
}

/// Refuses all bodies but those of the path `/wanted`.
struct Choosy;

impl Handler for Choosy {
    fn handle(&self, request: &Request<'_>) -> Response {
        Response::text(format!("{} bytes", request.body().len()))
    }

    fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
        if request.raw_path() == "/wanted" { BodyPlan::Hold } else { BodyPlan::Refuse }
    }
}

#[test]
fn a_body_that_is_refused_is_not_asked_for_and_not_held_against_who_sends_it_unasked() {
    let site = Site::start(one_loop(), Choosy);
    let mut client = site.connect();
    assert_eq!(ask_first(&mut client, "/wanted", 5).status, 100);
    client.send("hello");
    assert_eq!(client.reply().text(), "5 bytes");
    // Sent without being asked for: it is read, and the connection stays.
    assert_eq!(client.ask(post("/", "", "hello")).text(), "5 bytes");
    assert_eq!(client.ask(post("/", "Expect: 100-continue\r\n", "hello")).text(), "5 bytes");
    let reply = ask_first(&mut client, "/", 5);
    assert_eq!((reply.text().as_str(), reply.is_last()), ("0 bytes", true));
    client.expect_fin();
}

#[test]
fn a_refusal_waits_for_a_handlers_turn_like_any_other_answer() {
    let gate = Gate::new();
    let held = gate.clone();
    let handler = around(Choosy, move |request, next| {
        if request.raw_path() == "/hold" {
            held.pass();
        }
        next(request)
    });
    let site = Site::start(Config { handlers_max: 1, ..one_loop() }, handler);
    let (mut holder, mut client) = (site.connect(), site.connect());
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.wait_for(1);
    // No more than what is held in memory by all is needed for a body that does not come.
    client.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 99\r\n\r\n");
    gate.open();
    assert_eq!(holder.reply().text(), "0 bytes");
    let reply = client.reply();
    assert_eq!((reply.text().as_str(), reply.is_last()), ("0 bytes", true));
}

// ---- Wrappers ------------------------------------------------------------------------------------------------------

#[test]
fn every_answer_passes_through_a_wrapper() {
    let site = Site::start(one_loop(), marked(marked(routes())));
    let mut client = site.connect();
    let passed = |reply: &Reply| reply.head.matches("X-Passed: ").count();
    let reply = client.ask(PING);
    assert_eq!((reply.text().as_str(), passed(&reply)), ("pong", 2));
    client.send("HEAD /ping HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = client.reply_to_head();
    assert_eq!((reply.header("content-length"), passed(&reply)), (Some("4"), 2));
    client.send("GET /ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.text().as_str(), passed(&reply), reply.is_last()), ("pong", 2, false));
    let reply = client.ask("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((reply.text().as_str(), passed(&reply)), ("as it is made", 2));
    let reply = client.ask(post("/none", "", "body"));
    assert_eq!((reply.status, passed(&reply), reply.is_last()), (404, 2, false));
    let reply = client.ask("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((reply.status, passed(&reply)), (204, 2));
    // What needs no body is refused before it is sent.
    for (path, status) in [("/none", 404), ("/ping", 405)] {
        let reply = ask_first(&mut site.connect(), path, 5);
        assert_eq!((reply.status, passed(&reply), reply.is_last()), (status, 2, true));
    }
}

#[test]
fn a_streamed_body_reaches_the_handler_inside_a_wrapper() {
    let site = Site::start(one_loop(), marked(routes()));
    let mut client = site.connect();
    let reply = client.ask(post("/count", "", &"x".repeat(1000)));
    assert_eq!((reply.text().as_str(), reply.header("x-passed")), ("1000", Some("/count")));
    let reply = client.ask(post("/large", "", &"x".repeat(1000)));
    assert_eq!((reply.body.len(), reply.header("x-passed")), (1000, Some("/large")));
    assert_eq!(ask_first(&mut client, "/count", 200_000).status, 100);
    client.send("x".repeat(200_000));
    assert_eq!(client.reply().text(), "200000");
}

#[test]
fn a_wrapper_can_answer_before_a_body_is_asked_for() {
    let router = routes();
    let guarded = around(router, |request, next| match request.headers().get("x-key") {
        Some(b"secret") => Ok(next(request)),
        _ => Err(Status::UNAUTHORIZED),
    });
    let site = Site::start(one_loop(), guarded);
    let mut client = site.connect();
    let reply = ask_first(&mut client, "/count", 1_000_000);
    assert_eq!((reply.status, reply.is_last()), (401, true));
    client.expect_fin();
    let mut client = site.connect();
    assert_eq!(client.ask(post("/count", "X-Key: secret\r\n", "body")).text(), "4");
}

#[test]
fn what_is_answered_at_once_is_so_inside_a_wrapper_too() {
    let gate = Gate::new();
    let held = gate.clone();
    let router = routes().get("/hold", move |_| {
        held.pass();
        Response::text("held")
    });
    let site = Site::start(Config { handlers_max: 1, ..one_loop() }, marked(router));
    let mut holder = site.connect();
    holder.send("GET /hold HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.wait_for(1);
    assert_eq!(site.connect().ask(PING).text(), "pong");
    assert_eq!(ask_first(&mut site.connect(), "/none", 5).header("x-passed"), Some("/none"));
    gate.open();
    assert_eq!(holder.reply().header("x-passed"), Some("/hold"));
}

fn panic_page(request: &Request<'_>, next: &Next<'_>) -> Response {
    let page = || Response::text("sorry\n").with_status(Status::INTERNAL_SERVER_ERROR);
    let caught = catch_unwind(AssertUnwindSafe(|| next(request)));
    caught.unwrap_or_else(|panic| page().on_sent(move || resume_unwind(panic)))
}

#[test]
fn a_panic_that_a_wrapper_has_caught_may_go_on_behind_its_answer_and_is_told_once() {
    let (sender, notices) = mpsc::channel();
    let server = Server::bind("127.0.0.1:0", one_loop()).unwrap();
    let server = server.on_notice(move |notice| _ = sender.send(notice.to_string()));
    let site = Site::run(server, around(routes(), panic_page), HANG);
    let mut client = site.connect();
    assert_eq!(client.ask("GET /panic HTTP/1.1\r\nHost: test\r\n\r\n").text(), "sorry\n");
    assert_eq!(notices.recv_timeout(HANG).as_deref(), Ok("handler of GET /panic panicked: asked to"));
    assert_eq!(client.ask(PING).text(), "pong");
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
    assert_eq!(notices.try_iter().count(), 0);
}

#[test]
fn a_wrapper_can_catch_a_panic_and_its_own_is_answered_500() {
    let site = Site::start(one_loop(), around(routes(), panic_page));
    let mut client = site.connect();
    let reply = client.ask("GET /panic HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (500, "sorry\n", false));
    assert_eq!(client.ask(PING).text(), "pong");

    let site = Site::start(one_loop(), around(routes(), |_, _| -> Response { panic!("of the wrapper") }));
    let reply = ask_first(&mut site.connect(), "/none", 5);
    assert_eq!((reply.status, reply.is_last()), (500, true));
    assert_eq!(site.connect().ask(PING).status, 500);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

#[test]
fn a_wrapper_may_ask_twice_or_not_at_all() {
    let (sender, calls) = mpsc::channel();
    let router = Router::new().get("/{n}", move |request| {
        sender.send(request.param("n").unwrap().into_owned()).unwrap();
        Status::SERVICE_UNAVAILABLE
    });
    let again = around(router, |request, next| match request.raw_path() {
        "/never" => Response::text("never asked"),
        _ => [next(request), next(request)].into_iter().last().unwrap(),
    });
    let site = Site::start(one_loop(), again);
    let mut client = site.connect();
    assert_eq!(client.ask("GET /never HTTP/1.1\r\nHost: test\r\n\r\n").text(), "never asked");
    assert_eq!(client.ask("GET /7 HTTP/1.1\r\nHost: test\r\n\r\n").status, 503);
    assert_eq!(calls.try_iter().collect::<Vec<_>>(), ["7", "7"]);
}

// ---- Routers -------------------------------------------------------------------------------------------------------

#[test]
fn a_fallback_answers_for_paths_that_no_route_has() {
    let router = routes().fallback(|request| {
        let text = format!("no {} here, {} bytes", request.raw_path(), request.body().len());
        Response::text(text).with_status(Status::NOT_FOUND)
    });
    let site = Site::start(one_loop(), router.clone());
    let mut client = site.connect();
    let reply = client.ask(post("/none", "", "hello"));
    assert_eq!((reply.status, reply.text().as_str()), (404, "no /none here, 5 bytes"));
    assert_eq!(client.ask(PING).text(), "pong");
    assert_eq!(client.ask(post("/ping", "", "")).status, 405);
    let reply = client.ask("OPTIONS /ping HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!((reply.status, reply.header("allow")), (204, Some("GET, HEAD, OPTIONS")));
    // A clone is the same router, and goes its own way.
    let other = Site::start(one_loop(), router.get("/none", |_| Response::text("there")));
    assert_eq!(other.connect().ask("GET /none HTTP/1.1\r\nHost: test\r\n\r\n").text(), "there");
    assert_eq!(client.ask("GET /none HTTP/1.1\r\nHost: test\r\n\r\n").status, 404);
}

// ---- Without a socket ----------------------------------------------------------------------------------------------

#[test]
fn a_handler_answers_in_a_test_without_a_socket_as_it_does_on_one() {
    let router = routes().get("/who", |request| Response::text(request.peer().to_string()));
    let handler = marked(router.clone());
    let site = Site::start(Config { body_bytes_max: 1024 * 1024, ..one_loop() }, marked(router));
    let chunked = "POST /count HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for request in [
        PING.to_owned(),
        post("/echo", "", "hello"),
        post("/large", "", &"x".repeat(1000)),
        post("/large", "", &"x".repeat(1001)),
        post("/count", "", &"x".repeat(200_000)),
        chunked.to_owned(),
        chunked.replace("abc", "abcd"),
        post("/none", "Expect: 100-continue\r\n", "hello"),
        "POST /none HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "GET /stream HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let reply = site.connect().ask(&request);
        match answer(&handler, &request, &Peer::Unix) {
            Ok(response) => {
                assert_eq!((response.status().code(), response.body()), (reply.status, &reply.body[..]), "{request}");
                assert_eq!(response.field("x-passed"), reply.header("x-passed"));
            }
            Err(reject) => assert_eq!((reject.status().code(), reject.reason()), (reply.status, &*reply.text())),
        }
    }
    let who = answer(&handler, "GET /who HTTP/1.1\r\nHost: a\r\n\r\n", &Peer::Unix).unwrap();
    assert_eq!(who.body(), b"unix socket");
    let head = answer(&handler, "HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n", &Peer::Unix).unwrap();
    assert_eq!((head.status(), head.body()), (Status::OK, &b""[..]));
    assert_eq!(answer(&handler, "GET /who HT", &Peer::Unix).unwrap_err(), Reject::Timeout);
    assert_eq!(
        answer(&handler, post("/echo", "", "hello").trim_end_matches('o'), &Peer::Unix).err(),
        Some(Reject::Timeout)
    );
}

#[test]
#[should_panic(expected = "the stream failed: the body is 3 bytes shorter than was said")]
fn a_stream_that_fails_fails_the_test() {
    let short = |_: &Request<'_>| Response::stream("a/b", |out| out.write_all(b"12")).with_length(5);
    let _ = answer(&short, PING, &Peer::Unix);
}

// ---- The client ----------------------------------------------------------------------------------------------------

/// What a handler finds when it looks until something happens to its client.
fn looking(seen: mpsc::Sender<(bool, bool)>, gate: &Gate) -> Router {
    let look = move |request: &Request<'_>, gate: &Gate| {
        assert!(!request.client_has_gone() && !request.client_has_ended(), "it is there");
        gate.pass();
        let found = poll(|| {
            let found = (request.client_has_gone(), request.client_has_ended());
            found.1.then_some(found)
        });
        seen.send(found.expect("something happens to it")).unwrap();
        Response::text("looked")
    };
    let (also, gates) = (look.clone(), (gate.clone(), gate.clone()));
    Router::new().get("/ping", |_| Response::text("pong")).get("/held", move |request| look(request, &gates.0)).stream(
        Method::Post,
        "/streamed",
        move |request, body| {
            assert_eq!(body.read(&mut [0; 4]).unwrap(), 4);
            also(request, &gates.1)
        },
    )
}

fn ask_to_stream(length: usize) -> String {
    format!("POST /streamed HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\nbody")
}

#[test]
fn a_handler_learns_that_its_client_has_reset() {
    for request in [get("/held"), ask_to_stream(4), ask_to_stream(5)] {
        let ((seen, found), gate) = (mpsc::channel(), Gate::new());
        let site = Site::start(one_loop(), looking(seen, &gate));
        let mut client = site.connect();
        client.send(PING.to_owned() + &request);
        gate.wait_for(1);
        reset(client);
        gate.open();
        assert_eq!(found.recv_timeout(HANG), Ok((true, true)), "{request}");
        assert_eq!(site.connect().ask(PING).text(), "pong");
    }
}

#[test]
fn a_client_that_has_ended_its_side_alone_has_not_gone() {
    for request in [get("/held"), ask_to_stream(4)] {
        let ((seen, found), gate) = (mpsc::channel(), Gate::new());
        let site = Site::start(one_loop(), looking(seen, &gate));
        let mut client = site.connect();
        client.send(&request);
        gate.wait_for(1);
        client.finish();
        gate.open();
        assert_eq!(found.recv_timeout(HANG), Ok((false, true)), "{request}");
        assert_eq!(client.reply().text(), "looked");
    }
}

/// Without a look behind what has come, these cannot be seen.
#[cfg(all(target_os = "linux", feature = "sys"))]
#[test]
fn what_a_client_has_sent_before_does_not_hide_its_end() {
    for is_gone in [true, false] {
        let ((seen, found), gate) = (mpsc::channel(), Gate::new());
        let (site, path) = crate::drain::unix_site(one_loop(), looking(seen, &gate));
        let mut client = Client::connect_unix(&path);
        client.send(get("/held") + &PING.repeat(3));
        gate.wait_for(1);
        // Dropped, unless it only ends its side.
        let half = Some(client).filter(|_| !is_gone);
        half.iter().for_each(Client::finish);
        gate.open();
        assert_eq!(found.recv_timeout(HANG), Ok((is_gone, true)));
        drop(half);
        site.stop();
        crate::drain::expect_clean(site);
    }
}

#[test]
fn a_client_that_is_cut_off_at_the_deadline_has_gone() {
    for request in [get("/held"), ask_to_stream(4)] {
        let ((seen, found), gate) = (mpsc::channel(), Gate::new());
        let site = Site::start_with_grace(one_loop(), looking(seen, &gate), Duration::from_millis(100));
        let mut client = site.connect();
        client.send(&request);
        gate.wait_for(1);
        site.stop();
        assert_eq!(site.outcome().exit_code(), 124);
        gate.open();
        assert_eq!(found.recv_timeout(HANG), Ok((true, true)), "{request}");
    }
}

#[test]
fn nobody_can_tell_where_there_is_no_connection() {
    let router = Router::new().get("/ping", |request| Response::text(request.client_has_ended().to_string()));
    assert_eq!(answer(&router, PING, &Peer::Unix).unwrap().body(), b"false");
    // One that answers at once may do so while its loop cannot say.
    let gate = Gate::new();
    let stuck = gate.clone();
    let router = Router::new()
        .at_once(Method::Get, "/ping", |request| Response::text(request.client_has_gone().to_string()))
        .get("/hold", move |_| {
            stuck.pass();
            Response::text("held")
        });
    let site = Site::start(Config { handlers_max: 1, ..one_loop() }, router);
    let mut holder = site.connect();
    assert_eq!(holder.ask(PING).text(), "false");
    holder.send(get("/hold"));
    gate.wait_for(1);
    assert_eq!(site.connect().ask(PING).text(), "false");
    gate.open();
    assert_eq!(holder.reply().text(), "held");
}
