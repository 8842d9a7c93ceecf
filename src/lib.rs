//! One out, all out.

#![cfg_attr(not(feature = "epoll"), forbid(unsafe_code))]

mod group;
mod http;
mod router;
mod server;
#[cfg(feature = "signals")]
pub mod signals;
mod stop;

pub use group::{CutOff, Exit, Group, MemberResult, Outcome, Stopped};
pub use http::{FieldError, Handler, Headers, Method, Peer, Reject, Request, Response, Status, Version};
pub use router::Router;
pub use server::{Address, AddressError, BindError, Bound, Config, Notice, Readiness, Server, Stats};
pub use stop::{Cause, GRACE, Stop};
