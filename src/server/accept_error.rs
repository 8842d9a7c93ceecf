//! What an error of `accept` means.

use std::io;

/// Why `accept` returned no connection.
#[derive(Debug)]
pub(crate) enum AcceptError {
    /// The queue is empty.
    WouldBlock,
    /// This one connection failed, or the call did: try again.
    Transient(io::Error),
    /// The same, again and again: try again later.
    Stuck(io::Error),
    /// The process or the system has no descriptor or memory left: try again later.
    Exhausted(io::Error),
    /// The listener itself is broken.
    Dead(io::Error),
}

impl AcceptError {
    pub(super) fn sorted(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::WouldBlock {
            return Self::WouldBlock;
        }
        match error.raw_os_error() {
            Some(errno::EBADF | errno::EINVAL | errno::ENOTSOCK | errno::EOPNOTSUPP) => Self::Dead(error),
            // accept(2) passes on network errors already pending on the new socket.
            Some(
                errno::EINTR
                | errno::ECONNABORTED
                | errno::ECONNRESET
                | errno::EPROTO
                | errno::EPERM
                | errno::ENETDOWN
                | errno::ENETUNREACH
                | errno::EHOSTDOWN
                | errno::EHOSTUNREACH
                | errno::ENOPROTOOPT
                | errno::ETIMEDOUT,
            ) => Self::Transient(error),
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and any that nobody has thought of: waiting a little is always safe.
            _ => Self::Exhausted(error),
        }
    }
}

/// The error numbers that std has no kind for.
pub(super) mod errno {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    mod numbers {
        pub(crate) const ENOTSOCK: i32 = 88;
        pub(crate) const EPROTO: i32 = 71;
        pub(crate) const ENOPROTOOPT: i32 = 92;
        pub(crate) const EOPNOTSUPP: i32 = 95;
        pub(crate) const EAFNOSUPPORT: i32 = 97;
        pub(crate) const ENETDOWN: i32 = 100;
        pub(crate) const ENETUNREACH: i32 = 101;
        pub(crate) const ECONNABORTED: i32 = 103;
        pub(crate) const ECONNRESET: i32 = 104;
        pub(crate) const ETIMEDOUT: i32 = 110;
        pub(crate) const EHOSTDOWN: i32 = 112;
        pub(crate) const EHOSTUNREACH: i32 = 113;
    }
    // The BSDs and macOS share these, except EPROTO: 100 on macOS, 92 to 96 elsewhere, where 100 is not used.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    mod numbers {
        pub(crate) const ENOTSOCK: i32 = 38;
        pub(crate) const ENOPROTOOPT: i32 = 42;
        pub(crate) const EOPNOTSUPP: i32 = 45;
        pub(crate) const EAFNOSUPPORT: i32 = 47;
        pub(crate) const ENETDOWN: i32 = 50;
        pub(crate) const ENETUNREACH: i32 = 51;
        pub(crate) const ECONNABORTED: i32 = 53;
        pub(crate) const ECONNRESET: i32 = 54;
        pub(crate) const ETIMEDOUT: i32 = 60;
        pub(crate) const EHOSTDOWN: i32 = 64;
        pub(crate) const EHOSTUNREACH: i32 = 65;
        pub(crate) const EPROTO: i32 = 100;
    }
    pub(crate) use numbers::*;
    // The same everywhere since Version 7 Unix.
    pub(crate) const EPERM: i32 = 1;
    pub(crate) const EINTR: i32 = 4;
    pub(crate) const EBADF: i32 = 9;
    pub(crate) const EINVAL: i32 = 22;
}
