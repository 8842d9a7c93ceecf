//! No listeners: connections come by the inbox, as from another loop. What is named elsewhere, and never made.

use std::fmt;

#[derive(Debug)]
pub(crate) enum Listener {}

#[derive(Clone, Debug)]
pub enum LocalAddress {}

impl fmt::Display for LocalAddress {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}
