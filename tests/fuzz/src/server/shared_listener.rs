//! No listeners either.

use std::io;
use std::time::Instant;

use super::accept_error::AcceptError;
use super::listener::{Listener, LocalAddress};
use super::stream::Stream;
use crate::http::Peer;

pub(crate) enum Closing {
    Awaits(Instant),
    Closed,
    Left,
}

pub(crate) struct SharedListener {
    listener: Listener,
    place: LocalAddress,
}

impl SharedListener {
    pub(crate) fn local_address(&self) -> &LocalAddress {
        &self.place
    }

    pub(crate) fn accept(&self) -> Option<Result<(Stream, Peer), AcceptError>> {
        match self.listener {}
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&Listener) -> T) -> Option<T> {
        Some(look(&self.listener))
    }

    pub(crate) fn fail(&self) -> bool {
        match self.listener {}
    }

    pub(crate) fn is_open(&self) -> bool {
        match self.listener {}
    }

    pub(crate) fn close(&self, _: Instant, _: &mut Vec<(Stream, Peer)>) -> io::Result<Closing> {
        match self.listener {}
    }

    pub(crate) fn leave(&self) -> bool {
        match self.listener {}
    }

    pub(crate) fn abandon(&self, _: Instant, _: impl FnMut(Stream, Peer)) -> io::Result<()> {
        match self.listener {}
    }
}
