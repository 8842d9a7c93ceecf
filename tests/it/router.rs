//! The router, what a handler sees of a request, and what it can answer, over the wire.

use std::io::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, mpsc};

use allout::{
    BodyReader, Config, FieldError, Method, Peer, Request, Response, Router, Server, Status, Version, answer,
};

use crate::support::{Client, HANG, Site};

/// A handler that says which route it is.
fn says(text: &'static str) -> impl Fn(&Request<'_>) -> Response {
    move |_| Response::text(text)
}

fn ask(client: &mut Client, line: &str) -> (u16, String) {
    let reply = client.ask(format!("{line} HTTP/1.1\r\nHost: test\r\n\r\n"));
    (reply.status, reply.text())
}

/// Asks a site with these routes, and ends it.
#[track_caller]
fn check(router: Router, expected: &[(&str, u16, &str)]) {
    let site = Site::start(Config::default(), router);
    let mut client = site.connect();
    for (line, status, text) in expected {
        assert_eq!(ask(&mut client, line), (*status, (*text).to_owned()), "{line}");
    }
    drop(client);
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
}

// ---- Routes --------------------------------------------------------------------------------------------------------

#[test]
fn paths_match_whole_decoded_and_with_regard_to_case() {
    let router =
        Router::new().get("/", says("root")).get("/a", says("a")).get("/a/", says("a/")).get("/a/b c", says("b"));
    check(
        router,
        &[
            ("GET /", 200, "root"),
            ("GET /a", 200, "a"),
            ("GET /%61", 200, "a"),
            ("GET /a?b", 200, "a"),
            ("GET /a/", 200, "a/"),
            ("GET /a/b%20c", 200, "b"),
            ("GET /A", 404, "not found\n"),
            ("GET /a//", 404, "not found\n"),
            ("GET //a", 404, "not found\n"),
            ("GET /a/b", 404, "not found\n"),
            // An escaped slash separates nothing.
            ("GET /a%2F", 404, "not found\n"),
            ("GET /a/./", 404, "not found\n"),
        ],
    );
}

#[test]
fn captures_are_whole_decoded_segments() {
    let show = |request: &Request<'_>| {
        let of = |name| request.param(name).map(std::borrow::Cow::into_owned);
        Response::text(format!("{:?} {:?} {:?}", of("user"), of("post"), of("other")))
    };
    check(
        Router::new().get("/users/{user}/posts/{post}", show).get("/users/{user}", show).get("/plain", show),
        &[
            ("GET /users/7", 200, r#"Some("7") None None"#),
            ("GET /users/a%20b%2Fc%25?x", 200, r#"Some("a b/c%") None None"#),
            ("GET /users/%C3%A9+", 200, "Some(\"\u{e9}+\") None None"),
            ("GET /users/7/posts/8", 200, r#"Some("7") Some("8") None"#),
            ("GET /%75sers/7/p%6fsts/%2f", 200, r#"Some("7") Some("/") None"#),
            ("GET http://a.test/users/7", 200, r#"Some("7") None None"#),
            ("GET /plain", 200, "None None None"),
            ("GET /users/", 404, "not found\n"),
            ("GET /users/7/", 404, "not found\n"),
            ("GET /users//posts/8", 404, "not found\n"),
            ("GET /users/7/posts/8/9", 404, "not found\n"),
        ],
    );
}

#[test]
fn of_several_matches_the_one_with_fewer_captures_is_meant() {
    let router = Router::new()
        .get("/{one}/{two}", says("two"))
        .get("/{one}/b", says("right"))
        .get("/a/{two}", says("left"))
        .get("/a/b", says("exact"));
    check(
        router,
        &[
            ("GET /a/b", 200, "exact"),
            ("GET /a/%62", 200, "exact"),
            ("GET /x/b", 200, "right"),
            ("GET /a/x", 200, "left"),
            ("GET /x/y", 200, "two"),
        ],
    );
    // Of two with as many, the one that was added first.
    check(Router::new().get("/{one}/b", says("right")).get("/a/{two}", says("left")), &[("GET /a/b", 200, "right")]);
}

#[test]
fn a_handler_gives_whatever_becomes_a_response() {
    struct Fault(&'static str);

    impl From<Fault> for Response {
        fn from(Fault(why): Fault) -> Self {
            Response::text(why).with_status(Status::BAD_REQUEST)
        }
    }

    fn half(request: &Request<'_>) -> Result<Response, Fault> {
        let number = request.param("n").ok_or(Fault("no number"))?;
        let number: u32 = number.parse().map_err(|_| Fault("not a number"))?;
        Ok(Response::text((number / 2).to_string()))
    }

    let router = Router::new()
        .get("/half/{n}", half)
        .patch("/half/{n}", |request| half(request).map(|_| Status::CREATED))
        .get("/teapot", |_| Status::from_code(418).unwrap())
        .route(Method::Put, "/half/{n}", |_: &Request<'_>| Status::FORBIDDEN)
        .at_once(Method::Get, "/at-once", |_| Ok::<_, Status>(Response::text("at once")))
        .stream(Method::Post, "/stream", |_, body| {
            let bytes = std::io::copy(body, &mut std::io::sink()).map_err(|_| Status::BAD_REQUEST)?;
            Ok::<_, Status>(Response::text(bytes.to_string()))
        });
    check(
        router,
        &[
            ("GET /half/8", 200, "4"),
            ("GET /half/x", 400, "not a number"),
            ("PATCH /half/8", 201, ""),
            ("PATCH /half/x", 400, "not a number"),
            ("GET /teapot", 418, ""),
            ("PUT /half/8", 403, ""),
            ("GET /at-once", 200, "at once"),
            ("POST /stream", 200, "0"),
        ],
    );
}

#[test]
fn every_method_has_its_handler() {
    let mut router = Router::new();
    for method in [Method::Get, Method::Head, Method::Post, Method::Put, Method::Patch, Method::Delete, Method::Options]
    {
        router = router.route(method, "/", move |request: &Request<'_>| {
            assert_eq!(request.method(), method);
            Response::text(method.name())
        });
    }
    let site = Site::start(Config::default(), router);
    let mut client = site.connect();
    for name in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert_eq!(ask(&mut client, &format!("{name} /")), (200, name.to_owned()));
    }
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(client.reply_to_head().header("content-length"), Some("4"));
}

#[test]
fn head_is_answered_by_the_handler_of_get() {
    let site = Site::start(Config::default(), Router::new().get("/", says("hello")).post("/post", says("posted")));
    let mut client = site.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = client.reply_to_head();
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
    client.send("HEAD /post HTTP/1.1\r\nHost: test\r\n\r\n");
    let reply = client.reply_to_head();
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST, OPTIONS")));
    // Nothing of a body was sent in between.
    assert_eq!(ask(&mut client, "GET /"), (200, "hello".to_owned()));
}

#[test]
fn methods_that_a_path_does_not_have_are_told_those_that_it_has() {
    let router = Router::new()
        .put("/a", says(""))
        .get("/a", says(""))
        .delete("/a", says(""))
        .post("/b", says(""))
        .get("/{any}", says(""))
        .patch("/c/d", says(""));
    let site = Site::start(Config::default(), router);
    let mut client = site.connect();
    let mut allow = |line: &str| {
        let reply = client.ask(format!("{line} HTTP/1.1\r\nHost: test\r\n\r\n"));
        (reply.status, reply.header("allow").map(str::to_owned), reply.header("content-length").map(str::to_owned))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(allow("POST /a"), (405, text("GET, HEAD, PUT, DELETE, OPTIONS"), text("19")));
    // The path that matches best decides, even if another one has the method.
    assert_eq!(allow("GET /b"), (405, text("POST, OPTIONS"), text("19")));
    assert_eq!(allow("DELETE /x"), (405, text("GET, HEAD, OPTIONS"), text("19")));
    assert_eq!(allow("GET /c/d"), (405, text("PATCH, OPTIONS"), text("19")));
    assert_eq!(allow("OPTIONS /a"), (204, text("GET, HEAD, PUT, DELETE, OPTIONS"), None));
    assert_eq!(allow("OPTIONS /c/d"), (204, text("PATCH, OPTIONS"), None));
    assert_eq!(allow("OPTIONS *"), (204, text("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"), None));
    assert_eq!(allow("OPTIONS /c/none"), (404, None, text("10")));
}

#[test]
fn a_router_without_routes_finds_nothing() {
    check(Router::new(), &[("GET /", 404, "not found\n"), ("OPTIONS *", 204, "")]);
}

#[test]
fn a_router_can_be_a_handler_within_another() {
    let show = |request: &Request<'_>| Response::text(format!("{:?} {:?}", request.param("y"), request.param("x")));
    let inner = Router::new().get("/{y}/7", says("seven")).get("/in/{y}", show);
    // The inner router matches anew: its captures are the ones that are seen.
    check(
        Router::new().route(Method::Get, "/in/{x}", inner),
        &[
            ("GET /in/7", 200, "seven"),
            ("GET /in/8", 200, r#"Some("8") None"#),
            ("POST /in/8", 405, "method not allowed\n"),
            ("GET /out/7", 404, "not found\n"),
        ],
    );
}

#[test]
fn a_router_shows_its_routes() {
    let router = Router::new().get("/a", says("")).post("/a", says("")).get("/{b}", says(""));
    assert_eq!(format!("{router:?}"), r#"["GET /a", "POST /a", "GET /{b}"]"#);
}

#[test]
#[should_panic(expected = "bad route `ping`: it must begin with `/`")]
fn a_route_without_a_slash_panics() {
    let _ = Router::new().get("ping", says(""));
}

#[test]
#[should_panic(expected = "bad route `/a{b}`: it has a capture that is not a whole segment")]
fn a_route_with_half_a_segment_panics() {
    let _ = Router::new().get("/a{b}", says(""));
}

#[test]
#[should_panic(expected = "bad route `/{}`: it has a capture without a name")]
fn a_route_with_a_nameless_capture_panics() {
    let _ = Router::new().get("/{}", says(""));
}

#[test]
#[should_panic(expected = "bad route `/{a}/{a}`: it has two captures of one name")]
fn a_route_with_a_name_twice_panics() {
    let _ = Router::new().get("/{a}/{a}", says(""));
}

#[test]
#[should_panic(expected = "two handlers for POST /a/{b}")]
fn two_handlers_for_one_route_panic() {
    let _ = Router::new().get("/a/{b}", says("")).post("/a/{b}", says("")).post("/a/{b}", says(""));
}

#[test]
#[should_panic(expected = "routes `/a/{c}` and `/a/{b}` differ in names")]
fn one_path_by_two_names_panics() {
    let _ = Router::new().get("/a/{b}", says("")).post("/a/{c}", says(""));
}

// ---- Requests ------------------------------------------------------------------------------------------------------

/// What a handler makes of one request.
#[track_caller]
fn seen(request: impl AsRef<[u8]>, look: impl Fn(&Request<'_>) -> String + Send + Sync + 'static) -> String {
    let site = Site::start(Config::default(), move |request: &Request<'_>| Response::text(look(request)));
    let mut client = site.connect();
    let reply = client.ask(request);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

#[test]
fn a_target_is_seen_raw_and_decoded() {
    let look = |request: &Request<'_>| {
        format!("{} | {} | {:?} | {:?}", request.path(), request.raw_path(), request.query(), request.host())
    };
    for (target, expected) in [
        ("/", "/ | / | None"),
        ("/a%20b%2Fc", "/a b/c | /a%20b%2Fc | None"),
        ("/a?", r#"/a | /a | Some("")"#),
        ("/a?b=%20&c?d", r#"/a | /a | Some("b=%20&c?d")"#),
        ("/%C3%A9", "/\u{e9} | /%C3%A9 | None"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: a.test:80\r\n\r\n");
        assert_eq!(seen(request, look), format!(r#"{expected} | Some("a.test:80")"#));
    }
    // An absolute target's host is the one that counts (RFC 9112 §3.2.2).
    for (target, expected) in [
        ("http://b.test:81/a?c", r#"/a | /a | Some("c") | Some("b.test:81")"#),
        ("http://b.test", r#"/ | / | None | Some("b.test")"#),
        ("http://b.test?c", r#"/ | / | Some("c") | Some("b.test")"#),
        ("HTTP://[::1]/", r#"/ | / | None | Some("[::1]")"#),
    ] {
        assert_eq!(seen(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"), look), expected);
    }
    assert_eq!(seen("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", look), r#"* | * | None | Some("")"#);
    assert_eq!(seen("GET / HTTP/1.0\r\n\r\n", look), "/ | / | None | None");
    assert_eq!(seen("GET / HTTP/1.0\r\nHost: c\r\n\r\n", look), r#"/ | / | None | Some("c")"#);
}

#[test]
fn versions_are_seen() {
    let look = |request: &Request<'_>| request.version().to_string();
    for (sent, read) in [("1.0", "HTTP/1.0"), ("1.1", "HTTP/1.1"), ("1.7", "HTTP/1.1")] {
        assert_eq!(seen(format!("GET / HTTP/{sent}\r\nHost: a\r\n\r\n"), look), read);
    }
}

#[test]
fn header_fields_are_found_without_regard_to_case() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-TWO:\t2, \xff \r\nX-ONE:  one\r\nX-Empty:\r\n\r\n";
    let text = seen(request, |request| {
        let headers = request.headers();
        assert_eq!(headers.get("x-one"), Some(&b"1"[..]));
        assert_eq!(headers.get("X-Two"), Some(&b"2, \xff"[..]));
        assert_eq!(headers.get_str("x-two"), None, "it is not UTF-8");
        assert_eq!(headers.get_str("HOST"), Some("a"));
        assert_eq!(headers.get("x-empty"), Some(&b""[..]));
        assert_eq!(headers.get("x-three"), None);
        assert_eq!(headers.get_all("X-one").collect::<Vec<_>>(), [&b"1"[..], b"one"]);
        assert_eq!(headers.get_all("x-three").count(), 0);
        let names: Vec<_> = headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["Host", "X-One", "x-TWO", "X-ONE", "X-Empty"]);
        assert_eq!((headers.len(), headers.is_empty()), (5, false));
        format!("{headers:?}")
    });
    assert_eq!(
        text,
        "{\"Host\": \"a\", \"X-One\": \"1\", \"x-TWO\": \"2, \u{fffd}\", \"X-ONE\": \"one\", \"X-Empty\": \"\"}"
    );
}

#[test]
fn a_request_without_fields_has_none() {
    assert_eq!(seen("GET / HTTP/1.0\r\n\r\n", |request| request.headers().is_empty().to_string()), "true");
}

#[test]
fn bodies_are_seen_without_their_coding() {
    let look = |request: &Request<'_>| format!("{:?}", String::from_utf8_lossy(request.body()));
    assert_eq!(seen("GET / HTTP/1.1\r\nHost: a\r\n\r\n", look), r#""""#);
    assert_eq!(seen("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na\0b", look), r#""a\0b""#);
    let chunked =
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\na\0\r\n1\r\nb\r\n0\r\nA: b\r\n\r\n";
    assert_eq!(seen(chunked, look), r#""a\0b""#);
    // Trailers are not fields.
    assert_eq!(seen(chunked, |request| request.headers().len().to_string()), "2");
}

#[test]
fn a_peer_is_seen() {
    let site = Site::start(Config::default(), |request: &Request<'_>| {
        assert!(matches!(request.peer(), Peer::Tcp(_)) && request.peer().is_local());
        Response::text(request.peer().to_string())
    });
    let mut client = site.connect();
    let own = client.stream.local_addr().unwrap().to_string();
    assert_eq!(ask(&mut client, "GET /"), (200, own));
}

#[test]
fn a_request_shows_itself_without_its_body() {
    let request = "POST /a?b HTTP/1.1\r\nHost: c\r\nContent-Length: 6\r\n\r\nsecret";
    let text = seen(request, |request| format!("{request:?}"));
    assert!(text.starts_with("Request { method: Post, path: \"/a\", query: Some(\"b\"), headers: "), "{text}");
    assert!(text.contains("body_bytes: 6") && !text.contains("secret"), "{text}");
}

// ---- Responses -----------------------------------------------------------------------------------------------------

#[test]
fn fields_that_cannot_be_sent_are_refused() {
    let check = |name: &'static str, value: &'static str, expected: Option<FieldError>| {
        assert_eq!(Response::text("").try_field(name, value).err(), expected, "{name:?}: {value:?}");
    };
    for (name, value) in
        [("X-A", ""), ("x", "a\tb \u{e9}"), ("!#$%&'*+-.^_`|~", "a:b, c;d=\"e\""), ("Set-Cookie", "a=b")]
    {
        check(name, value, None);
    }
    for name in ["", " ", "a b", "a:", "a\r\nb", "a\0", "\u{e9}", "(a)", "a\n"] {
        check(name, "x", Some(FieldError::Name));
    }
    for value in ["a\r\nSet-Cookie: b", "a\n", "\r", "\0", "\u{7f}", "\u{1b}[31m", "\u{b}"] {
        check("X-A", value, Some(FieldError::Value));
    }
    for name in
        ["Connection", "Content-Length", "date", "Keep-Alive", "TRAILER", "transfer-encoding", "Upgrade", "cOnNeCtIoN"]
    {
        check(name, "x", Some(FieldError::Reserved));
    }
    assert_eq!(FieldError::Reserved.to_string(), "the server itself writes this field");
}

#[test]
fn statuses_are_final_ones() {
    for code in [0, 100, 101, 199, 600, 999] {
        assert_eq!(Status::from_code(code), None, "{code}");
    }
    assert_eq!(Status::from_code(404), Some(Status::NOT_FOUND));
    let own = Status::from_code(299).unwrap();
    assert_eq!((own.code(), own.reason(), own.is_bodiless()), (299, "", false));
    assert_eq!(Status::from_code(418).unwrap().to_string(), "418 ");
    assert_eq!(Status::NOT_FOUND.to_string(), "404 Not Found");
}

#[test]
fn a_response_goes_out_as_it_was_made() {
    let router = Router::new()
        .get("/fields", |_| {
            Response::text("a").with_field("X-A", "1").with_field("x-a", format!("{}", 2)).with_status(Status::CREATED)
        })
        .get("/html", |_| Response::text("<p>").with_field("content-TYPE", "text/html"))
        .get("/json", |_| Response::bytes("application/json", &b"{}"[..]))
        .get("/own", |_| Response::new(Status::from_code(299).unwrap()).with_text("own"))
        .get("/none", |_| Response::new(Status::OK))
        .get("/cached", |_| Response::new(Status::NOT_MODIFIED).with_text("never sent"))
        .get("/last", |_| Response::text("last").closing());
    let site = Site::start(Config { linger: HANG, ..Config::default() }, router);
    let mut client = site.connect();
    let mut head = |path: &str, end: &str| {
        let reply = client.ask(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let lines = reply.head.lines().filter(|line| !line.starts_with("Date: ") && !line.is_empty());
        assert_eq!(format!("{} | {}", lines.collect::<Vec<_>>().join(" | "), reply.text()), end);
    };
    head(
        "/fields",
        "HTTP/1.1 201 Created | Content-Type: text/plain; charset=utf-8 | X-A: 1 | x-a: 2 | Content-Length: 1 | a",
    );
    head("/html", "HTTP/1.1 200 OK | Content-Type: text/html | Content-Length: 3 | <p>");
    head("/json", "HTTP/1.1 200 OK | Content-Type: application/json | Content-Length: 2 | {}");
    head("/own", "HTTP/1.1 299  | Content-Type: text/plain; charset=utf-8 | Content-Length: 3 | own");
    head("/none", "HTTP/1.1 200 OK | Content-Length: 0 | ");
    head("/cached", "HTTP/1.1 304 Not Modified | Content-Type: text/plain; charset=utf-8 | ");
    head(
        "/last",
        "HTTP/1.1 200 OK | Content-Type: text/plain; charset=utf-8 | Content-Length: 4 | Connection: close | last",
    );
    client.finish();
    client.expect_fin();
}

#[test]
fn content_is_text_or_bytes_of_a_media_type_that_may_be_made() {
    let vendor = String::from("application/vnd.allout+json");
    let made = Response::bytes(vendor.clone(), format!("{{\"{}\": 1}}", "a"));
    assert_eq!(made.fields().collect::<Vec<_>>(), [("Content-Type", vendor.as_str())]);
    assert_eq!(made.body(), b"{\"a\": 1}");
    for same in [
        Response::bytes("a/b", "text"),
        Response::bytes("a/b", b"text"),
        Response::bytes("a/b", &b"text"[..]),
        Response::bytes("a/b", String::from("text")),
        Response::bytes("a/b", b"text".to_vec()),
        Response::bytes("a/b", std::borrow::Cow::Borrowed("text")),
    ] {
        assert_eq!(same.body(), b"text");
    }
}

#[test]
#[should_panic(expected = "cannot add a header field: the field value has a control character")]
fn a_media_type_with_a_line_break_panics() {
    let _ = Response::bytes(String::from("a/b\r\nSet-Cookie: c=d"), "");
}

#[test]
#[should_panic(expected = "cannot add a header field: the field value has a control character")]
fn a_streams_media_type_with_a_line_break_panics() {
    let _ = Response::stream("a/b\n", |_| Ok(()));
}

#[test]
fn a_later_content_type_replaces_an_earlier_whichever_way_it_was_given() {
    #[track_caller]
    fn check(response: Response, wanted: (&str, &str)) {
        let fields: Vec<_> = response.fields().filter(|(name, _)| name.eq_ignore_ascii_case("content-type")).collect();
        assert_eq!(fields, [("Content-Type", wanted.1)]);
        // And on the wire.
        let response = Mutex::new(Some(response));
        let answer = move |_: &Request<'_>| response.lock().unwrap().take().unwrap();
        let site = Site::start(Config::default(), answer);
        let head = site.connect().ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n").head.to_lowercase();
        let line = format!("\r\n{}: {}\r\n", wanted.0, wanted.1).to_lowercase();
        assert_eq!((head.matches("content-type").count(), head.contains(&line)), (1, true), "{head}");
    }
    const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");
    check(Response::new(Status::OK).with_field("Content-Type", "a/b").with_text("a"), TEXT);
    check(Response::new(Status::OK).with_field("content-type", "a/b").with_field("X", "y").with_text("a"), TEXT);
    check(Response::bytes("a/b", b"c".as_slice()).with_text("a"), TEXT);
    check(Response::stream("a/b", |_| Ok(())).with_text("a"), TEXT);
    check(Response::text("a").with_field("Content-Type", "a/b").with_text("c"), TEXT);
    check(Response::text("a").with_field("content-TYPE", "a/b"), ("content-TYPE", "a/b"));
    check(Response::bytes("a/b", b"c".as_slice()).with_field("Content-Type", "d/e"), ("Content-Type", "d/e"));
    check(Response::stream("a/b", |_| Ok(())).with_field("Content-Type", "d/e"), ("Content-Type", "d/e"));
    let twice = Response::new(Status::OK).with_field("Content-Type", "a/b").with_field("CONTENT-TYPE", "c/d");
    check(twice, ("CONTENT-TYPE", "c/d"));
    let tried = Response::bytes("a/b", b"c".as_slice()).try_field("Content-Type", "d/e").unwrap();
    check(tried.try_field("content-type", "f/g").unwrap(), ("content-type", "f/g"));
    // One that cannot be sent replaces nothing, and other fields may be there twice.
    let kept = Response::bytes("a/b", b"c".as_slice());
    assert_eq!(kept.try_field("Content-Type", "d\r\ne").unwrap_err(), FieldError::Value);
    let others = Response::text("a").with_field("X", "1").with_field("Content-Type", "a/b").with_field("x", "2");
    assert_eq!(others.fields().collect::<Vec<_>>(), [("Content-Type", "a/b"), ("X", "1"), ("x", "2")]);
}

#[test]
fn a_field_that_cannot_be_sent_never_reaches_the_wire() {
    let server = Server::bind("127.0.0.1:0", Config::default()).unwrap();
    let (sender, notices) = mpsc::channel();
    let server = server.on_notice(move |notice| sender.send(notice.to_string()).unwrap());
    let handler = |request: &Request<'_>| {
        let value = request.query().unwrap_or_default().replace('|', "\r\n");
        Response::text("hello").with_field("X-Query", value)
    };
    let site = Site::run(server, handler, HANG);
    let mut client = site.connect();
    assert_eq!(client.ask("GET /?a HTTP/1.1\r\nHost: a\r\n\r\n").header("x-query"), Some("a"));
    let reply = client.ask("GET /?a|Set-Cookie:b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((reply.status, reply.text().as_str(), reply.is_last()), (500, "internal server error\n", true));
    assert_eq!(reply.header("set-cookie"), None);
    let notice = notices.recv_timeout(HANG).unwrap();
    assert_eq!(notice, "handler of GET / panicked: cannot add a header field: the field value has a control character");
}

#[test]
fn what_follows_an_answer_is_called_once_it_has_left() {
    let (sender, called) = mpsc::channel();
    let site = Site::start(Config::default(), move |_: &Request<'_>| {
        let sender = sender.clone();
        Response::text("hello").on_sent(move || sender.send(()).unwrap())
    });
    let mut client = site.connect();
    for _ in 0..3 {
        assert_eq!(ask(&mut client, "GET /").1, "hello");
        called.recv_timeout(HANG).unwrap();
    }
    assert!(called.try_recv().is_err(), "it is called once for each answer");
}

#[test]
fn all_that_follows_an_answer_is_called_in_order_and_nothing_before_it_has_left() {
    let (sender, called) = mpsc::channel();
    let site = Site::start(Config::default(), move |request: &Request<'_>| {
        let tell = |what: &'static str| {
            let sender = sender.clone();
            move || sender.send(what).unwrap()
        };
        let response = if request.raw_path() == "/streamed" {
            Response::stream("text/plain", |out| out.write_all(b"hello"))
        } else {
            Response::text("hello")
        };
        let response = response.on_sent(tell("first")).on_sent(tell("second")).on_sent(tell("third"));
        sender.send("handled").unwrap();
        response
    });
    for path in ["/", "/streamed"] {
        for method in ["GET", "HEAD"] {
            let mut client = site.connect();
            client.send(format!("{method} {path} HTTP/1.0\r\n\r\n"));
            let told: Vec<_> = (0..4).map(|_| called.recv_timeout(HANG).unwrap()).collect();
            assert_eq!(told, ["handled", "first", "second", "third"], "{method} {path}");
        }
    }
    assert!(called.try_recv().is_err(), "each is called once");
}

#[test]
fn what_follows_an_answer_that_is_never_sent_is_called_in_order_too() {
    let (sender, called) = mpsc::channel();
    let tell = |what: &'static str| {
        let sender = sender.clone();
        move || sender.send(what).unwrap()
    };
    let response = Response::text("lost").on_sent(tell("first")).on_sent(tell("second"));
    assert!(called.try_recv().is_err(), "before it is lost");
    drop(response);
    assert_eq!(called.try_iter().collect::<Vec<_>>(), ["first", "second"]);
    // A panic in one takes nothing away from the others.
    let response = Response::text("lost").on_sent(|| panic!("of the first")).on_sent(tell("second"));
    let _ = catch_unwind(AssertUnwindSafe(|| drop(response)));
    assert_eq!(called.try_iter().collect::<Vec<_>>(), ["second"]);
}

#[test]
fn what_is_public_can_be_sent_shared_shown_and_compared() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    fn plain<T: Clone + Eq + std::hash::Hash + std::fmt::Debug>() {}
    fn error<T: std::error::Error + Send + Sync + 'static>() {}

    fn sent<T: Send + std::fmt::Debug>() {}

    sent::<(Server, allout::Group, Response)>();
    shared::<(Router, Config, allout::Stop, allout::Outcome, allout::Stats)>();
    shared::<(Request<'_>, allout::Headers<'_>, allout::HeadersIter<'_>, allout::Notice<'_>)>();
    shared::<(allout::Liveness, allout::Inherited, allout::BindError)>();
    #[cfg(feature = "signals")]
    shared::<(allout::signals::Signals, allout::signals::InstallError)>();
    plain::<(Method, Version, Status, Peer, FieldError, allout::Reject, allout::BodyPlan, allout::Content)>();
    plain::<(allout::Address, allout::LocalAddress, allout::Cause, allout::Want)>();
    plain::<(allout::AddressError, allout::CutOff, allout::Exit, allout::StatusError)>();
    error::<allout::AddressError>();
    error::<allout::BindError>();
    error::<FieldError>();
    error::<allout::StatusError>();
    error::<allout::Reject>();
    error::<allout::CutOff>();
    #[cfg(feature = "signals")]
    error::<allout::signals::InstallError>();
    assert_eq!((u16::from(Status::OK), Version::Http10.to_string()), (200, "HTTP/1.0".to_owned()));
    assert_eq!(Status::try_from(404), Ok(Status::NOT_FOUND));
    assert_eq!(Status::try_from(100).unwrap_err().to_string(), "100 is not a final status: 200 to 599");
}

/// What is the embedder's is named and no more: nothing is said of what it holds.
#[test]
fn what_holds_the_embedders_own_shows_its_name() {
    let response = Response::stream("text/plain", |_| Ok(())).on_sent(|| {});
    let text = format!("{response:?}");
    assert!(text.contains("WriteBody") && text.contains("AfterAnswer"), "{text}");
    let reads = |request: &Request<'_>, body: &mut BodyReader<'_>| {
        assert!(request.body().is_empty(), "it is still on the way");
        // What is not streamed has its own length.
        Response::text(format!("{body:?}")).with_length(1)
    };
    let router = Router::new()
        .get("/", |_| Response::stream("text/plain", |out| out.write_all(format!("{out:?}").as_bytes())))
        .stream(Method::Post, "/", reads);
    let peer = Peer::from(SocketAddr::from(([192, 0, 2, 1], 80)));
    assert_eq!((peer.to_string(), peer.is_local()), ("192.0.2.1:80".to_owned(), false));
    let shown = |request: &str| String::from_utf8(answer(&router, request, &peer).unwrap().body().to_vec()).unwrap();
    assert_eq!(shown("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "BodyWriter");
    assert_eq!(shown("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"), "BodyReader");
}

#[test]
fn header_fields_can_be_gone_through() {
    let text = seen("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n", |request| {
        let mut names = Vec::new();
        for (name, _) in request.headers() {
            names.push(name);
        }
        let values = (&request.headers()).into_iter().map(|(_, value)| String::from_utf8_lossy(value));
        let (fields, last) = (request.headers().iter(), request.headers().iter().next_back().map(|(name, _)| name));
        let back: Vec<_> = request.headers().iter().rev().map(|(name, _)| name).collect();
        format!("{names:?} {:?} {fields:?} {last:?} of {} {back:?}", values.collect::<Vec<_>>(), fields.len())
    });
    assert_eq!(text, r#"["Host", "X"] ["a", "y"] ["Host", "X"] Some("X") of 2 ["X", "Host"]"#);
}

/// Where the embedder's mistakes are reported, on threads of this name.
static PLACES: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());
const MISTAKEN: &str = "mistaken";

#[test]
fn a_mistake_is_reported_where_it_was_made() {
    let others = take_hook();
    set_hook(Box::new(move |panic| match panic.location() {
        Some(place) if std::thread::current().name() == Some(MISTAKEN) => {
            PLACES.lock().unwrap().push((place.file().to_owned(), place.line()));
        }
        _ => others(panic),
    }));
    let page = |_: &Request<'_>| Status::OK;
    let before = line!() + 1;
    let mistakes: [&(dyn Fn() + Sync); 8] = [
        &|| _ = Router::new().get("bad", page),
        &|| _ = Router::new().route(Method::Get, "bad", page),
        &|| _ = Router::new().at_once(Method::Get, "bad", page),
        &|| _ = Router::new().hold(Method::Put, "bad", 1, page),
        &|| _ = Router::new().stream(Method::Put, "bad", |_, _| Status::OK),
        &|| _ = Response::text("").with_field("bad name", ""),
        &|| _ = Response::bytes("bad\n", ""),
        &|| _ = Response::stream("bad\n", |_| Ok(())),
    ];
    std::thread::scope(|scope| {
        let run = || mistakes.iter().for_each(|mistake| assert!(catch_unwind(AssertUnwindSafe(mistake)).is_err()));
        std::thread::Builder::new().name(MISTAKEN.to_owned()).spawn_scoped(scope, run).unwrap();
    });
    let wanted: Vec<_> = (1..).take(mistakes.len()).map(|line| (file!().to_owned(), before + line)).collect();
    assert_eq!(*PLACES.lock().unwrap(), wanted);
}
