//! Behind a proxy every request comes from the proxy, and `X-Forwarded-For` says for
//! whom. Anybody can send that field too, so it counts only as far as it was written by
//! proxies that are ours: from the last address back to the first one that is not a
//! proxy's. What stands before is what that client claims.

use std::env::args;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};

use allout::{Config, GRACE, Group, Outcome, Peer, Server, signals};
use allout::{Request, Response, Router};

/// Our proxies: on this machine, or this one.
fn is_proxy(address: IpAddr) -> bool {
    address.is_loopback() || address == Ipv4Addr::new(10, 0, 0, 1)
}

/// Who asks. `None`: somebody on this machine, or a proxy that does not say for whom.
fn client(request: &Request<'_>) -> Option<IpAddr> {
    match request.peer() {
        Peer::Tcp(peer) if !is_proxy(peer.ip().to_canonical()) => {
            return Some(peer.ip().to_canonical());
        }
        _ => {} // a proxy; a Unix socket's file is open to ours alone
    }
    // Several fields are one list (RFC 9110 §5.3).
    let fields: Vec<_> = request.headers().get_all("x-forwarded-for").collect();
    for field in fields.iter().rev() {
        for address in std::str::from_utf8(field).ok()?.rsplit(',') {
            let address = address.trim().parse::<IpAddr>().ok()?.to_canonical();
            if !is_proxy(address) {
                return Some(address);
            }
        }
    }
    None
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    let router = Router::new().get("/who", |request| match client(request) {
        Some(address) => Response::text(format!("{address}\n")),
        None => Response::text("nobody knows\n"),
    });
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let server = Server::bind(address, Config::default())?;
    group.add("http", move |stop| server.run(router, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
