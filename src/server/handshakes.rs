//! TCP handshakes under way: clients that have our SYN-ACK, or are about to get it, and are in no queue yet.
//!
//! The system tells by sock_diag(7). It walks through all of its sockets for an answer, which takes one or two
//! milliseconds where there are few and some ten where there are 50,000, most of them in TIME-WAIT. (/proc/net/tcp
//! tells the same, and takes ten times as long.) So there is a pause after each look, longer than the look was.
//!
//! As a rule none is under way, and that is seen without a walk. The kernel's listener is counted in references: one is
//! the process's own, and each handshake, until it is accepted from the queue, holds another. /proc/net/tcp begins with
//! the listeners, and tells their references.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::sync;

/// How much longer the pause between two looks is than a look, and how long it is at least.
const PAUSE_FACTOR: u32 = 4;
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(5);

/// Handshakes under way at a listener that takes no new ones.
#[derive(Debug)]
pub(crate) struct Handshakes {
    listener: SocketAddr,
    inode: Option<u64>,
    until: Instant,
    next_at: Instant,
    is_over: bool,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// None is under way any more, their time is over, or the system does not tell.
    Over,
    Again(Instant),
}

impl Handshakes {
    /// Those of a listener, whose socket has this inode. They are waited for at most until then.
    pub(crate) fn at(listener: SocketAddr, inode: Option<u64>, until: Instant) -> Self {
        Self { listener, inode, until, next_at: sync::now(), is_over: false }
    }

    /// Looks for them, if it is time.
    pub(crate) fn look(&mut self, now: Instant) -> Look {
        if now < self.next_at {
            return Look::Again(self.next_at);
        }
        if self.is_over {
            return Look::Over;
        }
        // What the system could not say this time it may say the next.
        let may_be = |error: io::Error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
        let is_any = !self.is_listener_alone() && is_any_under_way(self.listener).unwrap_or_else(may_be);
        let then = sync::now();
        // If none is, no other can follow. Whose time is over was looked at once more, since we may have stood still.
        self.is_over = !is_any || now >= self.until;
        if self.is_over {
            return Look::Over;
        }
        self.next_at = then + (then.saturating_duration_since(now) * PAUSE_FACTOR).max(PAUSE_MIN);
        Look::Again(self.next_at)
    }
}

impl Handshakes {
    /// True if nobody holds the listener but this process: no handshake is under way, and none waits in the queue.
    /// False too where that is not told.
    fn is_listener_alone(&self) -> bool {
        let path = if self.listener.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
        let Some((inode, table)) = self.inode.zip(File::open(path).ok()) else { return false };
        // The system gives as many lines as there is room for, and must not look for more.
        let mut table = BufReader::with_capacity(LINE_BYTES, table);
        let mut line = String::new();
        // The first line is the heads of the columns.
        let mut is_listener = table.read_line(&mut line).is_ok();
        while is_listener {
            line.clear();
            let count = table.read_line(&mut line).unwrap_or(0);
            let word = |at| line.split_ascii_whitespace().nth(at);
            if word(INODE_AT).and_then(|word| word.parse().ok()) == Some(inode) {
                return word(REFERENCES_AT) == Some("1");
            }
            is_listener = count > 0 && word(STATE_AT) == Some(LISTEN);
        }
        false
    }
}

/// The columns of /proc/net/tcp, and its least line.
const STATE_AT: usize = 3;
const INODE_AT: usize = 9;
const REFERENCES_AT: usize = 10;
const LISTEN: &str = "0A";
const LINE_BYTES: usize = 150;

// <linux/netlink.h>, <linux/sock_diag.h>, <linux/inet_diag.h>.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;

/// The header of each message: its length, then its type.
const HEADER_BYTES: usize = 16;
/// Where the address of a socket stands in what is told of it, behind the header.
const SOURCE_AT: usize = 8;

/// Where it is told how often our SYN-ACK has been sent again. Whoever has not answered the third, which is sent three
/// seconds after the first, has gone: a scan, a flood, a phone in a tunnel. Nobody waits for those.
const RETRANSMITS_AT: usize = 3;
const RETRANSMITS_MAX: u8 = 2;

/// More than the system tells at a time.
const BUFFER_BYTES: usize = 32 * 1024;

/// Asks the system whether a handshake is under way at this address.
fn is_any_under_way(listener: SocketAddr) -> io::Result<bool> {
    let mut system = open()?;
    system.write_all(&request(listener))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = system.read(&mut buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        while let Some((kind, body, behind)) = message(rest) {
            match kind {
                SOCK_DIAG_BY_FAMILY if is_at(listener.ip(), body) => return Ok(true),
                NLMSG_DONE => return Ok(false),
                NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => {}
            }
            rest = behind;
        }
    }
}

/// The system has its answer ready before it is asked for it, so that no read has to wait, nor may: a loop does it.
#[cfg(all(target_os = "linux", feature = "sys"))]
fn open() -> io::Result<File> {
    super::sys::new_sock_diag()
}

#[cfg(not(all(target_os = "linux", feature = "sys")))]
fn open() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: all TCP sockets in SYN-RECV at this port. A handshake is of its
/// listener's family, whichever its client's.
fn request(listener: SocketAddr) -> Vec<u8> {
    const IPPROTO_TCP: u8 = 6;
    /// `TCP_SYN_RECV` and `TCP_NEW_SYN_RECV` of the kernel's <net/tcp_states.h>.
    const STATES: u32 = 1 << 3 | 1 << 12;
    const LENGTH: u8 = 72;
    let family = if listener.is_ipv4() { 2 } else { 10 };
    let mut bytes = Vec::with_capacity(LENGTH.into());
    bytes.extend_from_slice(&u32::from(LENGTH).to_ne_bytes());
    bytes.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // Number and sender: there is one request alone.
    bytes.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
    bytes.extend_from_slice(&STATES.to_ne_bytes());
    bytes.extend_from_slice(&listener.port().to_be_bytes());
    bytes.resize(LENGTH.into(), 0); // Any address, peer and device; a cookie is not looked at.
    bytes
}

/// The first message: its type, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let body = bytes.get(HEADER_BYTES..length)?;
    // Aligned to four bytes.
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// True for a handshake at this address, or at any that it stands for, whose client may still be there.
fn is_at(ip: IpAddr, body: &[u8]) -> bool {
    if body.get(RETRANSMITS_AT).is_some_and(|count| *count >= RETRANSMITS_MAX) {
        return false;
    }
    let source = body.get(SOURCE_AT..).unwrap_or_default();
    match ip {
        _ if ip.is_unspecified() => true,
        IpAddr::V4(ip) => source.starts_with(&ip.octets()),
        // IPv4 clients of an address that stands for one of IPv4 are shown in either way.
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some() || source.starts_with(&ip.octets()),
    }
}
