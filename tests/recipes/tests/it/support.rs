//! A page as a process, and a client that says exactly the bytes it is given.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Only a hang takes this long.
const HANG: Duration = Duration::from_secs(30);

/// Looks again and again for what there is no event for.
#[track_caller]
pub fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < HANG {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("it never came: {what}")
}

/// A folder of a test's own, removed at the end with all that is in it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("recipes-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A page at work, on a Unix socket in the folder.
pub struct Page {
    child: Child,
    pub socket: PathBuf,
    lines: mpsc::Receiver<String>,
    said: String,
}

impl Page {
    pub fn start(program: &str, folder: &Folder, configure: impl FnOnce(&mut Command)) -> Self {
        let socket = folder.path("socket");
        let mut command = Command::new(program);
        command.arg(format!("unix:{}", socket.display())).stdin(Stdio::null()).stderr(Stdio::piped());
        configure(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, socket, lines, said: String::new() }
    }

    pub fn try_connect(&self) -> Option<Client> {
        let stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        Some(Client { stream, received: Vec::new() })
    }

    pub fn connect(&self) -> Client {
        poll("a listener", || self.try_connect())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for a line on stderr that has this text, and returns it.
    #[track_caller]
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

    /// The exit code, if it has ended by itself.
    pub fn has_ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().unwrap().map(|status| status.code())
    }

    /// Waits for its end, and returns its exit code.
    pub fn code(&mut self) -> Option<i32> {
        poll("its end", || self.has_ended())
    }

    /// Tells it to stop, and returns its exit code.
    #[cfg(feature = "signals")]
    pub fn stop(mut self) -> Option<i32> {
        self.signal(Signal::SIGTERM);
        self.code()
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection.
pub struct Client {
    stream: UnixStream,
    received: Vec<u8>,
}

/// One response, whose body has a length or is chunked.
pub struct Reply {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a request and reads its response.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Reply {
        self.send(request);
        self.reply()
    }

    pub fn reply(&mut self) -> Reply {
        let head = self.line_until(b"\r\n\r\n");
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).expect(&head).parse().unwrap();
        let mut reply = Reply { status, head, body: Vec::new() };
        if status == 204 {
            return reply;
        }
        if reply.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line_until(b"\r\n");
                let mut chunk = self.take(usize::from_str_radix(size.trim_end(), 16).expect(&size) + 2);
                chunk.truncate(chunk.len() - 2);
                if chunk.is_empty() {
                    return reply;
                }
                reply.body.extend(chunk);
            }
        }
        let length = reply.field("content-length").expect("a length").parse().unwrap();
        reply.body = self.take(length);
        reply
    }

    fn line_until(&mut self, end: &[u8]) -> String {
        loop {
            match self.received.windows(end.len()).position(|window| window == end) {
                Some(at) => return String::from_utf8(self.take(at + end.len())).unwrap(),
                None => self.receive(),
            }
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            self.receive();
        }
        self.received.drain(..length).collect()
    }

    fn receive(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).expect("bytes, not a reset or nothing at all");
        assert!(count > 0, "bytes, not the end, behind {:?}", String::from_utf8_lossy(&self.received));
        self.received.extend_from_slice(&bytes[..count]);
    }
}
