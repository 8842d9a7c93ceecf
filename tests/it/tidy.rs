//! The structure of the tree, held: who may name whom, what may stand where, and how long it may be.
//!
//! A rule is a function from the tree's files to what is wrong with them. Each has two tests: that this tree keeps it,
//! and, in [`every_rule_sees_what_breaks_it`], that it would notice. Names are found in code alone: comments, links in
//! documentation and texts may name what they like.

mod imports;
mod source;

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use source::{Name, Source, sources};

/// Which modules of the crate each part may name. A module's own inside is always open to it.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("http", &["panics"]),
    ("sync", &[]),
    ("panics", &["sync"]),
    ("helpers", &["panics", "sync"]),
    ("stop", &["helpers", "panics", "sync"]),
    ("outcome", &["stop"]),
    ("group", &["helpers", "outcome", "panics", "stop", "sync"]),
    ("signals", &["group", "panics", "server", "stop", "sync"]),
    ("router", &["http", "sync"]),
    ("answer", &["http", "server", "sync"]),
    ("cookbook", &[]),
    ("server", &["group", "helpers", "http", "panics", "stop", "sync"]),
    // The binary: for the rest it uses `allout::`, the public face, like anybody else.
    ("options", &[]),
    ("threads", &[]),
    ("log", &["threads"]),
    ("notify", &["log"]),
    ("check", &["threads"]),
    ("admin", &["threads"]),
    ("metrics", &[]),
    ("status", &["metrics"]),
    ("routes", &["status"]),
    ("command", &["admin", "check", "log", "notify", "options", "routes", "status", "threads"]),
    ("main", &["admin", "check", "command", "log", "metrics", "notify", "options", "routes", "status", "threads"]),
];

/// Words that were given up, each with where in the tree that is so, and what is said instead. Words that belong
/// together stand with blanks between them.
const RETIRED: [(&str, &str, &str); 38] = [
    ("turn_timeout", "src/", "queue_timeout"),
    ("Clock :: Turn", "src/", "Clock::Queue"),
    ("end_waiting", "src/", "as the clock, Queue"),
    ("turn", "src/server/table.rs", "generation"),
    ("Place", "src/server/table.rs", "Slot"),
    ("pub threads", "src/", "handlers_max; `--threads` is an alias"),
    ("Desk", "src/", "ReadBuffer"),
    ("desk", "src/", "buffer"),
    ("lay_on", "src/", "load"),
    ("take_up", "src/", "load"),
    ("put_down", "src/", "unload"),
    ("PutDown", "src/", "Unload"),
    ("Unfinished", "src/", "Partial"),
    ("unfinished", "src/", "partial"),
    ("Parcel", "src/", "Message"),
    ("parcel", "src/", "message"),
    ("parcels", "src/", "messages"),
    ("Parcels", "src/", "Messages"),
    ("Seat", "src/", "LoopHandle"),
    ("seat", "src/", "number"),
    ("seats", "src/", "loops"),
    ("Gate", "src/", "SharedListener"),
    ("gate", "src/", "listener"),
    ("gates", "src/", "listeners"),
    ("Crew", "src/", "WorkerPool"),
    ("crew", "src/", "pool"),
    ("Roster", "src/", "PoolState"),
    ("roster", "src/", "state"),
    ("Sight", "src/", "Snapshot"),
    ("sight", "src/", "snapshot"),
    ("Line", "src/server/streaming/", "BlockingSocket"),
    ("struct Bound", "src/", "LocalAddress"),
    ("enum Bound", "src/", "LocalAddress"),
    ("type Bound", "src/", "LocalAddress"),
    ("as Bound", "src/", "LocalAddress"),
    ("Readiness", "src/", "decided when built"),
    ("fn and_then", "src/", "on_sent"),
    ("place :", "src/server/notice.rs", "listener"),
];

/// What may write to stdout and stderr.
const PRINTERS: &[&str] = &["src/command.rs", "src/log.rs"];

/// What need not have threads, locks and time from `sync`: itself, the protocol, which has a stricter rule, the binary,
/// and tests.
const NO_SEAM: &[&str] = &[
    "src/sync.rs",
    "src/http/",
    "src/admin.rs",
    "src/check.rs",
    "src/command.rs",
    "src/log.rs",
    "src/main.rs",
    "src/notify.rs",
    "src/options.rs",
    "src/routes.rs",
    "src/status/",
    "src/threads.rs",
    "src/server/tests.rs",
    "src/server/tests/",
];

/// What may touch sockets, and what has to, since it makes them or looks for their handshakes; the server's own face
/// takes one that an embedder has bound, and the binary asks another server, and tells the service manager.
const SOCKETS: &[&str] = &[
    "src/server/stream.rs",
    "src/server/listener.rs",
    "src/server/poller/",
    "src/server/sys.rs",
    "src/server/bind.rs",
    "src/server/inherited.rs",
    "src/server/socket_file.rs",
    "src/server/mod.rs",
    "src/server/tests.rs",
    "src/server/tests/uploads.rs",
    "src/check.rs",
    "src/notify.rs",
];

/// The paths of std that the protocol may not name, each with what is open below it all the same.
const NOT_PROTOCOL: [(&str, &[&str]); 9] = [
    ("env", &[]),
    ("fs", &[]),
    // How handlers read and write bodies, whatever lies behind them.
    ("io", &["Error", "Read", "Result", "Write"]),
    ("net", &["IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"]),
    ("os", &[]),
    ("process", &[]),
    ("sync", &["Arc", "LazyLock", "OnceLock"]),
    ("thread", &[]),
    ("time", &["Duration"]),
];

const LINES_MAX: usize = 500;
const FN_LINES_MAX: usize = 60;
const LOOP_LINES_MAX: usize = 650;
const LINE_CHARS_MAX: usize = 120;
const README_LINES_MAX: usize = 150;
/// What fits docs.rs without a scroll bar.
const DOC_CODE_CHARS_MAX: usize = 88;

// ---- The rules, on this tree ---------------------------------------------------------------------------------------

#[test]
fn modules_name_only_the_modules_that_they_may() {
    keeps("who may name whom: see MAY_NAME in tests/it/tidy.rs", names_of_modules, &sources("src"));
}

#[test]
fn imports_go_round_in_no_circle() {
    keeps("no file imports from one that imports from it, over however many", imports::circles, &sources("src"));
}

#[test]
fn the_protocol_names_no_socket_no_thread_and_no_clock() {
    keeps("`http` has no sockets, threads or clocks: bytes and times are handed in", names_of_std, &sources("src"));
}

#[test]
fn threads_locks_and_time_come_from_sync_alone() {
    keeps(
        "what a simulator would put its own in place of comes from src/sync.rs",
        names_of_the_machine,
        &sources("src"),
    );
}

#[test]
fn few_files_touch_sockets() {
    keeps("only what SOCKETS names touches sockets", names_of_sockets, &sources("src"));
}

#[test]
fn ctrlc_is_named_in_signals_alone() {
    keeps("`ctrlc` is named in src/signals.rs alone", names_of_ctrlc, &sources("src"));
}

#[test]
fn the_event_loops_fields_are_private() {
    keeps("no field in src/server/event_loop is anybody else's: it is one owner", open_fields, &sources("src"));
}

#[test]
fn unsafe_is_said_in_the_sys_file_alone_and_with_its_reason() {
    keeps("`unsafe` in src/server/sys.rs alone, each block below its `// SAFETY:`", unsafety, &sources("src"));
}

#[test]
fn a_word_that_was_given_up_stays_so() {
    keeps("one word means one thing: RETIRED says what is said instead", retired_words, &sources("src"));
}

#[test]
fn only_the_command_prints() {
    keeps("only src/command.rs and src/log.rs print", printing, &sources("src"));
}

#[test]
fn files_are_short_enough_to_be_read_at_once() {
    keeps("at most 500 lines a file, and 120 characters a line", lengths, &sources("src"));
}

#[test]
fn functions_and_the_event_loop_are_short() {
    keeps("at most 60 lines a function, and 650 of the methods of `EventLoop` together", spans, &sources("src"));
}

#[test]
fn every_file_says_first_what_it_is() {
    keeps("a file begins with its `//!` documentation", first_lines, &sources("src"));
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    let files = [sources("src"), sources("tests")].concat();
    keeps("no marks of unfinished work, and no ignored tests", marks, &files);
}

#[test]
fn ctrlc_is_the_only_dependency_and_optional() {
    keeps("[dependencies] is `ctrlc`, optional, and nothing else", dependencies, &[Source::read("Cargo.toml")]);
}

#[test]
fn without_sys_the_compiler_forbids_unsafe_code() {
    keeps(
        "without `sys`, lib.rs forbids `unsafe_code`; with it, Cargo.toml denies it",
        forbidding,
        &[Source::read("Cargo.toml"), Source::read("src/lib.rs")],
    );
}

#[test]
fn the_readme_is_short_and_what_it_links_to_is_in_the_package() {
    keeps(
        "README.md has at most 150 lines, and links to nothing that Cargo.toml does not include",
        readme,
        &[Source::read("Cargo.toml"), Source::read("README.md")],
    );
}

#[test]
fn code_in_the_documentation_fits_its_page() {
    let pages = ["README.md", "src/comparison.md"].map(Source::read);
    keeps("at most 88 columns of code in what docs.rs shows", code_widths, &[&sources("src")[..], &pages].concat());
}

#[test]
fn the_top_level_has_only_what_belongs_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !root.join(".git").exists() {
        return; // A copy without its history may lie among anything.
    }
    // Files of another owner, as in a container, are no reason not to look.
    let git = Command::new("git").args(["-c", "safe.directory=*", "ls-files", "-z"]).current_dir(root).output();
    let Ok(listed) = git else { return };
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths: Vec<_> = String::from_utf8(listed.stdout).unwrap().split_terminator('\0').map(Source::named).collect();
    assert!(!paths.is_empty(), "git lists no file");
    keeps("the top level is Cargo.toml, Cargo.lock, src, tests, README.md and dot-files", top_level, &paths);
}

type Rule = fn(&[Source]) -> Vec<Fault>;

/// A place at which a rule is broken.
struct Fault {
    file: String,
    line: usize,
    text: String,
}

impl Fault {
    fn new(file: &Source, line: usize, text: String) -> Self {
        Self { file: file.path.clone(), line, text }
    }
}

/// Fails with every place at which the rule is broken.
#[track_caller]
fn keeps(rule: &str, broken: Rule, files: &[Source]) {
    assert!(!files.is_empty(), "no files were found");
    let mut report = String::new();
    for Fault { file, line, text } in broken(files) {
        let _ = write!(report, "\n  {file}:{line}: {text}");
    }
    assert!(report.is_empty(), "rule: {rule}{report}");
}

// ---- The rules, on trees that break them ---------------------------------------------------------------------------

#[test]
fn every_rule_sees_what_breaks_it() {
    // A file, and the lines at which the rule is broken.
    check(
        names_of_modules,
        "src/http/head.rs",
        &[
            ("//! Doc.\nuse crate::server::Config;", &[2]),
            ("use super::{body::Body, super::stop::Stop};", &[1]),
            ("use crate::{\n    http::{self, Method},\n    router::{self},\n};", &[3]),
            ("fn f() { crate::group::panic_text(x) }", &[1]),
            ("fn f() -> crate::Router", &[1]),
            ("use super::super::*;", &[1]),
            ("use crate as all;", &[1]),
            (
                "mod tests {\n    use super::*;\n    use super::super::super::server;\n}\nuse super::super::stop;",
                &[3, 5],
            ),
            ("pub(crate) use super::body::Body;\npub(in crate::http) fn f() {}", &[]),
            // What is no code names nothing, and code beside it still does.
            ("/// See [`crate::Router`].\nstruct Head; // crate::stop", &[]),
            ("/* crate::stop /* crate::stop */ crate::stop */ use super::super::stop;", &[1]),
            ("(\"\\\"crate::stop\", r#\"\"crate::stop\"#, br\"\\\", '\"', b'\\'', crate::stop::GRACE)", &[1]),
            ("fn f<'a>(x: &'a str, y: &'a crate::stop::Stop)", &[1]),
        ],
    );
    check(
        names_of_modules,
        "src/http/mod.rs",
        &[
            ("mod head;\npub use head::Head;\nuse self::head::Span;\nmod tests {\n    use super::*;\n}", &[]),
            ("mod tests { mod more {} }\nmod again {\n    use super::super::server;\n}", &[3]),
        ],
    );
    check(names_of_modules, "src/stop.rs", &[("use crate::group::Group;", &[1])]);
    check(names_of_modules, "src/group.rs", &[("use crate::{http::Handler, stop::Stop};", &[1])]);
    check(names_of_modules, "src/signals.rs", &[("use super::router::Router;", &[1])]);
    check(names_of_modules, "src/router.rs", &[("use crate::http::Method;\nuse crate::stop::Stop;", &[2])]);
    check(names_of_modules, "src/server/mod.rs", &[("use crate::{http, stop, signals::Signals};", &[1])]);
    check(names_of_modules, "src/server/poller/epoll.rs", &[("use super::super::super::router::Router;", &[1])]);
    check(names_of_modules, "src/options.rs", &[("use crate::command::run;\nuse allout::Config;", &[1])]);
    check(names_of_modules, "src/command.rs", &[("use crate::options::Options;\nuse crate::server::Server;", &[2])]);
    check(names_of_modules, "src/main.rs", &[("mod command;\nmod options;\nmod server;", &[3])]);
    check(names_of_modules, "src/other.rs", &[("//! A module that no rule knows.", &[1])]);
    check(
        names_of_std,
        "src/http/head.rs",
        &[
            ("use std::net::{SocketAddr, TcpStream};", &[1]),
            ("use std::{\n    fmt,\n    time::{Duration, Instant},\n};", &[3]),
            ("\n\nlet now = ::std::time::SystemTime::now();", &[3]),
            ("use std::time;\nuse std::net::*;\nuse std as s;\nuse std::*;", &[1, 2, 3, 4]),
            ("use std::io::stdin;\nuse std::thread;\nuse std::sync::mpsc;", &[1, 2, 3]),
            ("use core::net::IpAddr;\nuse std::{fmt, str::from_utf8, time::Duration};", &[]),
        ],
    );
    check(names_of_std, "src/server/mod.rs", &[("use std::thread;", &[])]);
    check(
        names_of_the_machine,
        "src/server/shared.rs",
        &[
            ("use std::sync::Arc;\nuse std::{\n    fmt,\n    thread,\n};\nstd::thread::sleep(a);", &[1, 4, 6]),
            ("use std::time::{Duration, Instant, SystemTime};", &[1]),
            (
                "let a = Instant::now();\nlet b = a.elapsed();\nlet c = started.map_or_else(Instant::now, f);",
                &[1, 2, 3],
            ),
            ("use crate::sync::{Arc, now};\nuse std::time::{Duration, Instant};\nfn elapsed(a: Instant) {}", &[]),
            ("struct A;\nmod tests {\n    use std::thread;\n    fn f() { Instant::now() }\n}", &[]),
        ],
    );
    for path in ["src/sync.rs", "src/log.rs", "src/http/given.rs", "src/server/tests.rs"] {
        check(names_of_the_machine, path, &[("use std::sync::Arc;\nfn f() { std::time::Instant::now() }", &[])]);
    }
    check(
        names_of_sockets,
        "src/server/shared.rs",
        &[
            ("use std::net::{SocketAddr, TcpStream};\nuse std::os::fd::AsFd;", &[1, 2]),
            ("use std::os::unix::net::UnixStream;\nstd::os::unix::net::SocketAddr;\nuse std::net;", &[1, 2, 3]),
            ("use std::net::{IpAddr, Shutdown, SocketAddr};\nuse std::os::unix::fs::MetadataExt;", &[]),
            ("mod tests {\n    use std::net::TcpStream;\n}", &[]),
        ],
    );
    check(names_of_sockets, "src/server/poller/epoll.rs", &[("use std::os::unix::net::UnixStream;", &[])]);
    check(names_of_ctrlc, "src/group.rs", &[("// ctrlc\nuse ctrlc::Error;", &[2])]);
    check(names_of_ctrlc, "src/signals.rs", &[("use ctrlc::Error;", &[])]);
    check(
        open_fields,
        "src/server/event_loop/pass.rs",
        &[
            ("struct Pass {\n    pub(super) now: Instant,\n    pub queue: Vec<u64>,\n}", &[2]),
            ("struct Pass(\n    u64,\n    pub(crate) u64,\n    #[cfg(x)]\n    pub(in crate::server) u64,\n);", &[3, 5]),
            ("pub(super) struct Pass;\npub(super) const A: u64 = 1;\n#[test]\npub(super) fn f(a: u64, b: u64) {}", &[]),
        ],
    );
    check(open_fields, "src/server/event_loop.rs", &[("struct EventLoop { pub(super) now: Instant }", &[1])]);
    check(open_fields, "src/server/loop.rs", &[("//! The loop has moved.", &[1])]);
    check(
        unsafety,
        "src/stop.rs",
        &[
            ("fn f() {\n    unsafe { g() }\n}", &[2]),
            ("#![allow(unsafe_code)]", &[1]),
            ("#![forbid(unsafe_code)] // unsafe\nlet text = \"unsafe\";", &[]),
        ],
    );
    check(
        unsafety,
        "src/server/sys.rs",
        &[
            ("// SAFETY: so.\nlet a = unsafe { f() };\nlet b = unsafe { f() };", &[3]),
            ("// SAFETY: so\n// and so.\nlet a =\n    unsafe { f() };", &[]),
            ("unsafe extern \"C\" { fn f(); }", &[]),
        ],
    );
    check(
        retired_words,
        "src/server/desk.rs",
        &[
            ("struct Desk;\nfn f(desk: &Desk) {\n    lay_on(1)\n}", &[1, 2, 2, 3]),
            ("enum Bound {}\nuse std::ops::Bound;\nfn and_then() { x.and_then(y) }", &[1, 3]),
            ("/// On a `Desk`, see [`Desk`].\nfn desks() { \"Desk\"; Clock::Queue }\nClock::Turn", &[3]),
            ("place.turn", &[]),
        ],
    );
    check(retired_words, "src/server/table.rs", &[("struct Slot {\n    turn: u32,\n}", &[2])]);
    check(
        printing,
        "src/group.rs",
        &[
            ("println!(\"x\");\neprint!(\"x\");\nstd::io::stderr();\ndbg!(x);\nprint!(\"x\");", &[1, 2, 3, 4, 5]),
            ("// println!\nfn print() {}", &[]),
        ],
    );
    check(printing, "src/command.rs", &[("std::io::stderr();", &[])]);
    check(
        lengths,
        "src/stop.rs",
        &[
            (&"//! Doc.\n".repeat(LINES_MAX), &[]),
            (&"//! Doc.\n".repeat(LINES_MAX + 1), &[LINES_MAX + 1]),
            (&format!("{0}\n{0}x\n", "é".repeat(LINE_CHARS_MAX)), &[2]),
        ],
    );
    let function = |lines: usize| {
        format!("fn f(a: [u8; 2]) -> Result<u8, u8> {{\n{}}}\n", "    let a = [1; 2];\n".repeat(lines - 2))
    };
    let methods = |lines: usize| function(50).repeat(lines / 50 - 1) + &function(50 + lines % 50);
    check(
        spans,
        "src/server/pass.rs",
        &[
            (&format!("\nfn g();\n{}fn h() {{\n}}", function(FN_LINES_MAX)), &[]),
            (&format!("\nfn g();\n{}fn h() {{\n}}", function(FN_LINES_MAX + 1)), &[3]),
            (&format!("trait A {{\nfn f(\n);\nconst A: [u8; 2] = [\n{}];\n}}\n", "1,\n".repeat(FN_LINES_MAX)), &[]),
            (&format!("impl EventLoop {{\n\n{}}}", methods(LOOP_LINES_MAX)), &[]),
            (&format!("impl EventLoop {{\n}}\nimpl Drop for EventLoop {{\n{}}}", methods(LOOP_LINES_MAX + 1)), &[604]),
            (&format!("impl From<EventLoop> for A {{\n{}}}", methods(LOOP_LINES_MAX + 1)), &[]),
        ],
    );
    check(first_lines, "src/group.rs", &[("// A comment.\n//! Doc.", &[1]), ("", &[1]), ("//! Doc.", &[])]);
    check(
        marks,
        "tests/it/wire.rs",
        &[
            (concat!("\n// TO", "DO: more\n// FIX", "ME"), &[2, 3]),
            (concat!("fn f() { to", "do!() }\nfn g() { unimple", "mented!() }"), &[1, 2]),
            (concat!("#[test]\n#[igno", "re = \"slow\"]"), &[2]),
            ("// methods, to-do lists and ignored errors", &[]),
        ],
    );
    check(
        dependencies,
        "Cargo.toml",
        &[
            ("[dependencies]\nctrlc = { version = \"3\", optional = true }\nlibc = \"1\"", &[3]),
            ("[dependencies]\nctrlc = \"3\"", &[2]),
            ("[dependencies]\n# none\n[features]\nx = []", &[1]),
            ("[dependencies]\nctrlc = { optional = true }\n[dependencies.libc]\n[build-dependencies]\n", &[3, 4]),
            ("[dependencies]\nctrlc = { optional = true }\n[target.'cfg(unix)'.dependencies]\nlibc = \"1\"", &[3]),
            ("[dependencies]\nctrlc = { optional = true }\n\n[dev-dependencies]\nnix = \"1\"", &[]),
        ],
    );
    check(forbidding, "src/lib.rs", &[("// #![cfg_attr(not(feature = \"sys\"), forbid(unsafe_code))]", &[1])]);
    check(forbidding, "Cargo.toml", &[("[lints.rust]\nunsafe_code = \"warn\"", &[1])]);
    check(
        readme,
        "README.md",
        &[
            ("# allout\n[one](https://example.org/a) [two](tests/lib.rs)", &[2]),
            (&"line\n".repeat(README_LINES_MAX), &[]),
            (&"line\n".repeat(README_LINES_MAX + 1), &[README_LINES_MAX + 1]),
        ],
    );
    let (fits, wide) = ("x".repeat(DOC_CODE_CHARS_MAX), "x".repeat(DOC_CODE_CHARS_MAX + 1));
    check(
        code_widths,
        "src/http/request.rs",
        &[
            (
                &format!("    /// ```\n    /// {fits}\n    /// {wide}\n    /// # {wide}\n    /// ```\n    /// {wide}"),
                &[3],
            ),
            // What nobody is shown: drawings of private modules, a fence that its comment ends with.
            (&format!("//! ```text\n//! {wide}\n//! ```"), &[]),
            (&format!("/// ```\nfn f() {{}}\n/// {wide}"), &[]),
        ],
    );
    check(code_widths, "src/lib.rs", &[(&format!("//! ```text\n//! {wide}\n//! ```\n//! {wide}"), &[2])]);
    check(code_widths, "README.md", &[(&format!("{wide}\n```rust\n{wide}\n```\n{wide}"), &[3])]);
    check(top_level, "notes.txt", &[("", &[1])]);
    check(top_level, "docs/a.md", &[("", &[1])]);
    check(top_level, ".ci/run", &[("", &[])]);
}

#[test]
fn circles_are_seen_through_what_is_passed_on() {
    let tree = |files: &[(&str, &str)]| files.iter().map(|(path, text)| Source::new(path, text)).collect::<Vec<_>>();
    let found = |files: &[(&str, &str)]| {
        let faults = imports::circles(&tree(files));
        faults.into_iter().map(|fault| format!("{}:{}", fault.file, fault.line)).collect::<Vec<_>>()
    };
    // A parent that declares its children, uses one and passes an item on; children that use each other through it.
    let parent = ("src/a/mod.rs", "mod b;\nmod c;\npub(crate) use b::B;\nuse c::C;");
    assert_eq!(found(&[parent, ("src/a/b.rs", "struct B;"), ("src/a/c.rs", "use super::B;")]), [""; 0]);
    assert_eq!(
        found(&[parent, ("src/a/b.rs", "\nuse super::C;"), ("src/a/c.rs", "use super::B;")]),
        ["src/a/b.rs:2", "src/a/c.rs:1"]
    );
    // A child that uses what its parent defines, and three files far apart; beside them, who is in no circle.
    assert_eq!(
        found(&[parent, ("src/a/c.rs", "use super::D;"), ("src/e.rs", "use crate::a::D;")]),
        ["src/a/mod.rs:4", "src/a/c.rs:1"]
    );
    assert_eq!(
        found(&[
            ("src/a/mod.rs", "mod b;\nfn f() { b::g(); }"),
            ("src/a/b.rs", "use crate::{\n    e,\n    f::F,\n};"),
            ("src/e.rs", "fn f() {\n    super::g::h()\n}"),
            ("src/f.rs", "struct F;"),
            ("src/g.rs", "use crate::a::b::i;"),
        ]),
        ["src/a/b.rs:2", "src/e.rs:2", "src/g.rs:1"]
    );
}

#[track_caller]
fn check(broken: Rule, path: &str, cases: &[(&str, &[usize])]) {
    for (text, lines) in cases {
        let found: Vec<_> = broken(&[Source::new(path, text)]).iter().map(|fault| fault.line).collect();
        assert_eq!(found, *lines, "{path}:\n{text}");
    }
}

// ---- What each rule looks for --------------------------------------------------------------------------------------

fn names_of_modules(files: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    // The map names every module; that is what it is for.
    for file in files.iter().filter(|file| file.path != "src/lib.rs") {
        let own = file.module().first().cloned().unwrap_or_else(|| "main".to_owned());
        let Some((_, open)) = MAY_NAME.iter().find(|(module, _)| *module == own) else {
            faults.push(Fault::new(file, 1, format!("`{own}` is a new module: say in MAY_NAME whom it may name")));
            continue;
        };
        for Name { line, path, .. } in file.names().into_iter().filter(|name| name.path[0] == "crate") {
            if !path.get(1).is_some_and(|module| *module == own || open.contains(&module.as_str())) {
                faults.push(Fault::new(file, line, format!("`{own}` may not name `{}`", path.join("::"))));
            }
        }
    }
    faults
}

fn names_of_std(files: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/http/")) {
        for Name { line, path, .. } in file.names() {
            let mut parts = path.iter().map(String::as_str);
            let is_open = match (parts.next(), parts.next(), parts.next()) {
                (Some("crate"), ..) => true,
                (_, None | Some("*"), _) => false,
                (_, Some(part), below) => NOT_PROTOCOL
                    .iter()
                    .find(|(closed, _)| *closed == part)
                    .is_none_or(|(_, open)| below.is_some_and(|name| open.contains(&name))),
            };
            if !is_open {
                faults.push(Fault::new(file, line, format!("`http` may not name `{}`", path.join("::"))));
            }
        }
    }
    faults
}

fn names_of_the_machine(files: &[Source]) -> Vec<Fault> {
    let is_closed =
        |path: &[&str]| matches!(path, ["std", "sync" | "thread", ..] | ["std", "time", "SystemTime" | "*", ..]);
    let mut faults = names_of(files, NO_SEAM, is_closed);
    for file in files.iter().filter(|file| is_outside(file, NO_SEAM)) {
        let tokens = file.tokens();
        let reads = tokens.windows(3).filter(|three| {
            let three = [&*three[0].text, &*three[1].text, &*three[2].text];
            matches!(three, ["Instant", "::", "now"] | [".", "elapsed", "("])
        });
        let reads = reads.filter(|three| three[0].line < tests_at(file));
        faults.extend(reads.map(|three| Fault::new(file, three[0].line, "reads the clock".to_owned())));
    }
    faults
}

fn names_of_sockets(files: &[Source]) -> Vec<Fault> {
    names_of(files, SOCKETS, |path| {
        matches!(
            path,
            ["std", "net"]
                | ["std", "net", "TcpListener" | "TcpStream" | "UdpSocket" | "*", ..]
                | ["std", "os", "fd", ..]
                | ["std", "os", "unix" | "linux", "net", ..]
        )
    })
}

/// Every place outside the given files and folders at which a path is named that may not be.
fn names_of(files: &[Source], outside: &[&str], is_closed: impl Fn(&[&str]) -> bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| is_outside(file, outside)) {
        for Name { line, path, .. } in file.names().into_iter().filter(|name| name.line < tests_at(file)) {
            if is_closed(&path.iter().map(String::as_str).collect::<Vec<_>>()) {
                faults.push(Fault::new(file, line, format!("`{}`", path.join("::"))));
            }
        }
    }
    faults
}

fn is_outside(file: &Source, places: &[&str]) -> bool {
    !places.iter().any(|place| file.path.starts_with(place))
}

/// The line at which a file's own tests begin: they come last, and may do what they like.
fn tests_at(file: &Source) -> usize {
    (1..).zip(file.code.lines()).find(|(_, line)| line.starts_with("mod tests {")).map_or(usize::MAX, |(line, _)| line)
}

fn names_of_ctrlc(files: &[Source]) -> Vec<Fault> {
    words(files, &["src/signals.rs"], &["ctrlc"])
}

fn open_fields(files: &[Source]) -> Vec<Fault> {
    // How items begin that may be `pub(…)`; what begins otherwise is a field.
    const ITEMS: [&str; 10] = ["const", "enum", "fn", "mod", "static", "struct", "trait", "type", "unsafe", "use"];
    let is_the_loops = |path: &str| path == "src/server/event_loop.rs" || path.starts_with("src/server/event_loop/");
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| is_the_loops(&file.path)) {
        let tokens = file.tokens();
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        for at in (0..tokens.len()).filter(|at| text(*at) == "pub" && text(at + 1) == "(") {
            let end = (at..tokens.len()).find(|end| text(*end) == ")").unwrap_or(at);
            if !ITEMS.contains(&text(end + 1)) {
                faults.push(Fault::new(file, tokens[at].line, "a field with `pub(…)`".to_owned()));
            }
        }
    }
    // Without this the rule would hold of a loop that has gone somewhere else.
    if !files.iter().any(|file| is_the_loops(&file.path)) {
        faults.push(Fault::new(&files[0], 1, "there is no event loop: say in `open_fields` where it is".to_owned()));
    }
    faults
}

fn unsafety(files: &[Source]) -> Vec<Fault> {
    const SYS: &str = "src/server/sys.rs";
    let mut faults = words(files, &[SYS], &["unsafe"]);
    for file in files {
        let (text, code): (Vec<_>, Vec<_>) = (file.text.lines().collect(), file.code.lines().collect());
        for pair in file.tokens().windows(2) {
            let (line, index) = (pair[0].line, pair[0].line - 1);
            let relaxes =
                pair[0].text == "unsafe_code" && !["forbid(", "deny("].iter().any(|s| code[index].contains(s));
            if relaxes && file.path != SYS {
                faults.push(Fault::new(file, line, "the lint is relaxed".to_owned()));
            }
            if file.path == SYS && pair[0].text == "unsafe" && pair[1].text == "{" {
                // The comment stands above the statement, of which the block may be the second line.
                let above = text[..index].iter().rev().skip_while(|line| line.ends_with('='));
                let mut comment = above.map(|line| line.trim()).take_while(|line| line.starts_with("//"));
                if !comment.any(|line| line.starts_with("// SAFETY: ")) {
                    faults.push(Fault::new(file, line, "an `unsafe` block without `// SAFETY: ` above it".to_owned()));
                }
            }
        }
    }
    faults
}

fn retired_words(files: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        let tokens = file.tokens();
        for at in 0..tokens.len() {
            for (words, _, instead) in RETIRED.iter().filter(|(_, place, _)| file.path.starts_with(place)) {
                let mut words_and_tokens = words.split(' ').zip(&tokens[at..]);
                let is_whole = words.split(' ').count() <= tokens.len() - at;
                if is_whole && words_and_tokens.all(|(word, token)| token.text == word) {
                    faults.push(Fault::new(file, tokens[at].line, format!("`{words}`: {instead}")));
                }
            }
        }
    }
    faults
}

fn printing(files: &[Source]) -> Vec<Fault> {
    let mut faults = words(files, PRINTERS, &["println", "eprintln", "eprint", "dbg", "stdout", "stderr"]);
    for file in files.iter().filter(|file| !PRINTERS.contains(&file.path.as_str())) {
        let tokens = file.tokens();
        let calls = tokens.windows(2).filter(|pair| pair[0].text == "print" && pair[1].text == "!");
        faults.extend(calls.map(|pair| Fault::new(file, pair[0].line, "`print!`".to_owned())));
    }
    faults
}

fn lengths(files: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        let count = file.text.lines().count();
        if count > LINES_MAX {
            faults.push(Fault::new(file, count, format!("{count} lines")));
        }
        for (line, text) in (1..).zip(file.text.lines()) {
            let chars = text.chars().count();
            if chars > LINE_CHARS_MAX {
                faults.push(Fault::new(file, line, format!("{chars} characters")));
            }
        }
    }
    faults
}

fn spans(files: &[Source]) -> Vec<Fault> {
    let (mut faults, mut loop_lines, mut first_over) = (Vec::new(), 0, None);
    for file in files {
        let tokens = file.tokens();
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
        // Where the last block of the loop's methods ends.
        let mut loop_end = 0;
        for at in (0..tokens.len()).filter(|at| matches!(text(*at), "fn" | "impl")) {
            let Some(end) = end(&tokens, at) else { continue };
            let (line, lines) = (tokens[at].line, tokens[end].line - tokens[at].line + 1);
            let is_loops = text(at + 1) == "EventLoop" || text(at + 2) == "for" && text(at + 3) == "EventLoop";
            if text(at) == "impl" && is_loops {
                loop_end = end;
            }
            if text(at) == "fn" && lines > FN_LINES_MAX {
                faults.push(Fault::new(file, line, format!("`{}` has {lines} lines", text(at + 1))));
            }
            if text(at) == "fn" && at < loop_end {
                loop_lines += lines;
                if loop_lines > LOOP_LINES_MAX {
                    first_over.get_or_insert((file, line));
                }
            }
        }
    }
    let text = format!("the methods of `EventLoop` have {loop_lines} lines");
    faults.extend(first_over.map(|(file, line)| Fault::new(file, line, text)));
    faults
}

/// Where an item ends that begins at the token `at`. `None` if it has no block: a function that is only declared, the
/// type of a pointer, `impl` in a signature.
fn end(tokens: &[source::Token], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in (at..).zip(&tokens[at..]) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.checked_sub(1)?,
            ";" if depth == 0 => return None,
            _ => {}
        }
        if token.text == "}" && depth == 0 {
            return Some(at);
        }
    }
    None
}

fn first_lines(files: &[Source]) -> Vec<Fault> {
    let bare = files.iter().filter(|file| !file.text.starts_with("//! "));
    bare.map(|file| Fault::new(file, 1, "does not begin with `//! `".to_owned())).collect()
}

fn marks(files: &[Source]) -> Vec<Fault> {
    // In two pieces each, so that this file keeps the rule too.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!"),
        concat!("unimple", "mented!"),
        concat!("#[igno", "re"),
    ];
    let mut faults = Vec::new();
    for file in files {
        for (line, text) in (1..).zip(file.text.lines()) {
            let found = marks.iter().filter(|mark| text.contains(*mark));
            faults.extend(found.map(|mark| Fault::new(file, line, format!("`{mark}`"))));
        }
    }
    faults
}

fn dependencies(files: &[Source]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        let mut is_inside = false;
        let mut has_ctrlc = false;
        for (line, text) in (1..).zip(file.text.lines().map(str::trim)) {
            if let Some(table) = text.strip_prefix('[') {
                let table = table.split(']').next().unwrap_or_default();
                is_inside = table == "dependencies";
                let is_other = table.split('.').any(|part| part == "dependencies" || part == "build-dependencies");
                if is_other && !is_inside {
                    faults.push(Fault::new(file, line, format!("a table of more dependencies: `{table}`")));
                }
            } else if is_inside && !text.is_empty() && !text.starts_with('#') {
                let name = text.split(|c: char| c == '=' || c == '.' || c.is_whitespace()).next().unwrap_or_default();
                has_ctrlc |= name == "ctrlc";
                if name != "ctrlc" || !text.contains("optional = true") {
                    faults.push(Fault::new(file, line, format!("`{text}`")));
                }
            }
        }
        if !has_ctrlc {
            faults.push(Fault::new(file, 1, "no `ctrlc`".to_owned()));
        }
    }
    faults
}

fn forbidding(files: &[Source]) -> Vec<Fault> {
    let said = |file: &Source| match file.path.as_str() {
        "Cargo.toml" => "unsafe_code = \"deny\"",
        _ => "#![cfg_attr(not(feature = \"sys\"), forbid(unsafe_code))]",
    };
    let silent = files.iter().filter(|file| !file.text.lines().any(|line| line == said(file)));
    silent.map(|file| Fault::new(file, 1, format!("does not say `{}`", said(file)))).collect()
}

fn readme(files: &[Source]) -> Vec<Fault> {
    let included = |file: &Source| file.text.lines().find(|line| line.starts_with("include = ")).map(str::to_owned);
    let included = files.iter().find_map(included).unwrap_or_default();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path == "README.md") {
        let count = file.text.lines().count();
        if count > README_LINES_MAX {
            faults.push(Fault::new(file, count, format!("{count} lines")));
        }
        for (line, text) in (1..).zip(file.text.lines()) {
            let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let is_included = |link: &str| {
                let folders = link.match_indices('/').map(|(at, _)| format!("\"/{}/**\"", &link[..at]));
                [format!("\"/{link}\"")].into_iter().chain(folders).any(|path| included.contains(&path))
            };
            let lost = links.filter(|link| !link.contains("://") && !is_included(link));
            faults.extend(lost.map(|link| Fault::new(file, line, format!("`{link}` is not in the package"))));
        }
    }
    faults
}

fn code_widths(files: &[Source]) -> Vec<Fault> {
    // Where `//!` is documentation that everybody sees.
    const PUBLIC: [&str; 3] = ["src/cookbook.rs", "src/lib.rs", "src/signals.rs"];
    let mut faults = Vec::new();
    for file in files {
        let is_public = PUBLIC.contains(&file.path.as_str());
        let mut is_code = false;
        for (line, text) in (1..).zip(file.text.lines()) {
            let comment = text.trim_start();
            let shown = match (comment.strip_prefix("///"), comment.strip_prefix("//!")) {
                _ if file.path.ends_with(".md") => Some(text),
                (Some(shown), _) => Some(shown.strip_prefix(' ').unwrap_or(shown)),
                (_, Some(shown)) if is_public => Some(shown.strip_prefix(' ').unwrap_or(shown)),
                _ => None,
            };
            let Some(shown) = shown else {
                is_code = false;
                continue;
            };
            let (is_fence, chars) = (shown.trim_start().starts_with("```"), shown.chars().count());
            is_code ^= is_fence;
            if is_code && !is_fence && chars > DOC_CODE_CHARS_MAX && !shown.starts_with("# ") {
                faults.push(Fault::new(file, line, format!("{chars} columns")));
            }
        }
    }
    faults
}

fn top_level(files: &[Source]) -> Vec<Fault> {
    let belongs = |name: &str| {
        matches!(name, "Cargo.toml" | "Cargo.lock" | "src" | "tests" | "README.md") || name.starts_with('.')
    };
    let strangers = files.iter().filter(|file| !belongs(file.path.split('/').next().unwrap_or_default()));
    strangers.map(|file| Fault::new(file, 1, "does not belong there".to_owned())).collect()
}

/// Every place outside the given files at which one of the words stands in the code.
fn words(files: &[Source], outside: &[&str], words: &[&str]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| !outside.contains(&file.path.as_str())) {
        let found = file.tokens().into_iter().filter(|token| words.contains(&token.text.as_str()));
        faults.extend(found.map(|token| Fault::new(file, token.line, format!("`{}`", token.text))));
    }
    faults
}
