//! Sockets that somebody else has bound, handed to the real binary as a service manager or a predecessor does it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};

#[cfg(all(target_os = "linux", feature = "sys"))]
use crate::support::poll;
use crate::support::{Client, Folder, PING, Process};

const ALLOUT: &str = env!("CARGO_BIN_EXE_allout");
const SHUTDOWN: &str = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";

// ---- Helpers -------------------------------------------------------------------------------------------------------

fn with_stdin(socket: OwnedFd, arguments: &[&str]) -> Process {
    Process::spawn_as_it_is(Command::new(ALLOUT).args(arguments).stdin(Stdio::from(socket)))
}

/// Starts a program with these sockets as `LISTEN_FDS`: at most two, as the shell's own stdin and stdout.
fn with_listen_fds(program: &Path, sockets: Vec<OwnedFd>, count: &str, arguments: &[&str]) -> Process {
    let places = ["3<&0", "4>&1"][..sockets.len()].join(" ");
    let script = format!(r#"export LISTEN_PID=$$; exec "$0" "$@" {places} </dev/null >/dev/null"#);
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(program).args(arguments);
    command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", "web:admin");
    let mut sockets = sockets.into_iter().map(Stdio::from);
    command.stdin(sockets.next().unwrap_or_else(Stdio::null)).stdout(sockets.next().unwrap_or_else(Stdio::null));
    Process::spawn_as_it_is(&mut command)
}

fn tcp() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Each takes part in nothing that is served.
#[track_caller]
fn check_refused(process: Process, text: &str) {
    let (code, said) = process.end();
    assert_eq!((code, said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.starts_with("allout: ") && said.contains(text), "`{text}` is not in: {said}");
}

#[track_caller]
fn check_ended(process: Process) -> String {
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    said
}

/// The numbers by which a process holds a socket, and whether each is close-on-exec.
#[cfg(all(target_os = "linux", feature = "sys"))]
fn descriptors(process: &Process, socket: &impl std::os::fd::AsFd) -> Vec<(String, bool)> {
    use std::os::unix::fs::MetadataExt;

    let socket = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
    let link = format!("socket:[{}]", socket.metadata().unwrap().ino());
    let of = format!("/proc/{}", process.id());
    let numbers = std::fs::read_dir(format!("{of}/fd")).unwrap();
    let numbers = numbers.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let is_it =
        |number: &String| std::fs::read_link(format!("{of}/fd/{number}")).is_ok_and(|have| have == Path::new(&link));
    let told = |number: String| {
        let told = std::fs::read_to_string(format!("{of}/fdinfo/{number}")).unwrap();
        let flags = told.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let close_on_exec = 0o2_000_000;
        let is_closed = u32::from_str_radix(flags, 8).unwrap() & close_on_exec != 0;
        (number, is_closed)
    };
    numbers.filter(is_it).map(told).collect()
}

// ---- Served --------------------------------------------------------------------------------------------------------

#[test]
fn a_socket_that_is_standard_input_is_served_and_stays_open_for_whoever_has_bound_it() {
    let (folder, (keeper, address)) = (Folder::new("stdin"), tcp());
    let mut process = with_stdin(keeper.try_clone().unwrap().into(), &["--listen", "stdin"]);
    assert_eq!(process.address(), address);
    assert_eq!(Client::connect(address).ask(PING).text(), "pong");
    assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
    check_ended(process);
    let _late = Client::connect(address);
    keeper.set_nonblocking(false).unwrap();
    keeper.accept().unwrap();

    let path = folder.path("socket");
    let keeper = UnixListener::bind(&path).unwrap();
    // Beside one of its own.
    let arguments = ["--listen", "stdin", "--listen", "127.0.0.1:0"];
    let mut process = with_stdin(keeper.try_clone().unwrap().into(), &arguments);
    let own = process.address();
    process.line_with(&format!("listening on unix:{}", path.display()));
    assert_eq!(Client::connect(own).ask(PING).text(), "pong");
    assert_eq!(Client::connect_unix(&path).ask(SHUTDOWN).status, 200);
    check_ended(process);
    let _late = Client::connect_unix(&path);
    keeper.set_nonblocking(false).unwrap();
    keeper.accept().unwrap();
}

#[cfg(all(target_os = "linux", feature = "sys"))]
#[test]
fn the_sockets_of_a_service_manager_are_served_and_nothing_else_is_bound() {
    let (folder, (keeper, address)) = (Folder::new("listen-fds"), tcp());
    let path = folder.path("socket");
    let unix = UnixListener::bind(&path).unwrap();
    let sockets = vec![keeper.try_clone().unwrap().into(), unix.try_clone().unwrap().into()];
    let mut process = with_listen_fds(ALLOUT.as_ref(), sockets, "2", &[]);
    assert_eq!(process.address(), address);
    process.line_with(&format!("listening on unix:{}", path.display()));
    for mut client in [Client::connect(address), Client::connect_unix(&path)] {
        assert_eq!(client.ask(PING).text(), "pong");
    }
    assert_eq!(Client::connect_unix(&path).ask(SHUTDOWN).status, 200);
    let said = check_ended(process);
    assert_eq!(said.matches("listening on").count(), 2, "{said}");
    // They go on listening, and the file is not ours to remove.
    let _late = (Client::connect(address), Client::connect_unix(&path));
    keeper.set_nonblocking(false).unwrap();
    unix.set_nonblocking(false).unwrap();
    keeper.accept().unwrap();
    unix.accept().unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_socket_with_an_abstract_name_is_served() {
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    let name = format!("allout-it-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixListener::bind_addr(&address).unwrap();
    let mut process = with_stdin(socket.into(), &["--listen", "stdin"]);
    process.line_with(&format!("listening on unix:@{name}"));
    let client = UnixStream::connect_addr(&address).unwrap();
    let mut reply = String::new();
    (&client).write_all(SHUTDOWN.as_bytes()).unwrap();
    (&client).read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    drop(client);
    check_ended(process);
}

#[test]
fn variables_that_name_another_process_or_no_socket_are_no_matter() {
    let of_another = |process: &str| {
        let mut command = Command::new(ALLOUT);
        command.args(["--listen", "127.0.0.1:0"]).env("LISTEN_FDS", "1").env("LISTEN_PID", process);
        Process::spawn(&mut command)
    };
    let others = ["1", "", "0", "x", "99999999999999999999"].map(of_another);
    let none = with_listen_fds(ALLOUT.as_ref(), Vec::new(), "0", &["--listen", "127.0.0.1:0"]);
    for mut process in others.into_iter().chain([none]) {
        let address = process.address();
        assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
        check_ended(process);
    }
}

#[cfg(all(target_os = "linux", feature = "sys"))]
#[test]
fn a_socket_that_was_handed_over_is_held_once_and_not_by_children() {
    let (keeper, address) = tcp();
    let by_stdin = with_stdin(keeper.try_clone().unwrap().into(), &["--listen", "stdin"]);
    let by_variable = with_listen_fds(ALLOUT.as_ref(), vec![keeper.try_clone().unwrap().into()], "1", &[]);
    for mut process in [by_stdin, by_variable] {
        assert_eq!(process.address(), address);
        let held = descriptors(&process, &keeper);
        assert!(matches!(&held[..], [(number, true)] if number != "0"), "{held:?}");
        assert_eq!(std::fs::read_link(format!("/proc/{}/fd/0", process.id())).unwrap(), Path::new("/dev/null"));
    }
}

// ---- Drained -------------------------------------------------------------------------------------------------------

/// Clients come while we drain what others hold too: they are for the others, and no loop may be reported them again
/// and again.
#[cfg(all(target_os = "linux", feature = "sys"))]
#[test]
fn a_drain_beside_others_that_hold_the_socket_costs_nothing_and_answers_our_share() {
    use std::time::Duration;

    let folder = Folder::new("shared-drain");
    let path = folder.path("socket");
    let ((tcp, address), unix) = (tcp(), UnixListener::bind(&path).unwrap());
    let sockets = vec![tcp.try_clone().unwrap().into(), unix.try_clone().unwrap().into()];
    let demo = crate::support::example("demo");
    let mut process = with_listen_fds(&demo, sockets, "2", &["--loops", "4", "--grace", "20"]);
    process.line_with("listening on unix:");
    // They hold the drain up until the rest comes.
    let mut uploads = [Client::connect(address), Client::connect_unix(&path)];
    let half = "POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab";
    uploads.iter_mut().for_each(|client| client.send(half));
    // Whoever is in the queue before the stop is answered, sooner or later.
    let mut ours = Client::connect_unix(&path);
    assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
    process.line_with("stopping");
    assert_eq!(ours.ask(PING).text(), "pong");
    // Every loop has left.
    let left =
        poll(|| (descriptors(&process, &tcp).is_empty() && descriptors(&process, &unix).is_empty()).then_some(()));
    left.expect("every loop leaves");
    let late = [Client::connect(address), Client::connect_unix(&path)];
    let before = process.ticks();
    // That nothing happens is the point.
    std::thread::sleep(Duration::from_millis(500));
    let spent = process.ticks() - before;
    assert!(spent <= 5, "{spent} ticks of CPU in half a second");
    for client in &mut uploads {
        client.send("c");
        assert_eq!(client.reply().text(), "3\n");
    }
    drop(uploads);
    check_ended(process);
    // And the newcomers are still there, for the others.
    tcp.set_nonblocking(false).unwrap();
    unix.set_nonblocking(false).unwrap();
    tcp.accept().unwrap();
    unix.accept().unwrap();
    drop(late);
}

/// However many loops there are, and however many clients come meanwhile for whoever holds the socket too.
#[cfg(all(target_os = "linux", target_env = "gnu", feature = "sys"))]
#[test]
fn no_loop_wakes_for_clients_that_come_while_it_drains_what_others_hold_too() {
    /// A loop has clocks of its own, too.
    const CLIENTS: u64 = 300;

    let folder = Folder::new("drain-waits");
    let Some(shim) = crate::support::shim(&folder) else { return };
    crate::support::at_once(["1", "2", "8"], |loops| {
        let (waits, (keeper, address)) = (folder.path(loops), tcp());
        std::fs::write(&waits, "").unwrap();
        let mut command = Command::new(crate::support::example("demo"));
        command
            .args(["--listen", "stdin", "--grace", "30", "--loops", loops])
            .stdin(OwnedFd::from(keeper.try_clone().unwrap()));
        let mut process = Process::spawn_as_it_is(command.env("LD_PRELOAD", &shim).env("SHIM_WAITS", &waits));
        process.line_with("listening");
        // It holds the drain up until the rest comes.
        let mut upload = Client::connect(address);
        upload.send("POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab");
        assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
        poll(|| descriptors(&process, &keeper).is_empty().then_some(())).expect("every loop leaves");
        let count = || std::fs::metadata(&waits).unwrap().len();
        let before = count();
        keeper.set_nonblocking(false).unwrap();
        for _ in 0..CLIENTS {
            let _client = Client::connect(address);
            keeper.accept().unwrap();
        }
        let waits = count() - before;
        assert!(waits < CLIENTS / 10, "{waits} waits of {loops} loops for {CLIENTS} clients of somebody else");
        upload.send("c");
        assert_eq!(upload.reply().text(), "3\n");
        check_ended(process);
    });
}

// ---- Refused -------------------------------------------------------------------------------------------------------

#[test]
fn standard_input_that_is_no_listening_socket_is_wrong_usage() {
    let (listener, address) = tcp();
    let connected = std::net::TcpStream::connect(address).unwrap();
    let _served = listener.accept().unwrap();
    let (pair, _peer) = UnixStream::pair().unwrap();
    let mut wrong: Vec<(&str, OwnedFd)> = vec![
        ("a file", std::fs::File::open(ALLOUT).unwrap().into()),
        ("nothing", std::fs::File::open("/dev/null").unwrap().into()),
        ("a connected socket", connected.into()),
        ("a pair", pair.into()),
    ];
    // Without `sys`, only accepting shows what these are.
    if cfg!(all(target_os = "linux", feature = "sys")) {
        wrong.push(("datagrams", UdpSocket::bind("127.0.0.1:0").unwrap().into()));
        wrong.push(("Unix datagrams", UnixDatagram::unbound().unwrap().into()));
    }
    for (kind, descriptor) in wrong {
        let process = with_stdin(descriptor, &["--listen", "stdin"]);
        let (code, said) = process.end();
        assert_eq!(
            (code, said.as_str()),
            (Some(2), "allout: stdin is not a listening socket (try --help)\n"),
            "{kind}"
        );
    }
    let mut closed = Command::new("sh");
    closed.args(["-c", r#"exec "$0" --listen stdin <&-"#, ALLOUT]);
    check_refused(Process::spawn(&mut closed), "stdin is not a listening socket");
}

#[cfg(all(target_os = "linux", feature = "sys"))]
#[test]
fn descriptors_of_a_service_manager_that_are_no_listening_sockets_are_wrong_usage() {
    use socket2::{Domain, SockAddr, Socket, Type};

    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let packets = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let folder = Folder::new("seqpacket");
    packets.bind(&SockAddr::unix(folder.path("socket")).unwrap()).unwrap();
    packets.listen(1).unwrap();
    let (pair, _peer) = UnixStream::pair().unwrap();
    let wrong: Vec<OwnedFd> = vec![
        std::fs::File::open(ALLOUT).unwrap().into(),
        UdpSocket::bind("127.0.0.1:0").unwrap().into(),
        UnixDatagram::unbound().unwrap().into(),
        pair.into(),
        bound.into(),
        packets.into(),
    ];
    for descriptor in wrong {
        let sockets = vec![tcp().0.into(), descriptor];
        let process = with_listen_fds(ALLOUT.as_ref(), sockets, "2", &[]);
        check_refused(process, "LISTEN_FDS: descriptor 4 (admin) is not a listening socket");
    }
    for count in ["1", "7", "1000000000"] {
        let process = with_listen_fds(ALLOUT.as_ref(), Vec::new(), count, &[]);
        check_refused(process, "LISTEN_FDS: descriptor 3 (web) was not handed over");
    }
    let more = with_listen_fds(ALLOUT.as_ref(), vec![tcp().0.into()], "2", &[]);
    check_refused(more, "LISTEN_FDS: descriptor 4 (admin) was not handed over");
    let lines = with_listen_fds(ALLOUT.as_ref(), vec![tcp().0.into()], "1\n2\r\x1b[2J", &[]);
    check_refused(lines, "bad value `1 2  [2J` for LISTEN_FDS");
    for count in ["", "x", "-1", "+1", "2147483647", "99999999999999999999"] {
        let process = with_listen_fds(ALLOUT.as_ref(), vec![tcp().0.into()], count, &[]);
        check_refused(process, &format!("bad value `{count}` for LISTEN_FDS"));
    }
}

#[cfg(not(all(target_os = "linux", feature = "sys")))]
#[test]
fn descriptors_of_a_service_manager_are_wrong_usage_where_they_cannot_be_taken_over() {
    let process = with_listen_fds(ALLOUT.as_ref(), vec![tcp().0.into()], "1", &[]);
    check_refused(process, "LISTEN_FDS: descriptor 3 (web) can be taken over on Linux alone, with the feature `sys`");
}
