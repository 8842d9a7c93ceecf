//! What the system shows of TCP handshakes under way.
//!
//! sock_diag(7) shows them. For an answer the system walks through all its sockets, which takes one or two milliseconds
//! if there are few, and about ten if there are 50,000, most of them in TIME-WAIT. (/proc/net/tcp shows the same, and
//! takes ten times as long.)
//!
//! As a rule none is under way, and that shows without a walk. The kernel counts references to the listener: one is the
//! process's own, and each handshake holds another until it is accepted from the queue. /proc/net/tcp begins with the
//! listeners, and shows their references.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};

/// True if only this process holds the listener: no handshake is under way, and none waits in the queue. False too
/// if the system does not show that.
pub(crate) fn is_listener_alone(listener: SocketAddr, inode: Option<u64>) -> bool {
    let path = if listener.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let Some((inode, table)) = inode.zip(File::open(path).ok()) else { return false };
    // The system returns as many lines as fit: a small buffer keeps it from looking for more.
    let mut table = BufReader::with_capacity(LINE_BYTES, table);
    let mut line = String::new();
    // The first line is the column headings.
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

/// Columns of /proc/net/tcp, and the length of its shortest line.
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
/// Where a message has the socket's address, counted from the end of its header.
const SOURCE_AT: usize = 8;

/// Where a message says how often our SYN-ACK has been sent again. That counts answers to a client that sends its SYN
/// again, too: one that lost the first SYN-ACK gets the next two at once, a second later. A client that was sent four,
/// after two seconds if it asks again and seven if not, counts as gone: a scan, a flood, a phone in a tunnel. Nobody
/// waits for those.
const RETRANSMITS_AT: usize = 3;
const RETRANSMITS_MAX: u8 = 3;

/// More than the system returns at a time.
const BUFFER_BYTES: usize = 32 * 1024;

/// Asks the system whether a handshake is under way at this address.
pub(crate) fn is_any_under_way(listener: SocketAddr) -> io::Result<bool> {
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

/// The system has its answer ready before it is read, so no read has to wait. Nor may one: a loop reads.
#[cfg(all(target_os = "linux", feature = "sys"))]
fn open() -> io::Result<File> {
    super::sys::new_sock_diag()
}

#[cfg(not(all(target_os = "linux", feature = "sys")))]
fn open() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`: all TCP sockets in SYN-RECV at this port. A handshake has its
/// listener's family, whatever its client's.
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
    bytes.extend_from_slice(&[0; 8]); // Number and sender: there is only one request.
    bytes.extend_from_slice(&[family, IPPROTO_TCP, 0, 0]);
    bytes.extend_from_slice(&STATES.to_ne_bytes());
    bytes.extend_from_slice(&listener.port().to_be_bytes());
    bytes.resize(LENGTH.into(), 0); // Any address, peer and device; the cookie is not checked.
    bytes
}

/// The first message: its type, its body, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let body = bytes.get(HEADER_BYTES..length)?;
    // Messages are aligned to four bytes.
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
        // IPv4 clients of an IPv4-mapped address may be shown in either form.
        IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some() || source.starts_with(&ip.octets()),
    }
}
