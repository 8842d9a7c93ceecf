//! What the soak shares with others that drive a server from outside.

pub mod client;
