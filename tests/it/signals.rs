//! Signals, sent with a real `kill` to a real process: they would hit every test of this one.
#![cfg(all(unix, feature = "signals"))]

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use allout::{Cause, Group, signals};
use nix::sys::signal::Signal;

#[cfg(target_os = "linux")]
use crate::support::poll;
use crate::support::{Client, Folder, Gate, HANG, Process, allout, at_once, demo};

/// Later than what is taken for a repeat of the first signal. There is no event to wait for: time is what it is about.
const LATER: Duration = Duration::from_millis(520);

/// The end of a process that a signal has stopped gracefully.
#[track_caller]
fn check_stopped(process: Process) {
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said.matches("stopping: signal\n").count(), 1, "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("all out: signal; ") && last.contains(" 0 cut off; ") && last.ends_with(" s"), "{said}");
}

#[track_caller]
fn check_signal(signal: Signal) {
    let mut process = allout(&["--listen", "127.0.0.1:0"]);
    process.address();
    process.signal(signal);
    check_stopped(process);
}

#[test]
fn sigint_stops() {
    check_signal(Signal::SIGINT);
}

#[test]
fn sigterm_stops() {
    check_signal(Signal::SIGTERM);
}

#[test]
fn sighup_stops() {
    check_signal(Signal::SIGHUP);
}

#[test]
fn sigint_stops_although_the_parent_has_ignored_it() {
    // As a shell without job control does for what it starts in the background.
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" INT; exec "$0" "$@""#, env!("CARGO_BIN_EXE_allout"), "--listen", "127.0.0.1:0"]);
    let mut process = Process::spawn(&mut command);
    process.address();
    process.signal(Signal::SIGINT);
    check_stopped(process);
}

#[test]
fn a_repeat_at_once_is_ignored_and_the_running_answer_is_finished() {
    at_once([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP], |second| {
        let mut process = demo(&["--listen", "127.0.0.1:0", "--grace", "30"]);
        let mut client = Client::connect(process.address());
        client.send("GET /sleep/300 HTTP/1.1\r\nHost: test\r\n\r\n");
        process.signal(Signal::SIGTERM);
        process.signal(second);
        process.line_with("stopping: signal");
        process.signal(second);
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "slept 300 ms\n"));
        drop(client);
        let (code, said) = process.end();
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("all out: signal; ") && !said.contains("second signal"), "{said}");
    });
}

#[track_caller]
fn check_forced(process: Process, signal: Signal) {
    let mut process = process;
    process.signal(Signal::SIGTERM);
    process.line_with("stopping: signal");
    thread::sleep(LATER);
    process.signal(signal);
    let (code, said) = process.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.ends_with("stopping: signal\na second signal: leaving at once\n"), "{said}");
}

/// Each has to wait until a second one is no repeat: they do so at the same time.
#[test]
fn a_second_signal_later_leaves_at_once_whatever_still_runs_and_no_socket_file() {
    at_once([leave_a_handler, leave_a_lame_duck, leave_no_socket_file], |check: fn()| check());
}

fn leave_a_handler() {
    let mut process = demo(&["--listen", "127.0.0.1:0", "--grace", "600"]);
    let mut client = Client::connect(process.address());
    client.send("GET /sleep/600000 HTTP/1.1\r\nHost: test\r\n\r\n");
    check_forced(process, Signal::SIGINT);
    client.expect_end();
}

fn leave_a_lame_duck() {
    let mut process = allout(&["--listen", "127.0.0.1:0", "--lame-duck", "600"]);
    process.address();
    check_forced(process, Signal::SIGTERM);
}

/// At the deadline nobody could do anything, and the group must not take that for members that do not leave.
#[test]
fn a_process_that_was_frozen_past_its_deadline_still_says_what_it_owed() {
    let mut process = demo(&["--listen", "127.0.0.1:0", "--grace", "0.2"]);
    let mut client = Client::connect(process.address());
    client.send("GET /bytes/50000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    // Its first byte says that the answer is under way. It is more than all buffers between take, and is not read on.
    while client.stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted) {}
    process.signal(Signal::SIGTERM);
    process.line_with("stopping: signal");
    process.signal(Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(500));
    process.signal(Signal::SIGCONT);
    let (code, said) = process.end();
    assert_eq!(code, Some(124), "{said}");
    assert!(said.contains(" 1 cut off; ") && !said.contains("did not leave in time"), "{said}");
}

/// The file is removed on exit, and this is one, although nothing is dropped by it.
fn leave_no_socket_file() {
    let folder = Folder::new("forced-exit");
    let (socket, taken_over) = (folder.path("socket"), folder.path("taken-over"));
    let places = [&socket, &taken_over].map(|path| format!("unix:{}", path.display()));
    let mut process = allout(&["--listen", &places[0], "--listen", &places[1], "--lame-duck", "600"]);
    process.line_with(&places[1]);
    std::fs::remove_file(&taken_over).unwrap();
    let _other = std::os::unix::net::UnixListener::bind(&taken_over).unwrap();
    check_forced(process, Signal::SIGTERM);
    assert!(!socket.exists(), "the socket's file was left behind");
    assert!(taken_over.exists(), "another server's file was removed");
}

#[test]
fn a_signal_at_any_moment_of_the_start_stops_it() {
    let folder = Folder::new("signal-while-starting");
    let socket = folder.path("socket");
    let place = format!("unix:{}", socket.display());
    for round in 0..40 {
        // More and more of the start is let pass. Which part a round meets is the machine's choice; all must do.
        let delay = Duration::from_micros(100 * round);
        let process = allout(&["--listen", "127.0.0.1:0", "--listen", &place, "--listen", "localhost:0"]);
        thread::sleep(delay);
        process.signal(Signal::SIGTERM);
        let (code, said) = process.end();
        // Without a code it has died of the signal, which came before anybody listened to it, let alone served.
        match code {
            Some(code) => {
                assert_eq!(code, 0, "{said}");
                assert!(said.contains("stopping: signal\n") && said.contains("\nall out: signal; "), "{said}");
            }
            None => assert_eq!(said, ""),
        }
        assert!(!socket.exists(), "after {delay:?} its socket's file was left behind: {said}");
    }
}

/// A Unix socket whose queue is full: connecting to it takes for ever, and so does finding out whether it is stale.
#[cfg(target_os = "linux")]
struct Busy(Vec<std::os::fd::OwnedFd>);

#[cfg(target_os = "linux")]
impl Busy {
    fn new(path: &std::path::Path) -> Self {
        use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
        use std::os::fd::AsRawFd;

        let new = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
        let (address, listener) = (UnixAddr::new(path).unwrap(), new());
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let mut sockets = vec![listener];
        loop {
            let client = new();
            match connect(client.as_raw_fd(), &address) {
                Ok(()) => sockets.push(client),
                Err(error) => {
                    assert_eq!(error, nix::errno::Errno::EAGAIN);
                    return Self(sockets);
                }
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn has_thread(process: &Process, name: &str) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let mut names = threads.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.any(|has| has.trim_end() == name)
}

/// Waits until a process binds: that is when it has a thread of this name.
#[cfg(target_os = "linux")]
fn wait_until_it_binds(process: &Process) {
    poll(|| has_thread(process, "bind").then_some(())).expect("it comes to binding");
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_stops_a_start_that_hangs_in_binding() {
    let folder = Folder::new("signal-while-binding");
    let busy = Busy::new(&folder.path("busy"));
    assert!(busy.0.len() >= 2);
    let process = allout(&["--listen", &format!("unix:{}", folder.path("busy").display())]);
    wait_until_it_binds(&process);
    process.signal(Signal::SIGTERM);
    check_stopped(process);
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_while_binding_leaves_no_socket_file_behind() {
    let folder = Folder::new("signal-after-the-first-bind");
    let _busy = Busy::new(&folder.path("busy"));
    let (first, second) = (folder.path("first"), folder.path("busy"));
    let places = [format!("unix:{}", first.display()), format!("unix:{}", second.display())];
    let process = allout(&["--listen", &places[0], "--listen", &places[1]]);
    wait_until_it_binds(&process);
    process.signal(Signal::SIGTERM);
    check_stopped(process);
    assert!(!first.exists(), "the first socket's file was left behind");
}

/// A name whose look-up takes as long as the test wants. glibc reads aliases of hosts from a file that the environment
/// names, and reading a pipe ends only when its writer does. Returns that writer once the look-up is under way; `None`
/// where a resolver knows no aliases.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn look_up_for_ever(folder: &Folder, options: &[&str]) -> Option<(Process, std::fs::File)> {
    use std::os::unix::fs::OpenOptionsExt;

    let pipe = folder.path("aliases");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = Command::new(env!("CARGO_BIN_EXE_allout"));
    command.args(options).args(["--listen", "nosuchname:1"]).env("HOSTALIASES", &pipe);
    let mut process = Process::spawn(&mut command);
    // Refused as long as nobody reads.
    let open = || std::fs::OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe);
    let writer = poll(|| match open() {
        Ok(writer) => Some(Some(writer)),
        Err(_) => process.has_ended().then_some(None),
    });
    writer.expect("it looks the name up, or ends").map(|writer| (process, writer))
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
#[expect(clippy::print_stderr)] // Whoever reads the results should know.
fn a_signal_does_not_wait_for_a_look_up_that_hangs() {
    let folder = Folder::new("signal-while-looking-up");
    let socket = folder.path("socket");
    let place = format!("unix:{}", socket.display());
    let options = ["--grace", "600", "--listen", &place];
    let Some((process, _writer)) = look_up_for_ever(&folder, &options) else {
        return eprintln!("skipped: this machine's resolver reads no aliases");
    };
    process.signal(Signal::SIGTERM);
    check_stopped(process);
    assert!(!socket.exists(), "the socket's file was left behind");
}

/// Where no thread can be had any more, whoever triggers and whoever joins does himself what helpers would have done.
#[cfg(target_os = "linux")]
#[test]
#[expect(clippy::print_stderr)] // Whoever reads the results should know.
fn a_signal_stops_a_process_for_which_the_system_has_no_thread() {
    let folder = Folder::new("no-thread");
    let program = folder.path("allout");
    std::fs::copy(env!("CARGO_BIN_EXE_allout"), &program).unwrap();
    // Root's threads are not limited, so that it must be somebody else: one who may do the same to himself.
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    let as_other = |name: &std::ffi::OsStr| {
        let mut command = Command::new(if id == b"0\n" { "setpriv".as_ref() } else { name });
        if id == b"0\n" {
            command.args(["--reuid=54321", "--clear-groups"]).arg(name);
        }
        command
    };
    if !as_other("prlimit".as_ref()).arg("--nproc").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: there is no prlimit, or nobody to run it");
    }
    let arguments = ["--listen", "127.0.0.1:0", "--loops", "1"];
    let process = Process::spawn(as_other(program.as_ref()).args(arguments));
    // The last that start: the loop's thread and a member's.
    poll(|| ["worker-0", "signals"].iter().all(|name| has_thread(&process, name)).then_some(())).expect("all run");
    let mut limiting = as_other("prlimit".as_ref());
    limiting.args([format!("--pid={}", process.id()), "--nproc=1:1".to_owned()]);
    assert!(limiting.status().unwrap().success());
    process.signal(Signal::SIGTERM);
    check_stopped(process);
}

// ---- Embedders' processes -------------------------------------------------------------------------------------------

/// Says that this test program was started by a test, to be sent signals.
const CHILD: &str = "SIGNALS_TEST_CHILD";

/// Runs [`child`] as a process, with its part to play.
fn embedder(part: &str) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "signals::child", "--nocapture"]).env(CHILD, part).stdout(Stdio::null());
    Process::spawn(&mut command)
}

#[test]
fn one_group_after_another_listens_to_signals() {
    let mut process = embedder("one after another");
    process.line_with("first group runs");
    process.signal(Signal::SIGTERM);
    // At once: the half second in which repeats are ignored is each group's own.
    process.line_with("second group runs");
    process.signal(Signal::SIGHUP);
    process.line_with("second group is told");
    thread::sleep(LATER);
    process.signal(Signal::SIGINT);
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
}

/// Nobody is left to be told, so that it does what it would have done without a handler.
#[test]
fn a_signal_long_after_a_group_that_ended_otherwise_ends_the_process() {
    let mut process = embedder("over");
    process.line_with("the group is over");
    thread::sleep(LATER);
    process.signal(Signal::SIGTERM);
    let (code, said) = process.end();
    assert_eq!(code, Some(130), "{said}");
}

#[test]
fn a_signal_finds_no_group_that_was_dropped_without_a_run() {
    for part in ["dropped", "dropped inside", "never held"] {
        let mut process = embedder(part);
        process.line_with("nobody listens");
        process.signal(Signal::SIGTERM);
        let (code, said) = process.end();
        assert_eq!(code, Some(130), "{part}: {said}");
    }
}

/// A repeat is one, whatever has become of the group that had the first.
#[test]
fn a_repeat_is_ignored_although_the_group_was_dropped_meanwhile() {
    let mut process = embedder("dropped after a signal");
    process.line_with("waiting");
    process.signal(Signal::SIGTERM);
    process.line_with("dropped");
    process.signal(Signal::SIGTERM);
    process.line_with("still there");
    thread::sleep(LATER);
    process.signal(Signal::SIGTERM);
    let (code, said) = process.end();
    assert_eq!(code, Some(130), "{said}");
    assert!(!said.contains("forced"), "{said}");
}

#[test]
fn by_default_a_second_signal_later_removes_socket_files_and_leaves_with_130() {
    let mut process = embedder("default");
    let line = process.line_with("socket: ");
    process.signal(Signal::SIGHUP);
    process.line_with("told");
    let socket = std::path::Path::new(line.strip_prefix("socket: ").unwrap());
    assert!(socket.exists());
    thread::sleep(LATER);
    process.signal(Signal::SIGINT);
    let (code, said) = process.end();
    assert_eq!(code, Some(130), "{said}");
    // Its folder is empty, and can be removed.
    assert!(!socket.exists() && std::fs::remove_dir(socket.parent().unwrap()).is_ok(), "its file was left behind");
}

#[test]
fn a_waker_that_blocks_holds_up_no_second_signal() {
    let mut process = embedder("blocked");
    process.line_with("it runs");
    process.signal(Signal::SIGTERM);
    process.line_with("blocked");
    thread::sleep(LATER);
    process.signal(Signal::SIGTERM);
    let (code, said) = process.end();
    assert_eq!(code, Some(130), "{said}");
}

#[test]
fn a_waker_that_blocks_holds_up_no_deadline_after_a_signal() {
    let mut process = embedder("blocked, with a deadline");
    process.line_with("it runs");
    process.signal(Signal::SIGTERM);
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the group is over"), "{said}");
}

/// As README's `main` is written: whoever has connected while it starts is answered.
#[test]
fn a_signal_during_the_start_of_an_embedder_resets_nobody_and_is_no_failure() {
    let mut process = embedder("start");
    let mut client = Client::connect(process.address());
    client.send(crate::support::PING);
    process.signal(Signal::SIGTERM);
    let reply = client.reply();
    assert_eq!((reply.status, reply.text().as_str()), (200, "pong"));
    drop(client);
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
}

/// Not a test, but the process that those above run.
#[test]
#[expect(clippy::print_stderr)] // By its lines it is followed.
fn child() {
    let Ok(part) = std::env::var(CHILD) else { return };
    let sleep = || thread::sleep(HANG / 2);
    let mut group = Group::new();
    let stop = group.stop();
    let forced = || {
        eprintln!("forced");
        std::process::exit(1);
    };
    match part.as_str() {
        "one after another" => one_after_another(),
        "over" => {
            let signals = signals::install(&stop).unwrap();
            group.add("signals", move |stop| signals.run(stop));
            group.add("job", |_| Ok(()));
            assert_eq!(group.run(Duration::from_secs(60)).exit_code(), 0);
            eprintln!("the group is over");
            sleep();
        }
        "dropped" => {
            let _signals = signals::install_with(&stop, forced).unwrap();
            drop(group);
            eprintln!("nobody listens");
            // It is held, but it is nobody's any more.
            sleep();
            drop(stop);
        }
        "dropped inside" => {
            let inner = Group::new();
            let stop = inner.stop();
            let _signals = signals::install_with(&stop, forced).unwrap();
            group.add_group("inner", inner);
            drop(group);
            eprintln!("nobody listens");
            sleep();
        }
        "never held" => {
            let _signals = signals::install_with(&allout::Stop::new(), forced).unwrap();
            eprintln!("nobody listens");
            sleep();
        }
        "dropped after a signal" => {
            let _signals = signals::install_with(&stop, forced).unwrap();
            eprintln!("waiting");
            stop.wait();
            drop(group);
            eprintln!("dropped");
            // The repeat is in between.
            thread::sleep(LATER / 4);
            eprintln!("still there");
            sleep();
        }
        "default" => {
            let folder = Folder::new("signals-default");
            let socket = folder.path("socket");
            let signals = signals::install(&stop).unwrap();
            let place = format!("unix:{}", socket.display());
            let server = allout::Server::bind(place, allout::Config::default()).unwrap();
            group.add("signals", move |stop| signals.run(stop));
            group.add("holder", move |stop| {
                eprintln!("socket: {}", socket.display());
                stop.wait();
                eprintln!("told");
                thread::sleep(HANG / 2);
                drop(server);
                Ok(())
            });
            let _ = group.run(HANG);
        }
        "blocked" | "blocked, with a deadline" => {
            let signals = signals::install(&stop).unwrap();
            stop.on_cause(move |_| {
                eprintln!("blocked");
                // For longer than the test waits.
                thread::sleep(2 * HANG);
            });
            group.add("signals", move |stop| signals.run(stop));
            group.add("job", |stop| {
                eprintln!("it runs");
                stop.wait();
                Ok(())
            });
            let grace = if part == "blocked" { HANG } else { Duration::from_millis(300) };
            let outcome = group.run(grace);
            eprintln!("the group is over");
            std::process::exit(outcome.exit_code().into());
        }
        "start" => {
            let signals = signals::install(&stop).unwrap();
            let server = allout::Server::bind("127.0.0.1:0", allout::Config::default()).unwrap();
            eprintln!("listening on http://{}", server.addresses().next().unwrap());
            stop.wait();
            let router = allout::Router::new().get("/ping", |_: &allout::Request<'_>| allout::Response::text("pong"));
            group.add("http", move |stop| server.run(router, stop));
            group.add("signals", move |stop| signals.run(stop));
            std::process::exit(group.run(allout::GRACE).exit_code().into());
        }
        other => panic!("no part: {other}"),
    }
}

#[expect(clippy::print_stderr)] // As above.
fn one_after_another() {
    let forced = Arc::new(AtomicUsize::new(0));
    let group_of = |number: usize, gate: Gate| {
        let (mut group, forced) = (Group::new(), Arc::clone(&forced));
        let opening = gate.clone();
        let signals = signals::install_with(&group.stop(), move || {
            forced.fetch_add(number, Ordering::SeqCst);
            opening.open();
        });
        group.add("signals", move |stop| signals.unwrap().run(stop));
        group
    };

    let first = group_of(1, Gate::new());
    eprintln!("first group runs");
    let outcome = first.run(Duration::from_secs(60));
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&Cause::Signal), 0));

    let gate = Gate::new();
    let mut second = group_of(10, gate.clone());
    let (sender, told) = mpsc::channel();
    second.add("slow", move |stop| {
        // Only now: a signal before the run would have kept this member from starting.
        eprintln!("second group runs");
        stop.wait();
        sender.send(()).unwrap();
        gate.pass();
        Ok(())
    });
    let running = thread::spawn(move || second.run(Duration::from_secs(60)));
    told.recv().unwrap();
    eprintln!("second group is told");
    let outcome = running.join().unwrap();
    assert_eq!((outcome.cause(), outcome.exit_code()), (Some(&Cause::Signal), 0));
    assert_eq!(forced.load(Ordering::SeqCst), 10, "only the second group was to be forced");
}
