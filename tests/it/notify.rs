//! What the command tells a service manager, on a socket as the manager would have it, and what becomes of it if that
//! socket is no good.

#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::net::SocketAddr;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use allout::{Cause, Config, Method, Response, Router, Server};

use crate::support::{Client, Folder, Gate, HANG, PING, Process, Site};

const ALLOUT: &str = env!("CARGO_BIN_EXE_allout");
const SHUTDOWN: &str = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";

// ---- Helpers -------------------------------------------------------------------------------------------------------

fn start(program: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    let mut command = Command::new(program);
    Process::spawn(command.args(["--listen", "127.0.0.1:0"]).args(arguments).envs(variables.iter().copied()))
}

pub fn message(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 4096];
    socket.set_read_timeout(Some(HANG)).unwrap();
    let count = socket.recv(&mut bytes).expect("a message");
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

/// Whatever else lies there.
fn rest(socket: &UnixDatagram) -> Vec<String> {
    socket.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    std::iter::from_fn(|| {
        socket.recv(&mut bytes).ok().map(|count| String::from_utf8_lossy(&bytes[..count]).into_owned())
    })
    .collect()
}

#[track_caller]
fn check_served_and_ended(mut process: Process) -> String {
    let address = process.address();
    let mut client = Client::connect(address);
    assert_eq!(client.ask(PING).text(), "pong");
    assert_eq!(client.ask(SHUTDOWN).status, 200);
    drop(client);
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

// ---- Messages ------------------------------------------------------------------------------------------------------

#[test]
fn a_service_manager_is_told_when_it_serves_and_why_and_for_how_long_it_stops() {
    let folder = Folder::new("notify");
    let path = folder.path("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let process = start(ALLOUT.as_ref(), &["--lame-duck", "0.25", "--grace", "1.5"], &variables);
    assert_eq!(message(&socket), "READY=1");
    let said = check_served_and_ended(process);
    assert!(!said.contains("notify"), "{said}");
    // Lame duck and grace, and two seconds more.
    let stopping = "STOPPING=1\nSTATUS=stopping: /shutdown\nEXTEND_TIMEOUT_USEC=3750000";
    assert_eq!(rest(&socket), [stopping]);
}

#[test]
fn a_service_manager_is_told_at_half_the_grace_who_is_still_here() {
    let folder = Folder::new("notify-half");
    let path = folder.path("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let demo = crate::support::example("demo");
    let mut process = start(&demo, &["--grace", "0.5"], &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    let address = process.address();
    assert_eq!(message(&socket), "READY=1");
    let mut slow = Client::connect(address);
    slow.send("GET /sleep/100000 HTTP/1.1\r\nHost: test\r\n\r\n");
    let busy = || Client::connect(address).ask("GET /status HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain\r\n\r\n");
    crate::support::poll(|| busy().text().contains("GET /sleep/100000").then_some(())).expect("its handler runs");
    assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
    assert!(message(&socket).starts_with("STOPPING=1\n"));
    let status = message(&socket);
    assert!(status.starts_with("STATUS=still here: http; 1 connection; GET /sleep/100000 for "), "{status}");
    assert_eq!(process.end().0, Some(124));
}

#[cfg(target_os = "linux")]
#[test]
fn a_service_manager_may_have_an_abstract_name_and_is_told_by_a_quiet_command_too() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let name = format!("allout-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let folder = Folder::new("notify-quiet");
    let path = folder.path("listener");
    let place = format!("unix:{}", path.display());
    let mut command = Command::new(ALLOUT);
    let process =
        Process::spawn(command.args(["--quiet", "--listen", &place]).env("NOTIFY_SOCKET", format!("@{name}")));
    assert_eq!(message(&socket), "READY=1");
    // It says nothing, so this is how one learns of it.
    assert_eq!(Client::connect_unix(&path).ask(SHUTDOWN).status, 200);
    assert_eq!(process.end().0, Some(0));
    assert!(matches!(&rest(&socket)[..], [only] if only.starts_with("STOPPING=1\nSTATUS=stopping: /shutdown\n")));
}

#[test]
fn a_watchdog_hears_from_us_although_every_handler_blocks_and_not_if_it_is_for_another() {
    let folder = Folder::new("watchdog");
    let path = folder.path("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let demo = crate::support::example("demo");
    let mut process = start(&demo, &["--threads", "2", "--loops", "3"], &[manager, ("WATCHDOG_USEC", "200000")]);
    let address = process.address();
    let mut blocked: Vec<_> = (0..6).map(|_| Client::connect(address)).collect();
    blocked.iter_mut().for_each(|client| client.send("GET /sleep/150 HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert_eq!(message(&socket), "READY=1");
    for _ in 0..8 {
        assert_eq!(message(&socket), "WATCHDOG=1");
    }
    blocked.iter_mut().for_each(|client| assert_eq!(client.reply().status, 200));
    assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
    assert_eq!(process.end().0, Some(0));
    let others = rest(&socket);
    assert!(others.iter().any(|message| message.starts_with("STOPPING=1\n")), "{others:?}");
    assert!(others.iter().filter(|message| *message != "WATCHDOG=1").count() == 1, "{others:?}");

    let socket = UnixDatagram::bind(folder.path("other")).unwrap();
    let path = folder.path("other");
    let manager = ("NOTIFY_SOCKET", path.to_str().unwrap());
    for other in [("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "0"), ("WATCHDOG_USEC", "soon")] {
        let variables = [manager, ("WATCHDOG_USEC", "4000"), other];
        check_served_and_ended(start(ALLOUT.as_ref(), &[], &variables));
        let messages = rest(&socket);
        assert!(messages.len() == 2 && messages[1].starts_with("STOPPING=1\n"), "{messages:?}");
    }
}

/// Under a library that holds one of its system calls up.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_watchdog_does_not_hear_from_us_while_the_loop_of_the_admin_listener_stands_still() {
    let folder = Folder::new("watchdog-admin");
    let Some(shim) = crate::support::shim(&folder) else { return };
    let (path, hold) = (folder.path("socket"), folder.path("hold"));
    let socket = UnixDatagram::bind(&path).unwrap();
    let [path, shim, held] = [&path, &shim, &hold].map(|path| path.to_str().unwrap());
    let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "400000"), ("LD_PRELOAD", shim), ("SHIM_HOLD", held)];
    let mut process = start(ALLOUT.as_ref(), &["--admin", "127.0.0.1:0"], &variables);
    let line = process.line_with("admin on http://");
    let admin: SocketAddr = line.rsplit('/').next().unwrap().parse().unwrap();
    while message(&socket) != "WATCHDOG=1" {}
    std::fs::write(&hold, admin.port().to_string()).unwrap();
    // Its loop is to accept this one, which now takes as long as the file is there.
    let mut client = Client::connect(admin);
    process.line_with("an event loop does not respond: the watchdog is not told that all is well");
    rest(&socket);
    socket.set_nonblocking(false).unwrap();
    std::fs::remove_file(&hold).unwrap();
    assert_eq!(message(&socket), "WATCHDOG=1");
    assert_eq!(client.ask(SHUTDOWN).status, 200);
    drop(client);
    assert_eq!(process.end().0, Some(0));
}

// ---- Liveness ------------------------------------------------------------------------------------------------------

#[test]
fn a_server_is_alive_while_every_event_loop_responds() {
    let short = Duration::from_millis(50);
    let config = Config { loops: 2, handlers_max: 2, ..Config::default() };
    let server = Server::bind("127.0.0.1:0", config).unwrap();
    let liveness = server.liveness();
    assert!(!liveness.check(HANG), "it does not run");
    let (gate, at) = (Gate::new(), Gate::new());
    let (pass, wait) = (gate.clone(), at.clone());
    let router = Router::new()
        .get("/block", move |_: &allout::Request<'_>| {
            wait.pass();
            Response::text("")
        })
        .at_once(Method::Get, "/broken", move |_: &allout::Request<'_>| {
            pass.pass();
            Response::text("")
        });
    let site = Site::run(server, router, HANG);
    let mut blocked = [site.connect(), site.connect()];
    blocked[0].ask(PING);
    assert!(liveness.check(HANG), "nothing to do");
    // What blocks as it may: other threads go on.
    blocked.iter_mut().for_each(|client| client.send("GET /block HTTP/1.1\r\nHost: test\r\n\r\n"));
    at.wait_for(2);
    assert!(liveness.check(HANG), "handlers block");
    // What has promised not to block, and does: on its loop, since as many handlers run as may.
    let mut client = site.connect();
    client.send("GET /broken HTTP/1.1\r\nHost: test\r\n\r\n");
    gate.wait_for(1);
    assert!(!liveness.check(short), "a loop stands still");
    gate.open();
    client.reply();
    assert!(liveness.check(HANG), "it goes on");
    at.open();
    blocked.iter_mut().for_each(|client| _ = client.reply());
    site.stop.trigger(Cause::Signal);
    assert_eq!(site.outcome().exit_code(), 0);
    assert!(!liveness.check(HANG), "it has ended");
}

// ---- A socket that is no good --------------------------------------------------------------------------------------

#[test]
fn a_notify_socket_that_is_gone_full_or_none_costs_a_line_and_nothing_else() {
    let folder = Folder::new("notify-bad");
    let [full, file, stream] = ["full", "file", "stream"].map(|name| folder.path(name));
    let queue = UnixDatagram::bind(&full).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"X=1", &full).is_ok() {}
    std::fs::write(&file, "").unwrap();
    let _listener = UnixListener::bind(&stream).unwrap();
    let gone = folder.path("gone");
    for (socket, why) in [
        (gone.to_str().unwrap(), ""),
        (full.to_str().unwrap(), ": its queue is full"),
        (file.to_str().unwrap(), ""),
        (stream.to_str().unwrap(), ""),
        ("relative", ": neither a path nor an abstract name"),
        ("a\nb", ": neither a path nor an abstract name"),
        ("vsock:2:1234", ": neither a path nor an abstract name"),
        (&*format!("/{}", "x".repeat(200)), ""),
    ] {
        let variables = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "20000")];
        let said = check_served_and_ended(start(ALLOUT.as_ref(), &[], &variables));
        let lines: Vec<_> = said.lines().filter(|line| line.contains("notify")).collect();
        let wanted = format!("cannot notify `{}`{why}", socket.replace('\n', " "));
        assert!(matches!(lines[..], [line] if line.starts_with(&wanted)), "`{wanted}` once in:\n{said}");
    }
    drop(queue);
    let said = check_served_and_ended(start(ALLOUT.as_ref(), &[], &[("NOTIFY_SOCKET", "")]));
    assert!(!said.contains("notify"), "{said}");
}
