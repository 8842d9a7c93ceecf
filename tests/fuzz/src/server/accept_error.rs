//! What is matched upon, and never made.

use std::io;

pub(crate) enum AcceptError {
    WouldBlock,
    Transient(io::Error),
    Stuck(io::Error),
    Exhausted(io::Error),
    Dead(io::Error),
}
