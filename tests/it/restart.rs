//! The example `restart`: a new version takes the old one's place, while clients go on asking.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::notify::message;
use crate::support::{Client, Folder, Process, Reply, at_once, example, poll};

const WHO: &str = "GET /who HTTP/1.1\r\nHost: test\r\n\r\n";
const RESTART: &str = "POST /restart HTTP/1.1\r\nHost: test\r\n\r\n";
/// A client that is quiet for this long may find its connection closed: less than half of the idle grace.
const QUIET: Duration = Duration::from_millis(100);

// ---- Helpers -------------------------------------------------------------------------------------------------------

/// Whoever serves there, killed when the test ends.
struct Site {
    address: SocketAddr,
    /// What the process says of itself, its ID first.
    who: String,
}

impl Site {
    fn start(program: &Path, way: &str) -> (Process, Self) {
        Self::start_with(program, way, &[])
    }

    fn start_with(program: &Path, way: &str, variables: &[(&str, &str)]) -> (Process, Self) {
        let mut command = Command::new(program);
        command.args([way, "127.0.0.1:0"]).envs(variables.iter().copied()).stdout(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let address = process.address();
        let who = poll(|| ask(address, WHO)).expect("it serves").text();
        (process, Self { address, who })
    }

    fn pid(&self) -> &str {
        self.who.split(' ').next().unwrap()
    }

    /// Waits until another one serves, or the same has begun anew.
    fn follow(&mut self) {
        let next = || ask(self.address, WHO).map(|reply| reply.text()).filter(|who| *who != self.who);
        self.who = poll(next).expect("a new one serves");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", self.pid()]).stderr(Stdio::null()).status();
    }
}

fn ask(address: SocketAddr, request: &str) -> Option<Reply> {
    ask_again(&mut Client::connect(address), Instant::now(), request)
}

/// `None` if the connection was closed since this client has been quiet for too long.
fn ask_again(client: &mut Client, quiet_since: Instant, request: &str) -> Option<Reply> {
    let sent = client.stream.write_all(request.as_bytes());
    let quiet = quiet_since.elapsed();
    let reply = sent.ok().and_then(|()| client.next_reply(false));
    assert!(reply.is_some() || quiet > QUIET, "a request was lost, {quiet:?} after the one before");
    reply
}

/// Asks again and again, on one connection as long as that is open, or on a new one each time.
fn go_on(address: SocketAddr, keeps: bool, is_over: &AtomicBool, answered: &AtomicUsize) {
    let mut kept = None;
    while !is_over.load(Ordering::Relaxed) {
        let (mut client, since) = kept.take().unwrap_or_else(|| (Client::connect(address), Instant::now()));
        let Some(reply) = ask_again(&mut client, since, WHO) else { continue };
        assert_eq!(reply.status, 200);
        answered.fetch_add(1, Ordering::Relaxed);
        kept = (keeps && !reply.is_last()).then(|| (client, Instant::now()));
    }
}

/// Restarts again and again while clients go on.
fn restart_under_load(site: &mut Site) {
    let (address, is_over, answered) = (site.address, AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for keeps in [true, false, true, false] {
            let (is_over, answered) = (&is_over, &answered);
            scope.spawn(move || go_on(address, keeps, is_over, answered));
        }
        let _end = End(&is_over);
        for _ in 0..5 {
            let before = answered.load(Ordering::Relaxed);
            restart(address);
            site.follow();
            poll(|| (answered.load(Ordering::Relaxed) > before + 20).then_some(())).expect("clients go on");
        }
    });
}

/// Who asks may still meet the one before, which is about to leave.
fn restart(address: SocketAddr) {
    let answer =
        || Some(ask(address, RESTART).expect("an answer").text()).filter(|text| text != "a restart is under way\n");
    assert_eq!(poll(answer).expect("the one before leaves"), "restarting\n");
}

/// Clients go on until this is dropped, by a panic too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts a script where a program was, as an update does: the old file lives on as long as it runs. By another process:
/// what a process of many threads has written may be held open by a child of another, and then cannot be executed.
fn install(program: &Path, script: &str) {
    let place = r#"printf '%s' "$1" >"$0.new" && chmod +x "$0.new" && mv "$0.new" "$0""#;
    assert!(Command::new("sh").args(["-c", place]).arg(program).arg(script).status().unwrap().success());
}

// ---- Restarts ------------------------------------------------------------------------------------------------------

#[test]
fn a_successor_takes_over_and_no_client_is_lost_or_refused() {
    let (mut process, mut site) = Site::start(&example("restart"), "successor");
    let first = site.pid().to_owned();
    restart_under_load(&mut site);
    assert_ne!(site.pid(), first);
    // The first one has gone, and owed nothing.
    assert_eq!(process.code(), Some(0));
}

#[test]
fn a_program_that_executes_itself_anew_is_the_same_process_and_loses_and_refuses_no_client() {
    let (_process, mut site) = Site::start(&example("restart"), "exec");
    let first = site.pid().to_owned();
    restart_under_load(&mut site);
    assert_eq!(site.pid(), first);
}

#[test]
fn the_old_one_serves_on_if_its_successor_dies_is_late_or_says_something_else() {
    let folder = Folder::new("successor");
    // One that is late is waited for. Those that make it wait do so at the same time.
    let late = ["#!/bin/sh\nexec sleep 60\n", "#!/bin/sh\nprintf read\nexec sleep 60\n"];
    // The third says a megabyte, and more.
    let hasty = ["#!/bin/sh\nexit 1\n", "", "#!/bin/sh\nexec yes\n", "#!/nonexistent\n"];
    at_once([("1", &late[..1]), ("2", &late[1..]), ("3", &hasty[..])], |(name, successors)| {
        let program = folder.path(name);
        assert!(Command::new("cp").arg(example("restart")).arg(&program).status().unwrap().success());
        let (mut process, mut site) = Site::start(&program, "successor");
        for bad in successors {
            install(&program, bad);
            let reply = ask(site.address, RESTART).expect("an answer");
            assert_eq!(reply.status, 503, "{bad}: {}", reply.text());
            assert_eq!(ask(site.address, WHO).expect("an answer").text(), site.who);
        }
        // One that says it twice is as good. Whoever reads the first may leave before the second.
        let good = example("restart");
        install(&program, &format!("#!/bin/sh\n(echo ready; echo ready)\nexec {} successor\n", good.display()));
        assert_eq!(ask(site.address, RESTART).expect("an answer").status, 200);
        site.follow();
        assert_eq!(process.code(), Some(0));
    });
}

#[test]
fn of_several_who_ask_for_a_restart_at_once_one_gets_it() {
    let (mut process, mut site) = Site::start(&example("restart"), "successor");
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(site.address)).collect();
    // All speak with the old one.
    for client in &mut clients {
        assert_eq!(client.ask(WHO).text(), site.who);
    }
    // Whoever comes late finds that the old one has left.
    clients.retain_mut(|client| client.stream.write_all(RESTART.as_bytes()).is_ok());
    let replies: Vec<_> = clients.iter_mut().filter_map(|client| client.next_reply(false)).collect();
    let (done, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!(done.len(), 1, "{replies:?}");
    assert!(refused.iter().all(|reply| reply.text() == "a restart is under way\n"), "{replies:?}");
    drop(clients);
    site.follow();
    assert_eq!(process.code(), Some(0));
}

#[test]
fn what_is_started_is_what_lies_there_by_then_and_what_named_the_old_process_is_not_passed_on() {
    for way in ["successor", "exec"] {
        let folder = Folder::new(&format!("version-{way}"));
        let link = |version: &str| {
            let place = r#"ln -sfn "$0" "$1/next" && mv -T "$1/next" "$1/current""#;
            let mut command = Command::new("sh");
            command.args(["-c", place, version]).arg(folder.path("")).status().unwrap().success()
        };
        ["1", "2"].iter().for_each(|version| std::fs::create_dir(folder.path(version)).unwrap());
        assert!(Command::new("cp").arg(example("restart")).arg(folder.path("1/server")).status().unwrap().success());
        let told = folder.path("told");
        let script = format!("#!/bin/sh\nenv >{}\nexec {} \"$@\"\n", told.display(), example("restart").display());
        install(&folder.path("2/server"), &script);
        assert!(link("1"));
        let variables = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "KEPT"].map(|name| (name, "1"));
        let (_process, mut site) = Site::start_with(&folder.path("current/server"), way, &variables);
        assert!(link("2"));
        assert_eq!(ask(site.address, RESTART).expect("an answer").status, 200);
        site.follow();
        let told = std::fs::read_to_string(told).expect("the second version was started");
        let named = |name: &str| told.lines().any(|line| line.starts_with(&format!("{name}=")));
        assert_eq!(variables.map(|(name, _)| named(name)), [false, false, false, false, true], "{told}");
    }
}

#[test]
fn a_service_manager_is_told_the_successors_process_and_of_the_last_stop_alone() {
    let folder = Folder::new("restart-notify");
    let manager = UnixDatagram::bind(folder.path("socket")).unwrap();
    let variables = [("NOTIFY_SOCKET", folder.path("socket").to_str().unwrap().to_owned())];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (mut process, mut site) = Site::start_with(&example("restart"), "successor", &variables);
    assert_eq!(message(&manager), "READY=1");
    assert_eq!(ask(site.address, RESTART).expect("an answer").status, 200);
    site.follow();
    assert_eq!([message(&manager), message(&manager)], ["READY=1".to_owned(), format!("MAINPID={}", site.pid())]);
    assert_eq!(process.code(), Some(0));
    if cfg!(feature = "signals") {
        assert!(Command::new("kill").args(["-TERM", site.pid()]).status().unwrap().success());
        assert_eq!(message(&manager), "STOPPING=1");
    }
}

/// Who waits for the old process's end is not to get a new one.
#[cfg(feature = "signals")]
#[test]
fn a_signal_that_comes_while_a_program_leaves_to_execute_itself_anew_ends_it() {
    let folder = Folder::new("restart-signal");
    let manager = UnixDatagram::bind(folder.path("socket")).unwrap();
    let path = folder.path("socket");
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let (mut process, site) = Site::start_with(&example("restart"), "exec", &variables);
    assert_eq!(message(&manager), "READY=1");
    // It holds the drain up until the rest comes.
    let mut upload = Client::connect(site.address);
    upload.send("POST /count HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nab");
    assert_eq!(ask(site.address, RESTART).expect("an answer").text(), "restarting\n");
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(message(&manager), "STOPPING=1");
    // On a machine that left the test standing, its upload is cut off.
    if upload.stream.write_all(b"c").is_ok() {
        let _ = upload.next_reply(false);
    }
    drop(upload);
    assert!(matches!(process.code(), Some(0 | 124)));
}
