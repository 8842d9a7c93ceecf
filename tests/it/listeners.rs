//! Where a server listens, and what the system may do to that: addresses that are taken, families, files of sockets,
//! deep queues, listeners of others, an `accept` that fails.

use std::net::TcpListener;

use allout::{Config, Server};

#[cfg(target_os = "linux")]
use crate::drain::{LONG, routes};
#[cfg(target_os = "linux")]
use crate::support::PING;

fn bind_error(addresses: &[&str]) -> String {
    let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Server::bind(&addresses, Config::default()).expect_err("it is taken").to_string()
}

// ---- TCP -----------------------------------------------------------------------------------------------------------

#[test]
fn an_address_that_the_server_itself_has_taken_is_said_to_be_its_own() {
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = free();
    let error = bind_error(&[&format!("127.0.0.1:{port}"), &format!("127.0.0.1:{port}")]);
    assert!(error.contains(&format!("this server listens on `127.0.0.1:{port}` already; ")), "{error}");
    if TcpListener::bind("[::]:0").is_err() {
        return crate::support::skip("this machine has no IPv6");
    }
    for (first, second) in [("0.0.0.0", "[::]"), ("[::]", "0.0.0.0"), ("", "127.0.0.1")] {
        let port = free();
        let error = bind_error(&[&format!("{first}:{port}"), &format!("{second}:{port}")]);
        let taken = if first.is_empty() { "[::]" } else { first };
        assert!(error.starts_with(&format!("cannot listen on `{second}:{port}`: ")), "{error}");
        assert!(error.contains(&format!(": this server listens on `{taken}:{port}` already; ")), "{error}");
        assert!(error.ends_with(&format!("; `:{port}` alone is every address, IPv6 and IPv4")), "{error}");
    }
}

/// Clients that connect while nobody accepts: more than std lets wait, less than the system does.
#[cfg(all(target_os = "linux", feature = "sys"))]
const WAITING: usize = 300;

#[cfg(all(target_os = "linux", feature = "sys"))]
#[test]
fn the_accept_queue_is_as_deep_as_the_system_lets_it_be() {
    use std::time::Duration;

    let deepest: usize = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap().trim().parse().unwrap();
    if deepest <= WAITING {
        return crate::support::skip("this system has no deeper queue than std's");
    }
    let path = crate::support::socket_path();
    let addresses = ["127.0.0.1:0".parse().unwrap(), format!("unix:{}", path.display()).parse().unwrap()];
    let server = Server::bind(&addresses, Config::default()).unwrap();
    let Some(allout::Bound::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
    let places = [socket2::SockAddr::from(address), socket2::SockAddr::unix(&path).unwrap()];
    for place in places {
        let connect = || {
            let client = socket2::Socket::new(place.domain(), socket2::Type::STREAM, None).unwrap();
            // One that finds the queue full is told nothing, or waits.
            client.connect_timeout(&place, Duration::from_millis(900)).map(|()| client)
        };
        let clients: Vec<_> = (0..WAITING).map_while(|_| connect().ok()).collect();
        assert_eq!(clients.len(), WAITING, "at {place:?}");
    }
}

// ---- Listeners of others -------------------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
#[test]
fn children_do_not_inherit_a_listener_that_was_taken_over() {
    use std::process::{Command, Stdio};

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // As a service manager hands it over.
    socket2::SockRef::from(&listener).set_cloexec(false).unwrap();
    let server = Server::from_listener(listener, Config::default()).unwrap();
    // As a handler may start one; it lives on when the server has gone.
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let site = crate::support::Site::run(server, routes(&crate::support::Gate::new()), LONG);
    let address = site.address;
    assert_eq!(site.connect().ask(PING).status, 200);
    site.stop();
    crate::drain::expect_clean(site);
    // Other tests may have started a child before it was taken over. They end theirs.
    let bound = crate::support::poll(|| TcpListener::bind(address).ok());
    child.kill().unwrap();
    child.wait().unwrap();
    bound.expect("nobody holds it any more");
}

// ---- Unix ----------------------------------------------------------------------------------------------------------

#[cfg(target_os = "linux")]
#[test]
fn of_many_that_start_at_once_over_a_stale_socket_file_one_gets_it() {
    use std::os::unix::net::UnixListener;

    use crate::support::{Folder, Process, allout};

    let folder = Folder::new("stale-at-once");
    for round in 0..10 {
        let socket = folder.path(&round.to_string());
        // Half of the rounds begin with none: bound and not yet listened on, a file looks as stale.
        if round % 2 == 0 {
            drop(UnixListener::bind(&socket).unwrap());
        }
        let place = format!("unix:{}", socket.display());
        let mut processes: Vec<Process> = (0..6).map(|_| allout(&["--listen", &place])).collect();
        let lines: Vec<String> = processes.iter_mut().map(|process| process.line_with("listen")).collect();
        let served: Vec<_> = lines.iter().filter(|line| line.starts_with("listening on ")).collect();
        assert_eq!(served.len(), 1, "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("in use")).count(), 5, "{lines:#?}");
        // And it is the one that is reached.
        let mut client = crate::support::Client::connect_unix(&socket);
        assert_eq!(client.ask("POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 200);
        drop(client);
        for (process, line) in processes.into_iter().zip(&lines) {
            let code = if line.starts_with("listening on ") { 0 } else { 1 };
            assert_eq!(process.end().0, Some(code), "{line}");
        }
    }
}
