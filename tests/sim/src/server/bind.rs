//! Addresses are numbers of listeners that the simulation has made.

use std::fmt;

use super::address::{Address, AddressError, ToAddresses};
use super::listener::Listener;

#[derive(Debug)]
pub struct BindError(AddressError);

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<AddressError> for BindError {
    fn from(error: AddressError) -> Self {
        Self(error)
    }
}

impl std::error::Error for BindError {}

/// A port is the number of a listener.
pub(crate) fn bind(addresses: &impl ToAddresses) -> Result<Vec<Listener>, BindError> {
    let addresses = addresses.to_addresses()?;
    let number = |address: &Address| match address {
        Address::Tcp { port, .. } => usize::from(*port),
        Address::Unix(path) => unreachable!("{}", path.display()),
    };
    Ok(addresses.iter().map(|address| Listener::of(number(address))).collect())
}
