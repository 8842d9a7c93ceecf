//! Stand-ins: a request and its response are a number.

#[derive(Clone, Debug)]
pub(crate) struct Peer;

pub(crate) struct Request(pub(crate) usize);

pub(crate) struct Response(pub(crate) usize);
