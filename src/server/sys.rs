//! The system calls that std lacks: the only file of the crate that may say `unsafe`. Linux, with the feature `sys`.
//!
//! Each is declared against the libc that std already links, and wrapped so that no caller can misuse it: descriptors
//! come and go as std's owned and borrowed ones, errors as `io::Error`.

#![allow(unsafe_code)] // The one exception to the crate's rule; each block says why it is sound.

use std::ffi::{c_int, c_short, c_ulong, c_void};
use std::fs::File;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::network_path::NetworkPath;
use crate::http::Present;

unsafe extern "C" {
    fn accept4(fd: c_int, address: *mut c_void, length: *mut u32, flags: c_int) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn epoll_create1(flags: c_int) -> c_int;
    fn epoll_ctl(epfd: c_int, op: c_int, fd: c_int, event: *mut EpollEvent) -> c_int;
    fn epoll_wait(epfd: c_int, events: *mut EpollEvent, maxevents: c_int, timeout: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn poll(fds: *mut PollFd, count: c_ulong, timeout: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, length: u32) -> c_int;
    fn socket(family: c_int, kind: c_int, protocol: c_int) -> c_int;
}

fn checked(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The size of an argument, as the socket calls want it.
fn length_of<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

// ---- Readiness: epoll(7) -------------------------------------------------------------------------------------------

// <sys/epoll.h>; the same on every architecture.
const EPOLL_CLOEXEC: c_int = 0o2_000_000;
pub(crate) const EPOLL_CTL_ADD: c_int = 1;
pub(crate) const EPOLL_CTL_DEL: c_int = 2;
pub(crate) const EPOLL_CTL_MOD: c_int = 3;
pub(crate) const EPOLLIN: u32 = 0x001;
pub(crate) const EPOLLOUT: u32 = 0x004;
pub(crate) const EPOLLERR: u32 = 0x008;
pub(crate) const EPOLLHUP: u32 = 0x010;
pub(crate) const EPOLLRDHUP: u32 = 0x2000;
pub(crate) const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub(crate) const EPOLLET: u32 = 1 << 31;

/// `struct epoll_event` of <sys/epoll.h>; packed on x86-64 alone, where the 32-bit layout was kept.
#[repr(C)]
#[cfg_attr(target_arch = "x86_64", repr(packed))]
#[derive(Clone, Copy)]
pub(crate) struct EpollEvent {
    pub(crate) events: u32,
    pub(crate) data: u64,
}

pub(crate) fn new_epoll() -> io::Result<OwnedFd> {
    // SAFETY: no pointer is passed; the result is checked.
    let fd = checked(unsafe { epoll_create1(EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor, so it is open and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn control_epoll(
    epoll: &OwnedFd,
    operation: c_int,
    socket: &impl AsFd,
    mut event: EpollEvent,
) -> io::Result<()> {
    let (epoll, socket) = (epoll.as_raw_fd(), socket.as_fd().as_raw_fd());
    // SAFETY: both descriptors are open, as their types vouch for; `event` is a whole epoll_event that outlives the
    // call, which reads it and keeps no pointer to it.
    checked(unsafe { epoll_ctl(epoll, operation, socket, &raw mut event) }).map(|_| ())
}

/// Waits at most for so many milliseconds, for ever if negative, and returns how many events were found.
pub(crate) fn wait_epoll(epoll: &OwnedFd, found: &mut [EpollEvent], timeout_ms: c_int) -> io::Result<usize> {
    let room = c_int::try_from(found.len()).unwrap_or(c_int::MAX);
    // SAFETY: `found` holds at least `room` events, initialised and writable, and the kernel writes at most that many;
    // nobody else can touch it during the call, since we hold it by `&mut`.
    let count = unsafe { epoll_wait(epoll.as_raw_fd(), found.as_mut_ptr(), room, timeout_ms) };
    checked(count).map(|count| usize::try_from(count).unwrap_or(0))
}

/// `struct pollfd` of <poll.h>.
#[repr(C)]
struct PollFd {
    fd: c_int,
    events: c_short,
    revents: c_short,
}

/// Whether the peer of a socket is still there, whatever it has sent before. Changes nothing.
pub(crate) fn present(socket: &impl AsFd) -> Present {
    // <poll.h>; the last is another number on SPARC alone. The first two are reported unasked.
    const POLLERR: c_short = 0x8;
    const POLLHUP: c_short = 0x10;
    const POLLRDHUP: c_short = if cfg!(target_arch = "sparc64") { 0x800 } else { 0x2000 };
    let mut look = PollFd { fd: socket.as_fd().as_raw_fd(), events: POLLRDHUP, revents: 0 };
    // SAFETY: `look` is one whole pollfd, as the count says, writable, and outlives the call, which keeps no pointer to
    // it. The descriptor is open, as its type vouches for.
    let found = checked(unsafe { poll(&raw mut look, 1, 0) });
    match look.revents {
        _ if found.is_err() => Present::There,
        found if found & (POLLERR | POLLHUP) != 0 => Present::Gone,
        found if found & POLLRDHUP != 0 => Present::Ended,
        _ => Present::There,
    }
}

// ---- Listeners -----------------------------------------------------------------------------------------------------

/// Makes the accept queue of a listening socket as deep as this, or as the system lets it be (`somaxconn`).
pub(crate) fn deepen_queue(listener: &impl AsFd, connections: c_int) -> io::Result<()> {
    // SAFETY: no pointer is passed; the descriptor is open, as its type vouches for.
    checked(unsafe { listen(listener.as_fd().as_raw_fd(), connections) }).map(|_| ())
}

/// Room for an address of either family of TCP: `struct sockaddr_in6` of <netinet/in.h> is the longer one.
const ADDRESS_BYTES: usize = 28;

/// One connection from a listener's queue, non-blocking, and its peer if it has an address of TCP: in one call, where
/// std makes two.
pub(crate) fn accept(listener: &impl AsFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut address = [0_u8; ADDRESS_BYTES];
    let mut length = length_of::<[u8; ADDRESS_BYTES]>();
    // SAFETY: `address` is writable and `length` is how long it is; the kernel writes at most that much, copies it byte
    // by byte, and both outlive the call. Any bytes are a valid `[u8; _]`. The descriptor is open, as its type vouches
    // for.
    let fd = checked(unsafe {
        accept4(
            listener.as_fd().as_raw_fd(),
            address.as_mut_ptr().cast(),
            &raw mut length,
            SOCK_NONBLOCK | SOCK_CLOEXEC,
        )
    })?;
    // SAFETY: the kernel has just given us this descriptor, so it is open and nobody else owns it.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, address_in(&address)))
}

/// `struct sockaddr_in` or `sockaddr_in6`: the family as the machine has it, the port as the network does.
fn address_in(bytes: &[u8; ADDRESS_BYTES]) -> Option<SocketAddr> {
    const AF_INET: u16 = 2;
    const AF_INET6: u16 = 10;
    let (family, rest) = bytes.split_first_chunk().map(|(family, rest)| (u16::from_ne_bytes(*family), rest))?;
    let (port, rest) = rest.split_first_chunk().map(|(port, rest)| (u16::from_be_bytes(*port), rest))?;
    let (word, rest) = rest.split_first_chunk::<4>()?;
    match family {
        AF_INET => Some(SocketAddr::from((*word, port))),
        AF_INET6 => {
            let (ip, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(*ip), port, u32::from_ne_bytes(*word), scope).into())
        }
        _ => None,
    }
}

/// `struct sock_filter` of <linux/filter.h>: one instruction of classic BPF.
#[repr(C)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    operand: u32,
}

/// `struct sock_fprog` of <linux/filter.h>.
#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

/// Has a TCP listener take no new handshake: segments with SYN and without ACK are dropped before it sees them. Whoever
/// sent one tries again after a second, and finds whatever there is then. Handshakes under way go on, and the queue
/// stays as it is.
pub(crate) fn refuse_handshakes(listener: &impl AsFd) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Of the TCP header, where the filter's data begins.
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let instruction = |code, jump_true, jump_false, operand| Instruction { code, jump_true, jump_false, operand };
    let instructions = [
        instruction(LOAD_BYTE, 0, 0, FLAGS_AT),
        instruction(AND, 0, 0, SYN | ACK),
        instruction(JUMP_IF_EQUAL, 0, 1, SYN),
        instruction(RETURN, 0, 0, 0),
        instruction(RETURN, 0, 0, u32::MAX),
    ];
    let program = Program { length: 5, instructions: instructions.as_ptr() };
    // SAFETY: `program` is a whole sock_fprog, and points to as many instructions as it says; both outlive the call,
    // which copies them. The length is that of what the pointer points to.
    let result = unsafe {
        setsockopt(
            listener.as_fd().as_raw_fd(),
            SOL_SOCKET,
            SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length_of::<Program>(),
        )
    };
    checked(result).map(|_| ())
}

/// A way to ask the system for its sockets: sock_diag(7). What is written to it are requests, what is read, answers;
/// no read waits for one.
pub(crate) fn new_sock_diag() -> io::Result<File> {
    const AF_NETLINK: c_int = 16;
    const SOCK_RAW: c_int = 3;
    const NETLINK_SOCK_DIAG: c_int = 4;
    // SAFETY: no pointer is passed; the result is checked.
    let fd = checked(unsafe { socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_SOCK_DIAG) })?;
    // SAFETY: the kernel has just given us this descriptor, so it is open and nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

// <asm/socket.h>: a few architectures have numbers of their own.
#[cfg(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64"))]
const SOL_SOCKET: c_int = 0xffff;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64")))]
const SOL_SOCKET: c_int = 1;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_ATTACH_FILTER: c_int = 0x15;
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SO_ATTACH_FILTER: c_int = 26;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SOCK_CLOEXEC: c_int = 0x40_0000;
#[cfg(not(any(target_arch = "sparc", target_arch = "sparc64")))]
const SOCK_CLOEXEC: c_int = 0o2_000_000;
#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const SOCK_NONBLOCK: c_int = 0x80;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SOCK_NONBLOCK: c_int = 0x4000;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64")))]
const SOCK_NONBLOCK: c_int = 0o4000;

#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const SOCK_STREAM: c_int = 2;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64")))]
const SOCK_STREAM: c_int = 1;
#[cfg(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64"))]
const SO_TYPE: c_int = 0x1008;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64")))]
const SO_TYPE: c_int = 3;
#[cfg(any(target_arch = "mips", target_arch = "mips64"))]
const SO_ACCEPTCONN: c_int = 0x1009;
#[cfg(any(target_arch = "sparc", target_arch = "sparc64"))]
const SO_ACCEPTCONN: c_int = 0x8000;
#[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc", target_arch = "sparc64")))]
const SO_ACCEPTCONN: c_int = 30;

// ---- Descriptors of others -----------------------------------------------------------------------------------------

/// True for a socket that listens for streams.
pub(crate) fn is_listening(socket: &impl AsFd) -> bool {
    option(socket, SO_ACCEPTCONN) == Some(1) && option(socket, SO_TYPE) == Some(SOCK_STREAM)
}

/// An option of a socket; `None` if it is no socket, or has none of this name.
fn option(socket: &impl AsFd, name: c_int) -> Option<c_int> {
    let mut value: c_int = 0;
    let mut length = length_of::<c_int>();
    // SAFETY: `value` is writable and `length` is how long it is; the kernel writes at most that much, and both outlive
    // the call. Any bytes are a valid `c_int`. The descriptor is open, as its type vouches for.
    let result =
        unsafe { getsockopt(socket.as_fd().as_raw_fd(), SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length) };
    checked(result).ok().map(|_| value)
}

/// Takes over a descriptor that this process was started with, and makes it close-on-exec.
///
/// The caller knows from whoever started the process that it was handed over, and that it is ours to take. Whatever
/// else the process has opened since, this does not take: see below.
///
/// # Errors
///
/// It is not open, or was opened by this process.
pub(crate) fn take_descriptor(number: c_int) -> io::Result<OwnedFd> {
    const F_GETFD: c_int = 1;
    const F_SETFD: c_int = 2;
    const FD_CLOEXEC: c_int = 1;
    // SAFETY: no pointer is passed, and this command takes no argument; if the number is no open descriptor, the result
    // says so.
    let flags = unsafe { fcntl(number, F_GETFD) };
    // What is close-on-exec was not there when this process was executed.
    if flags < 0 || flags & FD_CLOEXEC != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "was not handed over"));
    }
    // SAFETY: no pointer is passed; this command takes a number.
    checked(unsafe { fcntl(number, F_SETFD, flags | FD_CLOEXEC) })?;
    // SAFETY: it is open, as `fcntl` has shown. Nobody else in this process owns it: std opens every descriptor
    // close-on-exec, and this one was not, so it was not opened by std but was there from the start, put there for the
    // taker by whoever executed this program. Nobody takes it twice: it is close-on-exec now, and the one caller takes
    // each number once, even if several threads call it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Has standard input read nothing, so that what was there is not held by it, nor by children. Where there is no
/// /dev/null, it stays.
pub(crate) fn empty_stdin() {
    if let Ok(null) = File::open("/dev/null") {
        // SAFETY: no pointer is passed, and both descriptors are open. Nobody owns standard input: std only lends it,
        // and the number stays open all the time, with another file behind it.
        let _ = checked(unsafe { dup2(null.as_raw_fd(), io::stdin().as_raw_fd()) });
    }
}

// ---- Connections ---------------------------------------------------------------------------------------------------

/// What the system has learnt of the path of a TCP connection. `None` if it does not tell.
pub(crate) fn path(stream: &impl AsFd) -> Option<NetworkPath> {
    const IPPROTO_TCP: c_int = 6;
    const TCP_INFO: c_int = 11;
    // Where things are in `struct tcp_info` of <linux/tcp.h>, counted in words. The system writes as much as it has of
    // what there is room for.
    const RTO_US: usize = 2;
    const UNACKNOWLEDGED: usize = 6;
    const RETRANSMITTED: usize = 25;
    const UNSENT_BYTES: usize = 36;
    const RTT_MIN_US: usize = 37;
    let mut info = [0_u32; RTT_MIN_US + 1];
    let mut length = length_of::<[u32; RTT_MIN_US + 1]>();
    // SAFETY: `info` is writable and `length` is how long it is; the kernel writes at most that much, and both outlive
    // the call. Any bytes are a valid `[u32; _]`.
    let result = unsafe {
        getsockopt(stream.as_fd().as_raw_fd(), IPPROTO_TCP, TCP_INFO, info.as_mut_ptr().cast(), &raw mut length)
    };
    let is_whole = checked(result).is_ok() && length == length_of::<[u32; RTT_MIN_US + 1]>();
    is_whole.then(|| NetworkPath {
        round_trip: Duration::from_micros(u64::from(info[RTT_MIN_US])),
        retransmission: Duration::from_micros(u64::from(info[RTO_US])),
        has_lost: info[RETRANSMITTED] > 0,
        is_delivered: info[UNACKNOWLEDGED] == 0 && info[UNSENT_BYTES] == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read() {
        let mut bytes = [0; ADDRESS_BYTES];
        assert_eq!(address_in(&bytes), None);
        bytes[..2].copy_from_slice(&2_u16.to_ne_bytes());
        bytes[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(address_in(&bytes), Some("127.0.0.1:8080".parse().unwrap()));
        bytes[..2].copy_from_slice(&10_u16.to_ne_bytes());
        bytes[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let ip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
        bytes[8..24].copy_from_slice(&ip.octets());
        bytes[24..].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(address_in(&bytes), Some(SocketAddrV6::new(ip, 8080, 7, 3).into()));
    }
}
