//! Servers and clients for the tests: a site in this process, the real binary, and a client that says exactly the
//! bytes it is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use allout::{Cause, Config, Group, Handler, LocalAddress, Outcome, Server, Stats, Stop};

/// Only a hang takes this long.
pub const HANG: Duration = Duration::from_secs(30);

/// The request that most tests send.
pub const PING: &str = "GET /ping HTTP/1.1\r\nHost: test\r\n\r\n";

/// Looks again and again for what there is no event for. Returns `None` if it never comes.
pub fn poll<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    while started.elapsed() < HANG {
        let found = look();
        if found.is_some() {
            return found;
        }
        thread::sleep(Duration::from_millis(2));
    }
    None
}

/// Does the same with each of these at the same time: most of what a test does is wait.
pub fn at_once<T: Send>(all: impl IntoIterator<Item = T>, run: impl Fn(T) + Sync) {
    thread::scope(|scope| {
        for each in all {
            let run = &run;
            scope.spawn(move || run(each));
        }
    });
}

/// Says that a test shows nothing here.
#[expect(clippy::print_stderr)] // Whoever reads the results should know.
pub fn skip(why: &str) {
    eprintln!("skipped: {why}");
}

// ---- A site in this process ----------------------------------------------------------------------------------------

/// A group with one HTTP server, running in this process.
pub struct Site {
    pub address: SocketAddr,
    pub stop: Stop,
    pub stats: Stats,
    thread: JoinHandle<Outcome>,
}

impl Site {
    /// Starts a server on a port that the system chooses, with a grace period of 20 seconds.
    pub fn start(config: Config, handler: impl Handler) -> Self {
        Self::start_with_grace(config, handler, Duration::from_secs(20))
    }

    pub fn start_with_grace(config: Config, handler: impl Handler, grace: Duration) -> Self {
        let server = Server::bind("127.0.0.1:0", config).unwrap();
        Self::run(server, handler, grace)
    }

    pub fn run(server: Server, handler: impl Handler, grace: Duration) -> Self {
        let Some(LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
        let stats = server.stats();
        let mut group = Group::new();
        let stop = group.stop();
        group.add("http", move |stop| server.run(handler, stop));
        let thread = thread::spawn(move || group.run(grace));
        Self { address, stop, stats, thread }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Triggers the stop.
    pub fn stop(&self) {
        self.stop.trigger(Cause::Request("test".to_owned()));
    }

    /// Waits for the group's end.
    pub fn outcome(self) -> Outcome {
        self.thread.join().unwrap()
    }
}

// ---- The real binary -----------------------------------------------------------------------------------------------

/// A process, killed when the test ends before it does.
pub struct Process {
    child: Child,
    lines: mpsc::Receiver<String>,
    said: String,
}

/// The command of this crate.
pub fn allout(arguments: &[&str]) -> Process {
    Process::start(PathBuf::from(env!("CARGO_BIN_EXE_allout")), arguments)
}

/// The example, which Cargo builds beside the tests.
pub fn demo(arguments: &[&str]) -> Process {
    Process::start(example("demo"), arguments)
}

/// Where an example lies.
pub fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_allout")).with_file_name("examples").join(name)
}

impl Process {
    fn start(program: PathBuf, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(program).args(arguments))
    }

    /// Starts a command, with its stderr to be read by the test.
    pub fn spawn(command: &mut Command) -> Self {
        Self::spawn_as_it_is(command.stdin(Stdio::null()))
    }

    /// The same, with the stdin that the command has.
    pub fn spawn_as_it_is(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: String::new() }
    }

    #[cfg(target_os = "linux")]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used, in hundredths of a second.
    #[cfg(target_os = "linux")]
    pub fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        // The name in brackets may have spaces; utime and stime are the 12th and 13th behind it.
        let (_, rest) = stat.rsplit_once(')').unwrap();
        rest.split_whitespace().skip(11).take(2).map(|number| number.parse::<u64>().unwrap()).sum()
    }

    /// Waits for a line on stderr that has this text, and returns it.
    pub fn line_with(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(HANG) {
                Ok(line) => {
                    self.said += &format!("{line}\n");
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("`{text}` was never said, but:\n{}", self.said),
            }
        }
    }

    /// Waits until it listens, and returns where.
    pub fn address(&mut self) -> SocketAddr {
        let line = self.line_with("listening on http://");
        line.rsplit('/').next().unwrap().parse().unwrap()
    }

    /// Sends a signal: a real `kill`.
    #[cfg(all(unix, feature = "signals"))]
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// True once it has ended.
    #[cfg(all(unix, feature = "signals"))]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for the exit code alone: others may hold its stderr.
    #[cfg(unix)]
    pub fn code(&mut self) -> Option<i32> {
        poll(|| self.child.try_wait().unwrap()).expect("it ends").code()
    }

    /// Waits for the end: the exit code, and all that was said on stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        // The channel closes with the process's stderr.
        loop {
            match self.lines.recv_timeout(HANG) {
                Ok(line) => self.said += &format!("{line}\n"),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end; it said:\n{}", self.said),
            }
        }
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.said))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- A client ------------------------------------------------------------------------------------------------------

/// A connection on which exactly the given bytes are sent, and responses are read strictly.
pub struct Client {
    pub stream: TcpStream,
    received: Vec<u8>,
}

/// One response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// True if it says that it is the connection's last.
    pub fn is_last(&self) -> bool {
        self.header("connection") == Some("close")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).unwrap())
    }

    /// What speaks on a stream that is connected, or will be.
    pub fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, received: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends FIN: half-closes.
    pub fn finish(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request);
        self.reply()
    }

    /// The next response to a request other than HEAD.
    pub fn reply(&mut self) -> Reply {
        self.next_reply(false).expect("a response, not the end of the connection")
    }

    /// The next response, to HEAD.
    pub fn reply_to_head(&mut self) -> Reply {
        self.next_reply(true).expect("a response, not the end of the connection")
    }

    /// The next response; `None` if the connection ends instead.
    pub fn next_reply(&mut self, to_head: bool) -> Option<Reply> {
        let mut reply = self.next_head()?;
        if to_head || reply.status < 200 || reply.status == 204 || reply.status == 304 {
            return Some(reply);
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                reply.body.extend(chunk);
            }
        } else {
            let length: usize = reply.header("content-length").expect("a length").parse().unwrap();
            reply.body = self.take(length);
        }
        Some(reply)
    }

    /// The next chunk of a chunked body; `None` at the body's end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            match self.received.windows(2).position(|window| window == b"\r\n") {
                Some(at) => break at + 2,
                None => assert!(self.receive(), "the body was cut short"),
            }
        };
        let line = String::from_utf8(self.take(end)).unwrap();
        let mut chunk = self.take(usize::from_str_radix(line.trim_end(), 16).expect(&line) + 2);
        assert_eq!(chunk.split_off(chunk.len() - 2), b"\r\n");
        (!chunk.is_empty()).then_some(chunk)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.receive(), "the body was cut short");
        }
        self.received.drain(..length).collect()
    }

    /// All that comes until the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.receive() {}
        std::mem::take(&mut self.received)
    }

    /// The head of the next response; `None` if the connection ends instead.
    pub fn next_head(&mut self) -> Option<Reply> {
        let end = loop {
            match self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if !self.receive() => {
                    assert!(self.received.is_empty(), "cut short: {:?}", String::from_utf8_lossy(&self.received));
                    return None;
                }
                None => {}
            }
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect(&head).parse().unwrap();
        Some(Reply { status, head, body: Vec::new() })
    }

    /// Waits for the end of the connection, and finds nothing more before it. A reset is an end too.
    pub fn expect_end(&mut self) {
        while self.receive() {}
        assert_eq!(String::from_utf8_lossy(&self.received), "", "nothing more was expected");
    }

    /// Waits for an orderly end (FIN), and finds nothing more before it.
    pub fn expect_fin(&mut self) {
        let mut rest = std::mem::take(&mut self.received);
        self.stream.read_to_end(&mut rest).expect("a FIN, not a reset");
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing more was expected");
    }

    /// Reads once. Returns false at the end of the connection.
    fn receive(&mut self) -> bool {
        let mut bytes = [0; 64 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            // A read with a timeout is not resumed by the system when something interrupts it.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => true,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

// ---- Events --------------------------------------------------------------------------------------------------------

/// A gate that handlers wait at and tests open, and that counts who has come.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    /// For a handler: says that it has come.
    pub fn come(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().0 += 1;
        changed.notify_all();
    }

    /// For a handler: says that it has come, and waits until the gate is open.
    pub fn pass(&self) {
        self.come();
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        let (state, waited) = changed.wait_timeout_while(state, HANG, |(_, is_open)| !*is_open).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "the gate was never opened");
    }

    /// For a test: waits until so many have come.
    pub fn wait_for(&self, count: usize) {
        let (state, changed) = &*self.0;
        let waited = changed.wait_timeout_while(state.lock().unwrap(), HANG, |(come, _)| *come < count).unwrap();
        assert!(!waited.1.timed_out(), "{count} were to come, {} did", waited.0.0);
    }

    pub fn open(&self) {
        let (state, changed) = &*self.0;
        state.lock().unwrap().1 = true;
        changed.notify_all();
    }
}

// ---- Files ---------------------------------------------------------------------------------------------------------

/// A folder of a test's own, removed at the end with all that is in it.
#[cfg(unix)]
pub struct Folder(PathBuf);

#[cfg(unix)]
impl Folder {
    /// `name` is the test's.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("allout-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

#[cfg(unix)]
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

// ---- A Unix socket -------------------------------------------------------------------------------------------------

/// On a Unix socket, what was connected or sent is at the other side when the call returns; TCP's kernel may take its
/// time. For tests of what has arrived, but was not yet looked at.
#[cfg(unix)]
impl Client {
    pub fn connect_unix(path: &std::path::Path) -> Self {
        Self::try_connect_unix(path).unwrap()
    }

    pub fn try_connect_unix(path: &std::path::Path) -> std::io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        // Nothing but the name is TCP about it: reads, writes and timeouts are those of any socket.
        let stream = TcpStream::from(std::os::fd::OwnedFd::from(stream));
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        Ok(Self { stream, received: Vec::new() })
    }
}

/// A path for a Unix socket that no other test has.
#[cfg(unix)]
pub fn socket_path() -> PathBuf {
    static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    std::env::temp_dir().join(format!("allout-it-{}-{number}.sock", std::process::id()))
}

/// A library that has system calls fail, for `LD_PRELOAD`. `None`, told, if there is no C compiler.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn shim(folder: &Folder) -> Option<PathBuf> {
    let (source, library) = (concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/shim.c"), folder.path("shim.so"));
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    if !compiled.is_ok_and(|status| status.success()) {
        skip("there is no C compiler");
        return None;
    }
    // Class and byte order, and the processor.
    let machine = |file: &std::path::Path| {
        let bytes = std::fs::read(file).unwrap();
        (bytes[4..6].to_vec(), bytes[18..20].to_vec())
    };
    if machine(&library) != machine(&std::env::current_exe().unwrap()) {
        skip("the C compiler is for another machine");
        return None;
    }
    Some(library)
}
