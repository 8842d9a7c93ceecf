//! What the simulated network shows of handshakes under way.

use std::io;
use std::net::SocketAddr;

use crate::plan::Fault;
use crate::torture::{self, Call};
use crate::world::{self, US, with};

pub(crate) fn is_listener_alone(_: SocketAddr, inode: Option<u64>) -> bool {
    world::step(50 * US);
    with(|world| {
        let listener = inode.and_then(|inode| world.net.listeners.get(usize::try_from(inode).ok()?));
        listener.is_some_and(|listener| listener.handshakes.is_empty() && listener.queue.is_empty())
    })
}

pub(crate) fn is_any_under_way(address: SocketAddr) -> io::Result<bool> {
    world::step(1500 * US / 4);
    let number = usize::from(address.port() - 8080);
    torture::error_of(Call::Handshakes(number))?;
    with(|world| {
        if world.has(Fault::Accept) && world.luck.one_in(30) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(!world.net.listeners[number].handshakes.is_empty())
    })
}
