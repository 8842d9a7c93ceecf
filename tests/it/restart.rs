//! The example `restart`: a new version takes the old one's place, while clients go on asking.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Folder, Process, Reply, example, poll};

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
        let mut command = Command::new(program);
        let mut process = Process::spawn(command.args([way, "127.0.0.1:0"]).stdout(Stdio::null()));
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
        let _ = Command::new("kill").args(["-KILL", self.pid()]).status();
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
        for _ in 0..5 {
            let before = answered.load(Ordering::Relaxed);
            assert_eq!(ask(address, RESTART).expect("an answer").text(), "restarting\n");
            site.follow();
            poll(|| (answered.load(Ordering::Relaxed) > before + 20).then_some(())).expect("clients go on");
        }
        is_over.store(true, Ordering::Relaxed);
    });
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
    let program = folder.path("server");
    assert!(Command::new("cp").arg(example("restart")).arg(&program).status().unwrap().success());
    let (mut process, mut site) = Site::start(&program, "successor");
    for bad in [
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\nexec sleep 60\n",
        "#!/bin/sh\nprintf read\nexec sleep 60\n",
        // A megabyte, and more.
        "#!/bin/sh\nexec yes\n",
        "#!/nonexistent\n",
        "",
    ] {
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
}
