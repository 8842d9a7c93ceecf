//! No listeners: connections come by the inbox, as from another loop. What is named elsewhere, and never made.

use std::fmt;
use std::io;

use super::stream::Stream;
use crate::http::Peer;

#[derive(Debug)]
pub(crate) enum Listener {}

#[derive(Clone, Debug)]
pub enum Bound {}

impl fmt::Display for Bound {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

pub(crate) enum AcceptError {
    WouldBlock,
    Transient,
    Exhausted(io::Error),
    Dead(io::Error),
}

pub(crate) struct Gate {
    listener: Listener,
    place: Bound,
}

impl Gate {
    pub(crate) fn place(&self) -> &Bound {
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

    pub(crate) fn close(&self, _: &mut Vec<(Stream, Peer)>) -> io::Result<()> {
        match self.listener {}
    }

    pub(crate) fn abandon(&self, _: impl FnMut(Stream)) -> io::Result<()> {
        match self.listener {}
    }
}
