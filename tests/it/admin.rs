//! The admin listener, `/metrics` and `/status`: of the real binary, before, during and after a stop.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use crate::support::{Client, PING, Process, Reply, allout, demo, poll, skip};

const SHUTDOWN: &str = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";
const ANY: &str = "127.0.0.1:0";
/// A grace period that no test waits for.
const LONG: &str = "1000";

// ---- Helpers -------------------------------------------------------------------------------------------------------

fn with_admin(start: impl Fn(&[&str]) -> Process, arguments: &[&str]) -> (Process, SocketAddr, SocketAddr) {
    let mut process = start(&[&["--listen", ANY, "--admin", ANY], arguments].concat());
    // Which of the two lines comes first is nobody's promise.
    let (mut public, mut admin) = (None, None);
    while public.is_none() || admin.is_none() {
        let line = process.line_with(" on http://");
        let address = line.rsplit('/').next().unwrap().parse().unwrap();
        *if line.starts_with("admin on ") { &mut admin } else { &mut public } = Some(address);
    }
    (process, public.unwrap(), admin.unwrap())
}

fn get(address: SocketAddr, path: &str, fields: &str) -> Reply {
    Client::connect(address).ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n"))
}

fn text_of_status(address: SocketAddr) -> String {
    get(address, "/status", "Accept: text/plain\r\n").text()
}

/// A page's stream of events.
struct Events(Client);

impl Events {
    fn open(address: SocketAddr) -> Self {
        let mut client = Client::connect(address);
        client.send("GET /status HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
        let head = client.next_head().unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(head.header("cache-control"), Some("no-store"));
        Self(client)
    }

    /// The next event; `None` at the stream's end.
    fn next(&mut self) -> Option<String> {
        let chunk = String::from_utf8(self.0.chunk()?).unwrap();
        let event = chunk.split_once("data: ").expect(&chunk).1.strip_suffix("\n\n").expect(&chunk);
        assert!(!event.contains('\n'), "{event}");
        Some(event.to_owned())
    }

    /// The next event with this text.
    #[track_caller]
    fn next_with(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while let Some(event) = self.next() {
            if event.contains(text) {
                return event;
            }
            seen = event;
        }
        panic!("`{text}` never came; the last event was {seen}");
    }
}

// ---- Where -----------------------------------------------------------------------------------------------------------

#[test]
fn an_admin_listener_has_its_routes_alone() {
    let (process, public, admin) = with_admin(allout, &[]);
    assert_eq!(get(public, "/ping", "").text(), "pong");
    assert_eq!(get(admin, "/ping", "").status, 404);
    for path in ["/livez", "/readyz", "/metrics", "/status", "/shutdown"] {
        assert_eq!(get(public, path, "").status, 404, "{path}");
        if path != "/shutdown" {
            assert_eq!(get(admin, path, "").status, 200, "{path}");
        }
    }
    assert_eq!(Client::connect(public).ask(SHUTDOWN).status, 404);
    assert_eq!(Client::connect(admin).ask(SHUTDOWN).status, 200);
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.lines().last().unwrap().starts_with("all out: /shutdown; "), "{said}");
}

#[test]
fn an_admin_address_that_is_public_or_taken_is_one_line() {
    for (public, admin) in
        [(":8080", "0.0.0.0:8080"), (":8080", "[::]:8080"), ("0.0.0.0:8080", ":8080"), ("127.0.0.1:9", "127.0.0.1:9")]
    {
        let (code, said) = allout(&["--listen", public, "--admin", admin]).end();
        assert_eq!(code, Some(2), "{said}");
        assert_eq!(said, format!("allout: --admin: `{admin}` is a public address (try --help)\n"));
    }
    let (code, said) = allout(&["--admin", "127.0.0.1:8080"]).end();
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    for bad in ["stdin", "8080", "unix:"] {
        let (code, said) = allout(&["--admin", bad]).end();
        assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    }
    let taken = TcpListener::bind(ANY).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = allout(&["--listen", ANY, "--admin", &address]).end();
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains(&address), "{said}");
}

#[cfg(unix)]
#[test]
fn an_admin_listener_may_be_a_unix_socket_whose_file_goes_at_the_end() {
    let folder = crate::support::Folder::new("admin");
    let path = folder.path("socket");
    let place = format!("unix:{}", path.display());
    let mut process =
        Process::spawn(Command::new(env!("CARGO_BIN_EXE_allout")).args(["--listen", ANY]).env("ALLOUT_ADMIN", &place));
    process.line_with(&format!("admin on {place}"));
    let reply = Client::connect_unix(&path).ask("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(reply.text(), "live\n");
    assert_eq!(Client::connect_unix(&path).ask(SHUTDOWN).status, 200);
    assert_eq!(process.end().0, Some(0));
    assert!(!path.exists());
}

/// Under a library that has its system calls fail.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn an_admin_listener_that_cannot_accept_is_told_and_one_that_fails_stops_the_public_one_too() {
    let folder = crate::support::Folder::new("admin-fails");
    let Some(shim) = crate::support::shim(&folder) else { return };
    let (deny, broken) = (folder.path("deny"), folder.path("broken"));
    let start = |arguments: &[&str]| {
        let mut command = Command::new(crate::support::example("demo"));
        command.env("LD_PRELOAD", &shim).env("SHIM_DENY", &deny).env("SHIM_BREAK", &broken);
        Process::spawn(command.args(arguments))
    };
    let (mut process, public, admin) = with_admin(start, &["--grace", LONG]);
    // It holds the drain up until the rest comes.
    let mut upload = Client::connect(public);
    assert_eq!(upload.ask(PING).text(), "pong");
    upload.send("POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab");

    std::fs::write(&deny, "").unwrap();
    let mut waiting = Client::connect(admin);
    waiting.send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
    process.line_with(&format!("cannot accept on `{admin}`: "));
    std::fs::remove_file(&deny).unwrap();
    assert_eq!(waiting.reply().text(), "live\n");

    std::fs::write(&broken, admin.port().to_string()).unwrap();
    let _ = std::net::TcpStream::connect(admin);
    let cause = process.line_with("stopping: ").replace("stopping: ", "");
    assert!(cause.contains(&admin.to_string()), "{cause}");
    upload.send("c");
    assert_eq!(upload.reply().text(), "3\n");
    drop((upload, waiting));
    let (code, said) = process.end();
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(said.matches(&cause).count(), 2, "it is told as the cause, and at the end: {said}");
    assert!(said.lines().last().unwrap().starts_with(&format!("all out: {cause}; 1 request finished ")), "{said}");
}

#[test]
fn without_an_admin_listener_only_those_may_look_who_may_stop() {
    let mut process = allout(&["--listen", ANY, "--shutdown-token", "sesame"]);
    let address = process.address();
    let bearer = "Authorization: Bearer sesame\r\n";
    for path in ["/metrics", "/status"] {
        assert_eq!(get(address, path, "").status, 403, "{path}");
        assert_eq!(get(address, path, bearer).status, 200, "{path}");
    }
    drop(process);
    let mut process = allout(&["--listen", ANY]);
    let address = process.address();
    for path in ["/metrics", "/status"] {
        assert_eq!(get(address, path, "").status, 200, "{path}");
        assert_eq!(get(address, path, "X-Forwarded-For: 192.0.2.1\r\n").status, 403, "{path}");
        // An image on any page; what a user has typed; the page's own events.
        let browser = "User-Agent: Mozilla/5.0\r\nSec-Fetch-Site: ";
        assert_eq!(get(address, path, &format!("{browser}cross-site\r\n")).status, 403, "{path}");
        assert_eq!(get(address, path, &format!("{browser}none\r\n")).status, 200, "{path}");
    }
}

// ---- A stop, as it happens -------------------------------------------------------------------------------------------

#[test]
fn the_page_shows_the_drain_to_the_last_line() {
    let (process, public, admin) = with_admin(demo, &["--grace", LONG]);
    // It holds the drain up until the rest comes.
    let mut upload = Client::connect(public);
    upload.send("POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab");
    poll(|| text_of_status(admin).contains("POST /count").then_some(())).expect("its handler runs");
    let mut events = Events::open(admin);
    let first = events.next().unwrap();
    assert!(first.starts_with("<main class=serving>") && first.contains("POST /count"), "{first}");
    assert_eq!(Client::connect(admin).ask(SHUTDOWN).status, 200);
    let draining = events.next_with("<main class=draining>");
    for text in
        ["data-of=1000000", "stopping: /shutdown; 0 finished since; still here: 1 connection, 1 running handler"]
    {
        assert!(draining.contains(text), "`{text}` in {draining}");
    }
    // All the while, it answers those who ask.
    assert_eq!(get(admin, "/livez", "").status, 200);
    assert_eq!(get(admin, "/readyz", "").status, 503);
    let text = text_of_status(admin);
    assert!(text.contains("\nDraining, ") && text.contains("POST /count"), "{text}");
    assert!(get(admin, "/metrics", "").text().contains("\nallout_draining 1\n"));
    upload.send("c");
    assert_eq!(upload.reply().text(), "3\n");
    drop(upload);
    let over = events.next_with("<main class=over>");
    assert_eq!(events.next(), None, "it ends with the last line");
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("all out: /shutdown; 1 request finished while draining, 0 cut off; "), "{said}");
    assert!(over.contains(&format!("<p>{last}</section>")), "`{last}` in {over}");
}

#[test]
fn a_lame_duck_is_shown_and_the_admin_listener_stays() {
    let (_process, public, admin) = with_admin(demo, &["--lame-duck", LONG]);
    assert_eq!(Client::connect(admin).ask(SHUTDOWN).status, 200);
    poll(|| (get(admin, "/readyz", "").status == 503).then_some(())).expect("it is not ready any more");
    assert_eq!(Client::connect(public).ask(PING).status, 200);
    let text = text_of_status(admin);
    assert!(text.contains("\nLame duck, ") && text.contains("stopping: /shutdown; "), "{text}");
}

#[test]
fn pages_hold_up_no_stop_whether_somebody_reads_or_not() {
    // On the admin listener, which shows the end; and on the public one, whose drain would wait for them.
    let (process, _, admin) = with_admin(allout, &["--grace", LONG]);
    let unread = Events::open(admin);
    assert_eq!(Client::connect(admin).ask(SHUTDOWN).status, 200);
    assert_eq!(process.end().0, Some(0));
    drop(unread);

    let mut process = allout(&["--listen", ANY, "--grace", LONG]);
    let address = process.address();
    let (unread, mut read) = (Events::open(address), Events::open(address));
    assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
    read.next_with("<main class=draining>");
    while read.next().is_some() {}
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    drop(unread);
}

#[test]
fn four_pages_are_shown_at_once_and_a_stream_comes_to_an_end_by_itself() {
    let (_process, public, admin) = with_admin(demo, &[]);
    let mut pages: Vec<_> = (0..4).map(|_| Events::open(admin)).collect();
    let fifth = get(admin, "/status", "Accept: text/event-stream\r\n");
    assert_eq!(fifth.status, 503);
    assert_eq!(get(admin, "/livez", "").status, 200);
    assert!(text_of_status(admin).contains("Serving"));
    // The more there is to see, the sooner they end.
    let long = format!("GET /sleep/{:0>240} HTTP/1.1\r\nHost: test\r\n\r\n", 1_000_000);
    let mut slow: Vec<_> = (0..10).map(|_| Client::connect(public)).collect();
    slow.iter_mut().for_each(|client| client.send(&long));
    // Before a client that does not read could make it wait.
    let mut bytes = 0;
    while let Some(event) = pages[0].next() {
        bytes += event.len();
        assert!(bytes < 48 * 1024, "{bytes}");
    }
    poll(|| (get(admin, "/status", "Accept: text/plain\r\n").status == 200).then_some(())).unwrap();
    Events::open(admin);
}

#[test]
fn at_half_the_grace_the_command_says_who_is_still_here() {
    let (mut process, public, admin) = with_admin(demo, &["--grace", "0.5"]);
    let mut slow: Vec<_> = (0..5).map(|_| Client::connect(public)).collect();
    slow.iter_mut().for_each(|client| client.send("GET /sleep/100000 HTTP/1.1\r\nHost: test\r\n\r\n"));
    poll(|| text_of_status(admin).contains("working                 5").then_some(())).expect("they run");
    assert_eq!(Client::connect(admin).ask(SHUTDOWN).status, 200);
    let line = process.line_with("still here: ");
    assert!(line.starts_with("still here: http; 5 connections; GET /sleep/100000 for 127.0.0.1:"), "{line}");
    assert_eq!(line.matches("its handler running for").count(), 3, "{line}");
    assert!(line.contains("; 2 more; ") && line.ends_with(" s left"), "{line}");
    assert_eq!(process.end().0, Some(124));
}

// ---- The page ----------------------------------------------------------------------------------------------------------

#[test]
fn the_page_is_small_and_its_policy_lets_nothing_in_but_its_own_script_and_style() {
    let (_process, _, admin) = with_admin(allout, &[]);
    let reply = get(admin, "/status", "Accept: text/html,*/*;q=0.8\r\n");
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let (policy, page) = (reply.header("content-security-policy").unwrap(), reply.text());
    assert!(page.len() < 16 * 1024, "{}", page.len());
    assert!(!page.contains("//") || !page.contains("http"), "it asks nobody else");
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    for (tag, directive) in [("style", "style-src"), ("script", "script-src")] {
        let inside = page.split_once(&format!("<{tag}>")).unwrap().1.split_once(&format!("</{tag}>")).unwrap().0;
        let Some(hash) = sha256(inside) else { return skip("there is no sha256sum") };
        assert!(policy.contains(&format!("{directive} 'sha256-{hash}';")), "{directive} is sha256-{hash}: {policy}");
    }
    // Without a script it is whole too.
    assert!(page.contains("<main class=serving>") && page.contains("<th scope=row>lingering<td>0"), "{page}");
    let mut client = Client::connect(admin);
    client.send("HEAD /status HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 200);
}

/// In base64, by coreutils.
fn sha256(text: &str) -> Option<String> {
    let mut child = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    child.stdin.take()?.write_all(text.as_bytes()).unwrap();
    let hex = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let bytes: Vec<_> = (0..32).map(|at| u32::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect();
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | byte) << (8 * (3 - three.len()));
        for at in 0..=three.len() {
            out.push(char::from(digits[(bits >> (18 - 6 * at) & 63) as usize]));
        }
    }
    Some(format!("{out}="))
}

// ---- Metrics -------------------------------------------------------------------------------------------------------------

/// Families with their types, and samples with their values.
fn parsed(text: &str) -> (BTreeMap<String, String>, BTreeMap<String, f64>) {
    let (mut types, mut samples, mut help) = (BTreeMap::new(), BTreeMap::new(), None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').filter(|(_, text)| !text.is_empty()).map(|(name, _)| name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect(line);
            assert_eq!(help, Some(name), "HELP, then TYPE");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{line} twice");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            assert!(name.starts_with(help.unwrap()), "{line} belongs to {help:?}");
            assert!(samples.insert(name.to_owned(), value.parse().expect(line)).is_none(), "{line} twice");
        }
    }
    (types, samples)
}

#[test]
fn metrics_are_prometheus_text_that_counts_and_never_shrinks() {
    let (_process, public, admin) = with_admin(demo, &[]);
    let metrics = || {
        let reply = get(admin, "/metrics", "");
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        reply.text()
    };
    let (types, before) = parsed(&metrics());
    let mut client = Client::connect(public);
    for (path, status) in [("/ping", 200), ("/nothing", 404), ("/panic", 500)] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(client.ask(&request).status, status);
        client = Client::connect(public);
    }
    let text = metrics();
    let (types_after, after) = parsed(&text);
    assert_eq!(types, types_after);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>(), "no sample comes or goes");
    for (name, kind) in [
        ("http_requests_total", "counter"),
        ("http_requests_in_flight", "gauge"),
        ("http_connections", "gauge"),
        ("http_requests_waiting", "gauge"),
        ("http_request_duration_seconds", "histogram"),
        ("http_handler_panics_total", "counter"),
        ("http_hand_offs_total", "counter"),
        ("http_received_bytes_total", "counter"),
        ("http_sent_bytes_total", "counter"),
        ("allout_draining", "gauge"),
        ("allout_build_info", "gauge"),
    ] {
        assert_eq!(types.get(name).map(String::as_str), Some(kind), "{name}");
    }
    for (name, value) in &after {
        let family = types.get(name.split('{').next().unwrap()).map(String::as_str);
        assert!(family == Some("gauge") || *value >= before[name], "{name} has shrunk");
    }
    let code = |class: &str| after[&format!("http_requests_total{{code=\"{class}\"}}")];
    assert_eq!(["2xx", "3xx", "4xx", "5xx"].map(code), [1.0, 0.0, 1.0, 1.0], "{text}");
    assert_eq!(after["http_handler_panics_total"], 1.0);
    assert!(!text.contains("/ping") && !text.contains("/nothing"), "no paths: {text}");
    // Buckets are cumulative, and the last has all.
    let bucket = |line: &str| {
        line.starts_with("http_request_duration_seconds_bucket").then(|| after[line.rsplit_once(' ').unwrap().0])
    };
    let buckets: Vec<_> = text.lines().filter_map(bucket).collect();
    assert!(buckets.len() > 4 && buckets.is_sorted(), "{buckets:?}");
    assert!(text.contains("_bucket{le=\"+Inf\"} "));
    assert_eq!(buckets.last(), after.get("http_request_duration_seconds_count"));
    assert_eq!(after["http_request_duration_seconds_count"], 3.0);
    check_by_others(&text);
}

/// Real parsers, where they are at hand.
fn check_by_others(text: &str) {
    let python = "import sys, prometheus_client.parser as p\n\
                  names = [family.name for family in p.text_string_to_metric_families(sys.stdin.read())]\n\
                  assert 'http_requests' in names and 'http_request_duration_seconds' in names, names";
    let is_there = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    // Debian's package is for Debian's Python.
    let found = ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|python| is_there(python, &["-c", "import prometheus_client"]));
    match found {
        Some(program) => check_accepted(Command::new(program).args(["-c", python]), text),
        None => skip("there is no python3-prometheus-client"),
    }
    if is_there("promtool", &["--version"]) {
        check_accepted(Command::new("promtool").args(["check", "metrics"]), text);
    } else {
        skip("there is no promtool");
    }
}

fn check_accepted(command: &mut Command, text: &str) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = write!(said, "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.is_empty(), "{said}");
}
