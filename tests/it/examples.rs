//! The pages of the cookbook, each as the program that it is: what it shows is so, and SIGTERM ends it with code 0.
//!
//! A page is told to listen on a Unix socket: no test waits for a port to be known, or meets another's.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::{Client, Folder, Process, Reply, example, poll};

// ---- Helpers -------------------------------------------------------------------------------------------------------

/// A page at work. Files of its own lie in the folder.
struct Page {
    process: Process,
    socket: PathBuf,
}

impl Page {
    fn start(name: &str, folder: &Folder, more: &[&str]) -> Self {
        let socket = folder.path("socket");
        let mut command = Command::new(example(name));
        command.arg(format!("unix:{}", socket.display())).args(more);
        Self { process: Process::spawn(&mut command), socket }
    }

    fn connect(&self) -> Client {
        connect(&self.socket)
    }

    fn get(&self, path: &str) -> Reply {
        self.connect().ask(get(path, ""))
    }

    /// Tells it to stop, and returns its exit code.
    fn stop(mut self) -> Option<i32> {
        self.process.signal(Signal::SIGTERM);
        self.process.code()
    }
}

fn connect(socket: &Path) -> Client {
    poll(|| Client::try_connect_unix(socket).ok()).expect("it listens")
}

/// A request of GET, with these lines of fields.
fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")
}

// ---- The pages -----------------------------------------------------------------------------------------------------

#[test]
fn hello() {
    let folder = Folder::new("hello");
    let page = Page::start("hello", &folder, &[]);
    assert_eq!(page.get("/").text(), "hello\n");
    assert_eq!(page.get("/hello/w%C3%B6rld").text(), "hello, wörld\n");
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn two_ports_stop_together() {
    let folder = Folder::new("two_ports");
    let admin = folder.path("admin");
    let mut page = Page::start("two_ports", &folder, &[&format!("unix:{}", admin.display())]);
    assert_eq!(page.get("/").text(), "hello\n");
    assert_eq!(page.get("/metrics").status, 404);
    assert_eq!(connect(&admin).ask(get("/metrics", "")).text(), "requests_total 1\n");
    let mut last = connect(&admin);
    assert_eq!(last.ask("POST /stop HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").text(), "stopping\n");
    drop(last);
    assert_eq!(page.process.code(), Some(0));
}

#[test]
fn an_existing_program_keeps_its_main_and_its_own_end() {
    let (mut input, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(example("existing_program"));
    let mut process = Process::spawn_as_it_is(command.stdin(Stdio::from(OwnedFd::from(theirs))));
    drop(command);
    let address = process.address();
    assert_eq!(Client::connect(address).ask(get("/ping", "")).text(), "pong\n");
    input.write_all(b"work\n").unwrap();
    process.line_with("read: work");
    input.shutdown(Shutdown::Both).unwrap();
    assert_eq!(process.code(), Some(0));
}

#[test]
fn wrappers_see_every_request() {
    let folder = Folder::new("wrap");
    let page = Page::start("wrap", &folder, &[]);
    let mut client = page.connect();
    let reply = client.ask(get("/", ""));
    assert_eq!(reply.text(), "hello\n");
    assert_eq!(reply.header("x-request-id"), Some("1"));
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example.org"));
    for path in ["/admin/users", "/%61dmin/users", "/admin%2Fusers", "/admin/nothing"] {
        let reply = client.ask(get(path, ""));
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{path}");
    }
    assert_eq!(client.ask(get("/admin/users", "Authorization: Bearer secret\r\n")).text(), "alice\n");
    assert_eq!(client.ask(get("/me", "Authorization: Bearer secret\r\n")).text(), "alice\n");
    assert_eq!(client.ask(get("/me", "")).status, 401);
    let reply = client.ask("OPTIONS /admin/users HTTP/1.1\r\nHost: test\r\nOrigin: https://app.example.org\r\n\r\n");
    assert_eq!((reply.status, reply.header("access-control-allow-headers")), (204, Some("Authorization")));
    let reply = client.ask(get("/broken", ""));
    assert_eq!((reply.status, reply.is_last()), (500, false));
    assert_eq!(reply.text(), "<h1>Our fault</h1>\n");
    assert_eq!(client.ask(get("/", "")).header("x-request-id"), Some("b"));
    drop(client);
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn server_sent_events_end_in_order_when_it_stops() {
    let folder = Folder::new("server_sent_events");
    let mut page = Page::start("server_sent_events", &folder, &[]);
    let mut client = page.connect();
    client.send(get("/events", ""));
    let head = client.next_head().expect("a head");
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
    assert_eq!(client.chunk().as_deref(), Some(&b"id: 1\ndata: tick\n\n"[..]));
    page.process.signal(Signal::SIGTERM);
    let rest: Vec<u8> = std::iter::from_fn(|| client.chunk()).flatten().collect();
    assert!(rest.ends_with(b"event: bye\ndata: restarting\n\n"), "{}", String::from_utf8_lossy(&rest));
    client.expect_fin();
    drop(client);
    assert_eq!(page.process.code(), Some(0));
}

#[test]
fn an_upload_has_its_name_once_it_is_whole() {
    let folder = Folder::new("upload");
    let files = folder.path("files");
    std::fs::create_dir(&files).unwrap();
    let page = Page::start("upload", &folder, &[files.to_str().unwrap()]);
    let names = || {
        let entries = files.read_dir().unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    let put = |path: &str, fields: &str| format!("PUT {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n");

    let chunked = put("/a.txt", "Transfer-Encoding: chunked\r\n") + "5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(page.connect().ask(chunked).status, 201);
    assert_eq!(std::fs::read(files.join("a.txt")).unwrap(), b"hello");

    // Refused before the body is sent: there is no 100.
    for path in ["/..%2Fb", "/.b", "/%2Fetc"] {
        let reply = page.connect().ask(put(path, "Content-Length: 9\r\nExpect: 100-continue\r\n"));
        assert_eq!(reply.status, 403, "{path}");
    }

    // A client that goes in the middle leaves the old one, and nothing else.
    let mut client = page.connect();
    client.send(put("/a.txt", "Content-Length: 9\r\n") + "1234");
    poll(|| (names().len() == 2).then_some(())).expect("it is being received");
    drop(client);
    poll(|| (names() == ["a.txt"]).then_some(())).expect("what came of it is removed");
    assert_eq!(std::fs::read(files.join("a.txt")).unwrap(), b"hello");
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let folder = Folder::new("download");
    let file = folder.path("file");
    std::fs::write(&file, b"0123456789").unwrap();
    let page = Page::start("download", &folder, &[file.to_str().unwrap()]);
    let mut client = page.connect();

    let whole = client.ask(get("/file", ""));
    assert_eq!((whole.status, whole.text().as_str()), (200, "0123456789"));
    assert_eq!((whole.header("content-length"), whole.header("accept-ranges")), (Some("10"), Some("bytes")));
    let etag = whole.header("etag").expect("a tag").to_owned();

    client.send("HEAD /file HTTP/1.1\r\nHost: test\r\nRange: bytes=2-3\r\n\r\n");
    let head = client.reply_to_head();
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));

    for tags in [etag.clone(), "*".to_owned(), format!("\"other\", {etag}")] {
        let reply = client.ask(get("/file", &format!("If-None-Match: {tags}\r\n")));
        assert_eq!((reply.status, reply.header("etag")), (304, Some(etag.as_str())), "{tags}");
    }
    assert_eq!(client.ask(get("/file", "If-None-Match: \"other\"\r\n")).status, 200);

    let parts = [
        ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
        ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
        ("bytes=7-99", 206, "789", Some("bytes 7-9/10")),
        ("bytes=-2", 206, "89", Some("bytes 8-9/10")),
        ("bytes=-99", 206, "0123456789", Some("bytes 0-9/10")),
        ("bytes=10-", 416, "", Some("bytes */10")),
        ("bytes=-0", 416, "", Some("bytes */10")),
        ("bytes=4-2", 200, "0123456789", None),
        ("bytes=+2-4", 200, "0123456789", None),
        ("bytes=0-1,3-4", 200, "0123456789", None),
        ("lines=0-1", 200, "0123456789", None),
    ];
    for (range, status, text, said) in parts {
        let reply = client.ask(get("/file", &format!("Range: {range}\r\nIf-Range: {etag}\r\n")));
        assert_eq!((reply.status, reply.text().as_str()), (status, text), "{range}");
        assert_eq!(reply.header("content-range"), said, "{range}");
    }
    let of_another = client.ask(get("/file", "Range: bytes=2-4\r\nIf-Range: \"other\"\r\n"));
    assert_eq!((of_another.status, of_another.text().as_str()), (200, "0123456789"));
    drop(client);
    assert_eq!(page.stop(), Some(0));
}

#[test]
fn the_database_is_closed_after_the_last_request() {
    let folder = Folder::new("database_last");
    let rows = folder.path("rows");
    let mut page = Page::start("database_last", &folder, &[rows.to_str().unwrap()]);
    let mut client = page.connect();
    client.send("POST /rows HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nrow");
    page.process.signal(Signal::SIGTERM);
    assert_eq!(client.reply().status, 201);
    drop(client);
    assert_eq!(page.process.code(), Some(0));
    assert_eq!(std::fs::read_to_string(rows).unwrap(), "row\nclosed\n");
}

#[test]
fn a_worker_may_finish_and_its_failure_ends_all() {
    let folder = Folder::new("worker");
    let page = Page::start("worker", &folder, &["1\n2\n39"]);
    poll(|| (page.get("/sum").text() == "42\n").then_some(())).expect("it finishes");
    assert_eq!(page.get("/sum").text(), "42\n");
    assert_eq!(page.stop(), Some(0));

    let mut page = Page::start("worker", &folder, &["1\nx"]);
    assert_eq!(page.process.code(), Some(1));
}

#[test]
fn a_member_that_retries_gets_well_or_gives_up() {
    let folder = Folder::new("retry");
    let source = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = source.local_addr().unwrap().to_string();
    let page = Page::start("retry", &folder, &[&address]);
    for _ in 0..2 {
        drop(source.accept().unwrap());
    }
    source.accept().unwrap().0.write_all(b"7\n").unwrap();
    poll(|| (page.get("/").text() == "7\n").then_some(())).expect("the value comes");
    // It waits for a minute now, but not when it is told to stop.
    assert_eq!(page.stop(), Some(0));

    let mut page = Page::start("retry", &folder, &[&address]);
    for _ in 0..7 {
        drop(source.accept().unwrap());
    }
    assert_eq!(page.process.code(), Some(1));
}

#[test]
fn an_idle_server_ends_by_itself() {
    let folder = Folder::new("idle");
    let mut page = Page::start("idle", &folder, &["0.3"]);
    // On a machine that leaves this test standing for so long, it has ended before anybody asks.
    let asked = || Client::try_connect_unix(&page.socket).ok().map(|mut client| client.ask(get("/", "")).text());
    let text = poll(|| if page.process.has_ended() { Some(None) } else { asked().map(Some) }).expect("it serves");
    assert!(text.is_none_or(|text| text == "hello\n"));
    assert_eq!(page.process.code(), Some(0));
}

/// The lines of a log, once there are so many.
fn lines_of(log: &Path, count: usize) -> Vec<String> {
    let lines = || std::fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect::<Vec<_>>();
    poll(|| Some(lines()).filter(|lines| lines.len() >= count)).expect("they are written")
}

#[test]
fn an_access_log_has_a_line_for_each_answer_and_nobody_can_forge_one() {
    let folder = Folder::new("access-log");
    let log = folder.path("log");
    for (format, expected) in [
        (
            "common",
            [
                r#"- - - [] "GET / HTTP/1.1" 200 6"#,
                r#"- - - [] "GET /a%22%0a?b=\"c\\d HTTP/1.1" 404 10"#,
                r#"- - - [] "HEAD / HTTP/1.1" 200 0"#,
                r#"- - - [] "-" 400 23"#,
            ],
        ),
        (
            "json",
            [
                r#"{"host":"-","method":"GET","path":"/","query":null,"status":200,"bytes":6,"whole":true"#,
                r#"{"host":"-","method":"GET","path":"/a%22%0a","query":"b=\"c\\d","status":404,"bytes":10,"whole":true"#,
                r#"{"host":"-","method":"HEAD","path":"/","query":null,"status":200,"bytes":0,"whole":true"#,
                r#"{"host":"-","method":null,"path":"","query":null,"status":400,"bytes":23,"whole":true"#,
            ],
        ),
    ] {
        let page = Page::start("access_log", &folder, &[log.to_str().unwrap(), format]);
        let mut client = page.connect();
        assert_eq!(client.ask(get("/", "")).text(), "hello\n");
        assert_eq!(client.ask(get("/a%22%0a?b=\"c\\d", "")).status, 404);
        client.send(get("/", "").replace("GET", "HEAD"));
        assert_eq!(client.reply_to_head().status, 200);
        assert_eq!(client.ask("GET / HTTP/1.1\r\nbad field\r\n\r\n").status, 400);
        drop(client);
        let lines = lines_of(&log, 4);
        assert_eq!(page.get("/lost").text(), "0\n");
        assert_eq!(page.stop(), Some(0));
        // The end waits for the last one.
        assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 5);
        std::fs::remove_file(&log).unwrap();
        for (line, expected) in lines.iter().zip(expected) {
            assert_eq!(without_times(line), expected, "{line}");
        }
    }
}

/// The same, without its times, of either format.
fn without_times(line: &str) -> String {
    let without = |from: &str, to: &str, line: &str| {
        let (before, rest) = line.split_once(from)?;
        Some(format!("{before}{from}{}", rest.split_once(to).map_or("", |(_, rest)| rest)))
    };
    let line = without("[", "]", line).map_or(line.to_owned(), |line| line.replacen('[', "[]", 1));
    let line = without("{", ",", &line).unwrap_or(line);
    line.split(",\"waited_us\"").next().unwrap_or_default().to_owned()
}

#[test]
fn the_client_is_whom_our_own_proxies_name() {
    let folder = Folder::new("client_address");
    let page = Page::start("client_address", &folder, &[]);
    let cases = [
        (&[][..], "nobody knows\n"),
        (&["203.0.113.7"], "203.0.113.7\n"),
        (&["::ffff:203.0.113.7"], "203.0.113.7\n"),
        (&["6.6.6.6, 203.0.113.7,10.0.0.1"], "203.0.113.7\n"),
        (&["6.6.6.6", "203.0.113.7", "127.0.0.1"], "203.0.113.7\n"),
        (&["2001:db8::1", "10.0.0.1"], "2001:db8::1\n"),
        (&["203.0.113.7, unknown"], "nobody knows\n"),
        (&["10.0.0.1, 127.0.0.1"], "nobody knows\n"),
    ];
    let mut client = page.connect();
    for (fields, who) in cases {
        let lines: String = fields.iter().map(|field| format!("X-Forwarded-For: {field}\r\n")).collect();
        assert_eq!(client.ask(get("/who", &lines)).text(), who, "{fields:?}");
    }
    drop(client);
    assert_eq!(page.stop(), Some(0));
}

// ---- The book ------------------------------------------------------------------------------------------------------

#[test]
fn every_page_is_in_the_book_and_fits_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let book = std::fs::read_to_string(root.join("src/cookbook.rs")).unwrap();
    for entry in root.join("tests/examples/cookbook").read_dir().unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(book.contains(&format!("\n    {name} \"")), "{name} is not in src/cookbook.rs");
        let page = std::fs::read_to_string(&path).unwrap();
        assert!(page.starts_with("//! "), "{name} does not say why");
        let widest = page.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 88, "{name} has a line of {widest} characters, the documentation shows 88");
    }
}
