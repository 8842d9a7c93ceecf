//! Handshakes under way at the stop. Loopback has no length: a client that drops what it receives is as far away as the
//! test wants it to be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use allout::{Config, Server};
use socket2::{Domain, SockFilter, Socket, Type};

use crate::drain::{LONG, SHORT, expect_clean, routes, start, start_with_grace};
use crate::support::{Client, Gate, PING, Site, at_once, poll, skip};

/// How long the system takes to answer a connect, if it does.
const ANSWER: Duration = Duration::from_millis(200);

/// A client that has sent its SYN, and hears nothing until it is let.
struct Far(Socket);

impl Far {
    fn connect(address: SocketAddr) -> Self {
        // The instruction of classic BPF that drops every packet: return 0 (BPF_RET | BPF_K).
        let drop_all = SockFilter::new(0x06, 0, 0, 0);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
        socket.attach_filter(&[drop_all]).unwrap();
        socket.set_nonblocking(true).unwrap();
        let error = socket.connect(&address.into()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EINPROGRESS));
        let far = Self(socket);
        poll(|| (!handshakes(address.port()).is_empty()).then_some(())).expect("its SYN has come");
        far
    }

    /// It hears the SYN-ACK when that is sent again, after a second.
    fn arrive(self) -> Client {
        self.0.detach_filter().unwrap();
        self.0.set_nonblocking(false).unwrap();
        Client::of(TcpStream::from(self.0))
    }
}

/// Handshakes under way at a port of this machine: for each, how often the SYN-ACK has been sent again.
fn handshakes(port: u16) -> Vec<u32> {
    let port = format!(":{port:04X}");
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let lines = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.filter(|words| words[1].ends_with(&port) && words[3] == "03");
    ours.map(|words| u32::from_str_radix(words[6], 16).unwrap()).collect()
}

/// Waits until nobody new is let in. Those who come are not answered as long as the listener is still there.
fn wait_until_unanswered(address: SocketAddr) -> io::ErrorKind {
    poll(|| TcpStream::connect_timeout(&address, ANSWER).err()).expect("nobody new is let in").kind()
}

/// Enough for a SYN-ACK to be sent again.
fn patient(loops: usize) -> Config {
    Config { loops, idle_grace: LONG / 4, ..Config::default() }
}

/// A far client is to hear the second SYN-ACK, which is sent after a second: whoever has to be sent a third is not waited
/// for. On a machine that was so slow it is tried again, since nothing was learned.
const IN_TIME: Duration = Duration::from_millis(800);

#[track_caller]
fn until_in_time(run: impl Fn() -> Option<()>) {
    poll(run).expect("a machine that is in time once");
}

#[track_caller]
fn check_completes(start: impl Fn() -> (Site, SocketAddr)) {
    until_in_time(|| {
        let (site, address) = start();
        let begun = Instant::now();
        let far = Far::connect(address);
        site.stop();
        let answer = wait_until_unanswered(address);
        if begun.elapsed() > IN_TIME {
            return None;
        }
        assert_eq!(answer, io::ErrorKind::TimedOut);
        let mut client = far.arrive();
        client.send(PING);
        let reply = client.reply();
        assert_eq!((reply.status, reply.is_last()), (200, true), "{}", reply.head);
        client.expect_fin();
        drop(client);
        expect_clean(site);
        Some(())
    });
}

#[test]
fn a_client_whose_handshake_is_under_way_at_the_stop_is_served() {
    at_once([1, 2], |loops| {
        check_completes(|| {
            let site = start(patient(loops), routes(&Gate::new()));
            let address = site.address;
            (site, address)
        });
    });
}

#[test]
fn of_all_addresses_too_whichever_its_family() {
    let locals = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)];
    at_once(locals, |ip| {
        if ip.is_ipv6() && TcpListener::bind((ip, 0)).is_err() {
            return skip("this machine has no IPv6");
        }
        check_completes(|| {
            let server = Server::bind(&[":0".parse().unwrap()], patient(1)).unwrap();
            let site = Site::run(server, routes(&Gate::new()), LONG * 2);
            let address = SocketAddr::new(ip, site.address.port());
            assert_eq!(Client::connect(address).ask(PING).status, 200);
            (site, address)
        });
    });
}

#[test]
fn those_who_are_served_already_do_not_feel_it() {
    until_in_time(|| {
        let site = start(patient(1), routes(&Gate::new()));
        let mut served = site.connect();
        served.send("POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nha");
        let begun = Instant::now();
        let far = Far::connect(site.address);
        site.stop();
        let answer = wait_until_unanswered(site.address);
        served.send("lf");
        assert_eq!(served.reply().text(), "half");
        served.expect_fin();
        let under_way = handshakes(site.address.port()).len();
        if begun.elapsed() > IN_TIME {
            return None;
        }
        assert_eq!((answer, under_way), (io::ErrorKind::TimedOut, 1), "it is still under way");
        let mut client = far.arrive();
        client.send(PING);
        assert_eq!(client.reply().status, 200);
        drop((client, served));
        expect_clean(site);
        Some(())
    });
}

#[test]
fn a_handshake_that_never_completes_has_its_time_and_no_more() {
    let site = start(Config { idle_grace: SHORT / 4, ..Config::default() }, routes(&Gate::new()));
    let _far = Far::connect(site.address);
    site.stop();
    let took = expect_clean(site);
    assert!(took >= SHORT, "{took:?}");
}

#[test]
fn a_handshake_that_never_completes_leaves_time_before_the_deadline() {
    const DEADLINE: Duration = Duration::from_secs(2);
    let site = start_with_grace(Config { idle_grace: LONG, ..Config::default() }, routes(&Gate::new()), DEADLINE);
    let _far = Far::connect(site.address);
    site.stop();
    let outcome = site.outcome();
    assert_eq!(outcome.exit_code(), 0, "{outcome:?}");
    assert!(outcome.took() >= DEADLINE / 2, "{outcome:?}");
}

#[test]
fn a_client_that_has_not_answered_for_seconds_is_not_waited_for() {
    let config = Config { idle_grace: LONG, ..Config::default() };
    let site = start_with_grace(config, routes(&Gate::new()), 4 * LONG);
    let _far = Far::connect(site.address);
    poll(|| (handshakes(site.address.port()) == [1]).then_some(())).expect("its time to answer runs out again");
    site.stop();
    expect_clean(site);
}

#[test]
fn a_listener_that_others_hold_too_goes_on_taking_handshakes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let keeper = listener.try_clone().unwrap();
    let site = Site::run(Server::from_listener(listener, patient(2)).unwrap(), routes(&Gate::new()), LONG * 2);
    assert_eq!(site.connect().ask(PING).status, 200);
    let (far, address) = (Far::connect(site.address), site.address);
    site.stop();
    expect_clean(site);
    let mut later = Client::connect(address);
    let mut client = far.arrive();
    keeper.set_nonblocking(false).unwrap();
    for client in [&mut later, &mut client] {
        client.send(PING);
        let (accepted, _) = keeper.accept().unwrap();
        io::Write::write_all(&mut &accepted, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
    assert_eq!([later.reply().status, client.reply().status], [204, 204]);
}
