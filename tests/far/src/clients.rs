//! The clients: some ask again and again on one connection, some once on each.
//!
//! *Lost*: the connection stood, the request was sent, no answer came. A connect that is refused or not answered is no
//! loss, nor is a connection that ends before it is asked on.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::network;
use crate::once::{ADDRESS, CLIENTS};
use crate::rows::Row;

/// Said once they are in their own namespace.
pub(crate) const READY: &str = "ready";

/// How long they are at work: the stop comes in the middle, and who has not heard then hears no more.
const WORK: Duration = Duration::from_secs(6);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than any stop.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const REQUEST: &[u8] = b"GET /ping HTTP/1.1\r\nHost: 10.77.0.1\r\n\r\n";

/// Starts them in a namespace of their own. They begin when they are told to.
pub(crate) fn start(row: &Row, seed: u64) -> Result<Child> {
    let mut command = Command::new("unshare");
    command.arg("--net").arg(std::env::current_exe()?);
    command.args(["clients", &row.number.to_string(), &seed.to_string()]);
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

/// Waits for the word, and prints how many requests were lost and how many answered.
pub(crate) fn run(row: &'static Row, seed: u64) -> Result<()> {
    println!("{READY}");
    let mut word = String::new();
    if std::io::stdin().lock().read_line(&mut word)? == 0 {
        return Err("nobody waits for the clients".into());
    }
    network::ip(&format!("addr add {CLIENTS}/30 dev far1"))?;
    network::ip("link set far1 up")?;
    let counts = &Counts { until: Instant::now() + WORK, lost: AtomicU64::new(0), answered: AtomicU64::new(0) };
    thread::scope(|scope| {
        for number in 0..row.keep_alive + row.one_shot {
            let mut dice = fastrand::Rng::with_seed(seed << 16 | number as u64);
            scope.spawn(move || counts.ask_on(row, number < row.keep_alive, &mut dice));
        }
    });
    println!("{} {}", counts.lost.load(Ordering::Relaxed), counts.answered.load(Ordering::Relaxed));
    Ok(())
}

struct Counts {
    until: Instant,
    lost: AtomicU64,
    answered: AtomicU64,
}

impl Counts {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// The life of one client.
    fn ask_on(&self, row: &Row, keeps: bool, dice: &mut fastrand::Rng) {
        let address: SocketAddr = ADDRESS.parse().expect("a constant");
        thread::sleep(Duration::from_millis(500).mul_f64(dice.f64()));
        while !self.is_over() {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) else {
                thread::sleep(Duration::from_millis(200));
                continue;
            };
            let _ = stream.set_read_timeout(Some(ANSWER_TIMEOUT));
            while !self.is_over() && !has_ended(&stream) {
                match ask(&mut stream) {
                    Some(is_last) => {
                        self.answered.fetch_add(1, Ordering::Relaxed);
                        if is_last || !keeps {
                            break;
                        }
                    }
                    None => {
                        self.lost.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                }
                thread::sleep(row.think.mul_f64(dice.f64()));
            }
            drop(stream);
            if !keeps {
                thread::sleep(Duration::from_millis(250).mul_f64(dice.f64()));
            }
        }
    }
}

/// The server has said that it sends no more: whoever sees that does not ask.
fn has_ended(stream: &TcpStream) -> bool {
    let _ = stream.set_nonblocking(true);
    let peeked = stream.peek(&mut [0]);
    let _ = stream.set_nonblocking(false);
    !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Asks and hears: whether the answer says that it is the last. `None`: none came, or not the whole.
fn ask(stream: &mut TcpStream) -> Option<bool> {
    const BODY: &[u8] = b"pong";
    stream.write_all(REQUEST).ok()?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end.filter(|end| bytes.len() >= end + BODY.len()) {
            let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
            return Some(head.contains("connection: close"));
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => return None,
        }
    }
}
