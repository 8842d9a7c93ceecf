//! Handshakes under way at the stop. Loopback has no length: a client that drops what it receives is as far away as the
//! test wants it to be.

use std::io::{self, Read, Write};
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

/// False, told, where sock_diag(7) cannot be asked: under qemu.
pub fn can_see_handshakes() -> bool {
    let can = Socket::new(Domain::from(nix::libc::AF_NETLINK), Type::DGRAM, Some(SOCK_DIAG.into())).is_ok();
    if !can {
        skip("there is no sock_diag");
    }
    can
}

/// NETLINK_SOCK_DIAG of <linux/netlink.h>.
const SOCK_DIAG: i32 = 4;

/// Handshakes under way at a port of this machine: for each, how often the SYN-ACK has been sent again. sock_diag(7) is
/// asked, since /proc/net/tcp takes half a second where 80,000 sockets are in TIME-WAIT.
fn handshakes(port: u16) -> Vec<u8> {
    // <linux/netlink.h>, <linux/sock_diag.h>, <linux/inet_diag.h>.
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const REQUEST_DUMP: u16 = 0x301;
    const DONE: u16 = 3;
    const TCP: u8 = 6;
    const SYN_RECV: u32 = 1 << 3;
    let mut found = Vec::new();
    for family in [nix::libc::AF_INET, nix::libc::AF_INET6] {
        let domain = Domain::from(nix::libc::AF_NETLINK);
        let mut system = Socket::new(domain, Type::DGRAM, Some(SOCK_DIAG.into())).unwrap();
        let mut request =
            [&72_u32.to_ne_bytes()[..], &SOCK_DIAG_BY_FAMILY.to_ne_bytes(), &REQUEST_DUMP.to_ne_bytes()].concat();
        request.extend([0; 8]);
        request.extend([u8::try_from(family).unwrap(), TCP, 0, 0]);
        request.extend(SYN_RECV.to_ne_bytes());
        request.extend(port.to_be_bytes());
        request.resize(72, 0);
        system.write_all(&request).unwrap();
        let mut is_done = false;
        while !is_done {
            let mut bytes = vec![0; 32 * 1024];
            let count = system.read(&mut bytes).unwrap();
            let mut rest = &bytes[..count];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                let kind = u16::from_ne_bytes(rest[4..6].try_into().unwrap());
                is_done |= kind == DONE;
                assert!(is_done || kind == SOCK_DIAG_BY_FAMILY, "the system tells");
                // Behind the header: family, state, timer, and how often it was sent again.
                if !is_done {
                    found.push(rest[16 + 3]);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
    found
}

/// Waits until nobody new is let in. Those who come are not answered as long as the listener is still there.
fn wait_until_unanswered(address: SocketAddr) -> io::ErrorKind {
    poll(|| TcpStream::connect_timeout(&address, ANSWER).err()).expect("nobody new is let in").kind()
}

/// Enough for a SYN-ACK to be sent again.
fn patient(loops: usize) -> Config {
    Config { loops, idle_grace: LONG / 4, ..Config::default() }
}

/// A far client is to hear the second SYN-ACK, which is sent after a second: whoever is sent more is not waited for. On
/// a machine that was so slow it is tried again, since nothing was learned.
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
fn a_client_whose_handshake_is_under_way_at_the_stop_is_served_on_all_addresses_too_whichever_its_family() {
    if !can_see_handshakes() {
        return;
    }
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
    at_once([("127.0.0.1:0", v4, 1), ("127.0.0.1:0", v4, 2), (":0", v4, 1), (":0", v6, 1)], |(place, ip, loops)| {
        if ip.is_ipv6() && TcpListener::bind((ip, 0)).is_err() {
            return skip("this machine has no IPv6");
        }
        check_completes(|| {
            let server = Server::bind(place, patient(loops)).unwrap();
            let site = Site::run(server, routes(&Gate::new()), LONG * 2);
            let address = SocketAddr::new(ip, site.address.port());
            assert_eq!(Client::connect(address).ask(PING).status, 200);
            (site, address)
        });
    });
}

#[test]
fn those_who_are_served_already_do_not_feel_it() {
    if !can_see_handshakes() {
        return;
    }
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
    if !can_see_handshakes() {
        return;
    }
    until_in_time(|| {
        let site = start(Config { idle_grace: SHORT / 4, ..Config::default() }, routes(&Gate::new()));
        let begun = Instant::now();
        let _far = Far::connect(site.address);
        site.stop();
        let is_in_time = begun.elapsed() < IN_TIME / 2;
        let took = expect_clean(site);
        assert!(took >= SHORT || !is_in_time, "{took:?}");
        is_in_time.then_some(())
    });
}

#[test]
fn a_handshake_that_never_completes_leaves_time_before_the_deadline() {
    if !can_see_handshakes() {
        return;
    }
    // Half of it is over before the second SYN-ACK is sent.
    const DEADLINE: Duration = Duration::from_secs(1);
    until_in_time(|| {
        let site = start_with_grace(Config { idle_grace: LONG, ..Config::default() }, routes(&Gate::new()), DEADLINE);
        let begun = Instant::now();
        let _far = Far::connect(site.address);
        site.stop();
        let is_in_time = begun.elapsed() < IN_TIME / 2;
        let outcome = site.outcome();
        // Nor is anything learned if the machine stood still at the deadline.
        if !is_in_time || outcome.exit_code() != 0 {
            return None;
        }
        assert!(outcome.took() >= DEADLINE / 2, "{outcome:?}");
        Some(())
    });
}

#[test]
fn a_client_that_has_not_answered_for_seconds_is_not_waited_for() {
    if !can_see_handshakes() {
        return;
    }
    let config = Config { idle_grace: LONG, ..Config::default() };
    let site = start_with_grace(config, routes(&Gate::new()), 4 * LONG);
    let _far = Far::connect(site.address);
    poll(|| handshakes(site.address.port()).first().is_some_and(|count| *count >= 3).then_some(()))
        .expect("its SYN-ACK is sent a fourth time");
    site.stop();
    expect_clean(site);
}

#[test]
fn a_listener_that_others_hold_too_goes_on_taking_handshakes() {
    if !can_see_handshakes() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let keeper = listener.try_clone().unwrap();
    let site = Site::run(Server::from_listeners([listener], patient(2)).unwrap(), routes(&Gate::new()), LONG * 2);
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
        Write::write_all(&mut &accepted, b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    }
    assert_eq!([later.reply().status, client.reply().status], [204, 204]);
}
