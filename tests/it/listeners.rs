//! Where a server listens, and what the system may do to that: addresses that are taken, families, files of sockets,
//! deep queues, listeners of others, an `accept` that fails.

use std::net::TcpListener;

use allout::{Config, Server};

#[cfg(target_os = "linux")]
use crate::drain::{LONG, routes};
#[cfg(target_os = "linux")]
use crate::support::PING;

fn bind_error(addresses: &[&str]) -> String {
    Server::bind(addresses, Config::default()).expect_err("it is taken").to_string()
}

// ---- What is listened on --------------------------------------------------------------------------------------------

#[test]
fn what_is_listened_on_is_text_or_addresses_one_or_several() {
    let socket: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    let text = String::from("127.0.0.1:0");
    let count = |server: Server| {
        assert!(server.port().is_some_and(|port| port > 0));
        server.addresses().count()
    };
    let bind = |server: Result<Server, allout::BindError>| count(server.unwrap());
    assert_eq!(bind(Server::bind("127.0.0.1:0", Config::default())), 1);
    assert_eq!(bind(Server::bind(&text, Config::default())), 1);
    assert_eq!(bind(Server::bind(socket, Config::default())), 1);
    assert_eq!(bind(Server::bind(allout::Address::from(socket), Config::default())), 1);
    assert_eq!(bind(Server::bind(["127.0.0.1:0", &text], Config::default())), 2);
    assert_eq!(bind(Server::bind(vec![socket, socket], Config::default())), 2);
    assert_eq!(bind(Server::bind(&[socket][..], Config::default())), 1);
    let both = [socket.into(), allout::Address::try_from("127.0.0.1:0").unwrap()];
    assert_eq!(bind(Server::bind(&both, Config::default())), 2);
}

#[test]
fn a_text_that_is_no_address_is_named() {
    let error = Server::bind(["127.0.0.1:0", "localhost"], Config::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot listen on `localhost`: the port is missing");
}

#[cfg(unix)]
#[test]
fn sockets_of_both_kinds_are_taken_over_and_left_to_the_others_who_hold_them() {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use crate::support::{Client, HANG, Site, socket_path};

    let path = socket_path();
    let (tcp, unix) = (TcpListener::bind("127.0.0.1:0").unwrap(), UnixListener::bind(&path).unwrap());
    let shared = (tcp.try_clone().unwrap(), unix.try_clone().unwrap());
    let sockets = [allout::Inherited::from(shared.0), shared.1.into()];
    let server = Server::from_listeners(sockets, Config::default()).unwrap();
    let places: Vec<_> = server.addresses().map(ToString::to_string).collect();
    assert_eq!(places, [tcp.local_addr().unwrap().to_string(), format!("unix:{}", path.display())]);
    let site = Site::run(server, |_: &allout::Request<'_>| allout::Response::text("taken over"), HANG);
    for mut client in [site.connect(), Client::connect_unix(&path)] {
        assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: test\r\n\r\n").text(), "taken over");
    }
    site.stop();
    assert_eq!(site.outcome().exit_code(), 0);
    // They go on listening, for whoever has bound them, and the file is theirs to remove.
    let late = Client::connect_unix(&path);
    unix.set_nonblocking(false).unwrap();
    unix.accept().unwrap();
    drop(late);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_server_needs_no_group_and_a_stop_has_a_grace_of_its_own() {
    use std::time::{Duration, Instant};

    use crate::support::{Client, Gate, HANG};

    for (grace, is_answered) in [(HANG, true), (Duration::from_millis(200), false)] {
        let (gate, stop) = (Gate::new(), allout::Stop::with_grace(grace));
        let server = Server::bind("127.0.0.1:0", Config::default()).unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.port().unwrap()));
        let (at, told) = (gate.clone(), stop.clone());
        let router = allout::Router::new().get("/", move |_| {
            at.pass();
            allout::Response::text("answered")
        });
        let running = std::thread::spawn(move || server.run(router, &told).map_err(|error| error.to_string()));
        let mut client = Client::connect(address);
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        gate.wait_for(1);
        let begun = Instant::now();
        stop.trigger(allout::Cause::Signal);
        if is_answered {
            gate.open();
            assert_eq!(client.reply().text(), "answered");
            drop(client);
        }
        assert_eq!(running.join().unwrap().is_ok(), is_answered);
        assert!(is_answered || begun.elapsed() >= grace);
        gate.open();
    }
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
    let addresses = ["127.0.0.1:0".to_owned(), format!("unix:{}", path.display())];
    let server = Server::bind(&addresses, Config::default()).unwrap();
    let Some(allout::LocalAddress::Tcp(address)) = server.addresses().next().cloned() else { panic!("no TCP address") };
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
    let server = Server::from_listeners([listener], Config::default()).unwrap();
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

#[test]
fn a_taken_address_is_told_by_its_kind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Server::bind(taken.local_addr().unwrap(), Config::default()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(Server::bind("nowhere", Config::default()).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}
