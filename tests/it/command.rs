//! The command, as its users meet it: the real binary, its lines, its routes and its exit codes.
//!
//! Of the exit codes of the contract, 0, 1, 2 and 124 are reached here, 130 in `signals`, and 101 in `group`: a
//! handler's panic ends no member, and the command has no member that a client could make panic.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
#[cfg(unix)]
use std::process::{Output, Stdio};

use crate::support::{Client, PING, Process, Reply, allout, demo, skip};

const ALLOUT: &str = env!("CARGO_BIN_EXE_allout");
const ANY_PORT: [&str; 2] = ["--listen", "127.0.0.1:0"];
const SHUTDOWN: &str = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";

// ---- Helpers -------------------------------------------------------------------------------------------------------

/// The command, on a port that the system chooses, with more options.
fn on_any_port(arguments: &[&str]) -> (Process, SocketAddr) {
    let mut process = allout(&[&ANY_PORT, arguments].concat());
    let address = process.address();
    (process, address)
}

fn with_variables(arguments: &[&str], variables: &[(&str, &str)]) -> Process {
    Process::spawn(Command::new(ALLOUT).args(arguments).envs(variables.iter().copied()))
}

fn ask(address: SocketAddr, request: &str) -> Reply {
    Client::connect(address).ask(request)
}

/// Stops a process by `/shutdown`, and returns what it has said.
#[track_caller]
fn shut_down(process: Process, address: SocketAddr) -> String {
    assert_eq!(ask(address, SHUTDOWN).status, 200);
    ended_by_shutdown(process)
}

#[track_caller]
fn ended_by_shutdown(process: Process) -> String {
    let (code, said) = process.end();
    assert_eq!(code, Some(0), "{said}");
    let last = said.lines().last().unwrap();
    let start = "all out: /shutdown; 0 requests finished while draining, 0 cut off; ";
    assert!(last.starts_with(start) && last.ends_with(" s"), "{said}");
    said
}

/// Expects one line on stderr with these texts, and nothing to have started.
#[track_caller]
fn check_fails(process: Process, code: i32, texts: &[&str]) {
    let (have, said) = process.end();
    assert_eq!(have, Some(code), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("allout: ") && texts.iter().all(|text| said.contains(text)), "{said}");
}

#[cfg(unix)]
fn output(script: &str, argument: &str) -> Output {
    Command::new("sh").args(["-c", script, ALLOUT, argument]).stdin(Stdio::null()).output().unwrap()
}

// ---- Help, and wrong usage -----------------------------------------------------------------------------------------

#[test]
fn help_and_version_are_printed_on_stdout() {
    for argument in ["--help", "-h", "--version", "-V"] {
        let output = Command::new(ALLOUT).arg(argument).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
        match argument {
            "--version" | "-V" => assert_eq!(text, format!("allout {}\n", env!("CARGO_PKG_VERSION"))),
            _ => {
                for option in [
                    "--listen ADDR",
                    "--grace SECONDS",
                    "--idle-grace SECONDS",
                    "--lame-duck SECONDS",
                    "--loops N",
                    "--threads N",
                    "--max-connections N",
                    "--shutdown-token TOKEN",
                    "--check ADDR[/PATH]",
                    "--quiet",
                    "--verbose",
                    "--help, --version",
                ] {
                    assert!(text.contains(&format!("\n  {option}")), "{option} is missing:\n{text}");
                }
                assert!(text.ends_with('\n') && text.lines().all(|line| line.len() <= 120));
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn help_and_version_exit_0_although_nobody_can_read_them() {
    for argument in ["--help", "--version"] {
        let closed = output(r#"exec "$0" "$1" >&-"#, argument);
        assert_eq!((closed.status.code(), closed.stderr.as_slice()), (Some(0), &b""[..]));
        // A reader that has left.
        let left = output(r#"{ "$0" "$1"; echo $? >&2; } | true"#, argument);
        assert_eq!(String::from_utf8(left.stderr).unwrap(), "0\n");
    }
}

#[test]
fn wrong_usage_is_one_line_and_exit_code_2() {
    for (arguments, text) in [
        (&["--port", "80"][..], "unknown option `--port`"),
        (&["-x"], "unknown option `-x`"),
        (&["serve"], "unknown argument `serve`"),
        (&["--listen"], "--listen needs a value"),
        (&["--check"], "--check needs a value"),
        (&["--check", "8080"], "--check: bad address `8080`"),
        (&["--check", "http://127.0.0.1:80/"], "--check: bad address `http:`"),
        (&["--check", "stdin"], "--check: bad address `stdin`"),
        (&["--check", "unix:@name"], "--check: bad address `unix:@name`"),
        (&["--check", ":80/a b"], "bad value `:80/a b` for --check"),
        (&["--check", ":80", "--port"], "unknown option `--port`"),
        (&["--grace", "soon"], "bad value `soon` for --grace"),
        (&["--grace", "-1"], "bad value `-1` for --grace"),
        (&["--lame-duck", "NaN"], "bad value `NaN` for --lame-duck"),
        (&["--idle-grace=1s"], "bad value `1s` for --idle-grace"),
        (&["--loops", "0"], "bad value `0` for --loops"),
        (&["--threads", "1.5"], "bad value `1.5` for --threads"),
        (&["--max-connections", "99999999999999999999999"], "for --max-connections"),
        (&["--shutdown-token", ""], "bad value for --shutdown-token"),
        (&["--listen", "8080"], "bad address `8080`"),
        (&["--listen", "127.0.0.1:65536"], "bad address `127.0.0.1:65536`"),
        (&["--listen", "127.0.0.1:http"], "bad address `127.0.0.1:http`"),
        (&["--listen", "::1:80"], "bad address `::1:80`"),
        (&["--listen", "http://localhost:80"], "bad address `http://localhost:80`"),
        (&["--listen", "unix:"], "bad address `unix:`"),
        (&["--quiet=1"], "--quiet takes no value"),
        (&["--help=listen"], "--help takes no value"),
        // The first mistake is the one that is told, and no other is needed to be found.
        (&["--listen", "127.0.0.1:0", "--loops", "x", "--port"], "bad value `x` for --loops"),
    ] {
        check_fails(allout(arguments), 2, &[text]);
    }
}

#[test]
fn a_wrong_variable_is_one_line_and_exit_code_2() {
    for (variable, value, text) in [
        ("ALLOUT_LISTEN", "nowhere", "ALLOUT_LISTEN: bad address `nowhere`"),
        ("ALLOUT_GRACE", "x", "bad value `x` for ALLOUT_GRACE"),
        ("ALLOUT_IDLE_GRACE", "x", "bad value `x` for ALLOUT_IDLE_GRACE"),
        ("ALLOUT_LAME_DUCK", "x", "bad value `x` for ALLOUT_LAME_DUCK"),
        ("ALLOUT_LOOPS", "x", "bad value `x` for ALLOUT_LOOPS"),
        ("ALLOUT_THREADS", "x", "bad value `x` for ALLOUT_THREADS"),
        ("ALLOUT_MAX_CONNECTIONS", "x", "bad value `x` for ALLOUT_MAX_CONNECTIONS"),
        ("ALLOUT_SHUTDOWN_TOKEN", "a b", "bad value for ALLOUT_SHUTDOWN_TOKEN"),
        ("ALLOUT_QUIET", "yes", "bad value `yes` for ALLOUT_QUIET"),
        ("ALLOUT_VERBOSE", "yes", "bad value `yes` for ALLOUT_VERBOSE"),
    ] {
        check_fails(with_variables(&[], &[(variable, value)]), 2, &[text]);
    }
}

#[test]
fn a_wrong_variable_does_not_matter_where_an_option_overrides_it_or_nothing_is_served() {
    let variables = [("ALLOUT_LISTEN", "nowhere"), ("ALLOUT_GRACE", "x"), ("ALLOUT_VERBOSE", "yes")];
    for option in ["--help", "--version"] {
        let output = Command::new(ALLOUT).arg(option).envs(variables).output().unwrap();
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    }
    let mut process = with_variables(&["--listen", "127.0.0.1:0", "--grace", "3", "--verbose"], &variables);
    let address = process.address();
    shut_down(process, address);
    // The rest of the environment still has to be right.
    check_fails(with_variables(&["--grace", "3", "--quiet"], &variables), 2, &["ALLOUT_LISTEN: bad address `nowhere`"]);
}

#[test]
fn a_token_is_not_repeated_where_others_can_read_it() {
    let (_, said) = allout(&["--shutdown-token", "secret words"]).end();
    assert!(!said.contains("secret"), "{said}");
}

// ---- Addresses -----------------------------------------------------------------------------------------------------

#[test]
fn port_0_is_told_as_the_real_port_and_all_listeners_serve() {
    let mut process = allout(&[
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "localhost:0",
        "--listen=127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
    ]);
    let addresses: Vec<SocketAddr> = (0..4).map(|_| process.address()).collect();
    for address in &addresses {
        assert!(address.port() != 0 && address.ip().is_loopback());
        assert_eq!(ask(*address, PING).text(), "pong");
    }
    shut_down(process, addresses[3]);
}

#[test]
fn no_host_means_every_address_of_the_machine() {
    let mut process = allout(&["--listen", ":0"]);
    let address = process.address();
    assert!(address.ip().is_unspecified(), "{address}");
    shut_down(process, SocketAddr::from(([127, 0, 0, 1], address.port())));
}

/// A network of its own in which IPv6 sockets take no IPv4 connections: the default of the BSDs and of Windows. `None`
/// if it cannot be had.
#[cfg(target_os = "linux")]
fn apart(then: &str) -> Option<Command> {
    let apart = |then: &str| {
        let script = format!("echo 1 >/proc/sys/net/ipv6/bindv6only{then}");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", &script, ALLOUT]);
        command
    };
    if !apart("").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        skip("no network namespace can be had, or no IPv6");
        return None;
    }
    Some(apart(then))
}

#[cfg(target_os = "linux")]
#[test]
fn no_host_means_ipv4_too_where_an_ipv6_socket_does_not_take_it() {
    let Some(mut command) = apart(r#" && exec "$0" --listen :0"#) else { return };
    let mut process = Process::spawn(&mut command);
    let first = process.line_with("listening on http://[::]:");
    let second = process.line_with("listening on http://0.0.0.0:");
    assert_eq!(first.rsplit(':').next(), second.rsplit(':').next(), "one port for both");
}

#[cfg(target_os = "linux")]
#[test]
fn no_host_is_no_address_where_ipv4_is_taken_and_an_ipv6_socket_does_not_take_it() {
    let folder = crate::support::Folder::new("apart-taken");
    let script = r#" && { "$0" --listen 0.0.0.0:9100 2>"$1" & } && until grep -qs listening "$1"; do :; done
        "$0" --listen :9100; code=$?; kill $!; exit $code"#;
    let Some(mut command) = apart(script) else { return };
    let process = Process::spawn(command.arg(folder.path("first")));
    check_fails(process, 1, &["cannot listen on `:9100`: 0.0.0.0:9100: ", "in use"]);
}

#[cfg(target_os = "linux")]
#[test]
fn both_of_all_addresses_are_listened_on_where_an_ipv6_socket_does_not_take_ipv4() {
    let Some(mut command) = apart(r#" && exec "$0" --listen 0.0.0.0:9100 --listen [::]:9100"#) else { return };
    let mut process = Process::spawn(&mut command);
    process.line_with("listening on http://0.0.0.0:9100");
    process.line_with("listening on http://[::]:9100");
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn no_host_means_ipv4_alone_where_there_is_no_ipv6() {
    let folder = crate::support::Folder::new("no-ipv6");
    let Some(shim) = crate::support::shim(&folder) else { return };
    let mut command = Command::new(ALLOUT);
    let mut process = Process::spawn(command.args(["--listen", ":0"]).env("LD_PRELOAD", shim).env("SHIM_NO_IPV6", "1"));
    let address = process.address();
    assert!(address.ip().is_ipv4(), "{address}");
    shut_down(process, SocketAddr::from(([127, 0, 0, 1], address.port())));
}

#[test]
fn an_ipv6_address_is_listened_on() {
    if TcpListener::bind("[::1]:0").is_err() {
        return skip("this machine has no IPv6");
    }
    let mut process = allout(&["--listen", "[::1]:0"]);
    let line = process.line_with("listening on http://[::1]:");
    shut_down(process, line.rsplit('/').next().unwrap().parse().unwrap());
}

#[test]
fn a_taken_port_is_named_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let reason = if cfg!(windows) { "os error 10048" } else { "in use" };
    check_fails(allout(&["--listen", &address]), 1, &[&format!("cannot listen on `{address}`: "), reason]);
}

#[test]
fn a_privileged_port_is_named_and_exit_code_1() {
    if TcpListener::bind("127.0.0.1:1").is_ok() {
        return skip("this user may bind privileged ports");
    }
    check_fails(allout(&["--listen", "127.0.0.1:1"]), 1, &["cannot listen on `127.0.0.1:1`: ", "ermission denied"]);
}

#[test]
fn a_name_without_an_address_is_named_and_exit_code_1() {
    let mut command = Command::new(ALLOUT);
    // Where no name server answers, the resolver is not to be waited for longer than necessary.
    command.args(["--listen", "nosuchname.invalid:1"]).env("RES_OPTIONS", "timeout:1 attempts:1");
    check_fails(Process::spawn(&mut command), 1, &["cannot listen on `nosuchname.invalid:1`: "]);
}

#[test]
fn an_address_of_another_machine_is_named_and_exit_code_1() {
    // Kept for documentation (RFC 5737): nobody has it.
    check_fails(allout(&["--listen", "203.0.113.1:0"]), 1, &["cannot listen on `203.0.113.1:0`: "]);
}

#[test]
fn one_bad_address_keeps_the_good_ones_from_starting() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (good, bad) = (free.to_string(), taken.local_addr().unwrap().to_string());
    for listen in [[&good, &bad], [&bad, &good]] {
        // One line: the good one is never said to be listened on.
        check_fails(allout(&["--listen", listen[0], "--listen", listen[1]]), 1, &[&format!("`{bad}`")]);
    }
    // The same one twice is taken too.
    let text = format!("cannot listen on `{good}`: ");
    check_fails(allout(&["--listen", &good, "--listen", &good]), 1, &[&text]);
}

// ---- Variables -----------------------------------------------------------------------------------------------------

#[test]
fn variables_set_what_the_command_line_does_not() {
    let variables = [("ALLOUT_LISTEN", "127.0.0.1:0, 127.0.0.1:0"), ("ALLOUT_SHUTDOWN_TOKEN", "from-variable")];
    let mut process = with_variables(&[], &variables);
    let (first, second) = (process.address(), process.address());
    assert_eq!(ask(first, PING).text(), "pong");
    let foreign = "GET /shutdown HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer from-variable\r\n\r\n";
    assert_eq!(ask(second, foreign).status, 200);
    ended_by_shutdown(process);
}

#[test]
fn the_command_line_wins_over_variables() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let variables =
        [("ALLOUT_LISTEN", taken.as_str()), ("ALLOUT_SHUTDOWN_TOKEN", "from-variable"), ("ALLOUT_QUIET", "1")];
    let mut process =
        with_variables(&["--listen", "127.0.0.1:0", "--shutdown-token", "from-command-line", "--verbose"], &variables);
    let address = process.address();
    let foreign = |token: &str| {
        let head = "GET /shutdown HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer";
        ask(address, &format!("{head} {token}\r\n\r\n")).status
    };
    assert_eq!(foreign("from-variable"), 403);
    assert_eq!(foreign("from-command-line"), 200);
    ended_by_shutdown(process);
}

// ---- Routes --------------------------------------------------------------------------------------------------------

#[test]
fn the_routes_answer() {
    let (process, address) = on_any_port(&[]);
    let mut client = Client::connect(address);
    for (path, status, body) in [
        ("/ping", 200, "pong"),
        ("/livez", 200, "live\n"),
        ("/readyz", 200, "ready\n"),
        ("/ping?with=query", 200, "pong"),
    ] {
        let reply = client.ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{path}");
        assert!(!reply.is_last() && reply.header("date").is_some(), "{}", reply.head);
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert_eq!(client.reply_to_head().header("content-length"), reply.header("content-length"));
    }
    assert_eq!(client.ask("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n").status, 404);
    for (path, allow) in [("/ping", "GET, HEAD, OPTIONS"), ("/shutdown", "GET, HEAD, POST, OPTIONS")] {
        let reply = client.ask(format!("DELETE {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let mut allowed: Vec<&str> = reply.header("allow").unwrap().split(", ").collect();
        let mut wanted: Vec<&str> = allow.split(", ").collect();
        allowed.sort_unstable();
        wanted.sort_unstable();
        assert_eq!((reply.status, allowed), (405, wanted));
    }
    drop(client);
    shut_down(process, address);
}

// ---- /shutdown -----------------------------------------------------------------------------------------------------

const TOKEN: [&str; 2] = ["--shutdown-token", "Secret"];

/// A request that stops the command: its answer comes whole, the connection ends, and the exit code is 0.
#[track_caller]
fn check_stops(options: &[&str], request: &str) {
    let (process, address) = on_any_port(options);
    let mut client = Client::connect(address);
    let reply = client.ask(request);
    assert_eq!((reply.status, reply.text().as_str()), (200, "stopping\n"), "{request}");
    assert!(reply.is_last(), "{}", reply.head);
    client.expect_fin();
    drop(client);
    let said = ended_by_shutdown(process);
    assert!(said.contains("\nstopping: /shutdown\n"), "{said}");
}

fn localhost_with(fields: &str) -> String {
    format!("GET /shutdown HTTP/1.1\r\nHost: localhost:8080\r\n{fields}\r\n\r\n")
}

#[test]
fn shutdown_stops_for_this_machine() {
    for request in [
        "GET /shutdown HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n",
        "POST /shutdown HTTP/1.1\r\nHost: LocalHost\r\nContent-Length: 3\r\n\r\nnow",
        "GET /shutdown HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET /shutdown HTTP/1.0\r\n\r\n",
        // Typed into the address bar, and a button on our own page.
        "GET /shutdown HTTP/1.1\r\nHost: localhost:8080\r\nSec-Fetch-Site: none\r\n\r\n",
        &localhost_with("User-Agent: Mozilla/5.0 (X11)\r\nSec-Fetch-Site: none"),
        &localhost_with("User-Agent: Mozilla/5.0 (X11)\r\nReferer: http://localhost/\r\nSec-Fetch-Site: same-origin"),
        // Programs, by the fields that they send of their own accord.
        &localhost_with("User-Agent: curl/8.14.1\r\nAccept: */*"),
        &localhost_with(
            "User-Agent: Wget/1.25.0\r\nAccept: */*\r\nAccept-Encoding: identity\r\nConnection: Keep-Alive",
        ),
        &localhost_with("Accept-Encoding: identity\r\nUser-Agent: Python-urllib/3.13\r\nConnection: close"),
        &localhost_with(
            "connection: keep-alive\r\naccept: */*\r\naccept-language: *\r\nsec-fetch-mode: cors\r\nuser-agent: node",
        ),
        &localhost_with("User-Agent: kube-probe/1.34\r\nAccept: */*\r\nConnection: close"),
        &localhost_with("User-Agent: my-mozilla/5.0"),
        &localhost_with("User-Agent: Mozilla"),
        // The target's host is what counts (RFC 9112 §3.2.2).
        "GET http://localhost/shutdown HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "GET http://127.0.0.1:8080/shutdown HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        // Fields whose names only begin, or end, like those of a proxy.
        "GET /shutdown HTTP/1.1\r\nHost: localhost\r\nX-Forwarded: a\r\nViaduct: b\r\nX-Via: c\r\n\r\n",
    ] {
        check_stops(&[], request);
    }
}

#[test]
fn shutdown_stops_for_the_bearer_of_the_token_wherever_it_comes_from() {
    for fields in [
        "Host: evil.example\r\nAuthorization: Bearer Secret",
        "Host: evil.example\r\nauthorization: bearer Secret",
        "Host: localhost\r\nOrigin: http://evil.example\r\nAuthorization: Bearer Secret",
        "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nAuthorization: Bearer Secret",
        "Host: localhost\r\nX-Forwarded-For: 192.0.2.1\r\nVia: 1.1 proxy\r\nAuthorization: Bearer Secret",
    ] {
        check_stops(&TOKEN, &format!("POST /shutdown HTTP/1.1\r\n{fields}\r\n\r\n"));
    }
}

/// Requests with these fields are refused, and none of them has stopped the command.
#[track_caller]
fn check_refused(options: &[&str], last_words: &str, all_fields: &[&str]) {
    let (process, address) = on_any_port(options);
    for fields in all_fields {
        for method in ["GET", "POST"] {
            let request = format!("{method} /shutdown HTTP/1.1\r\n{fields}\r\n\r\n");
            assert_eq!(ask(address, &request).status, 403, "{request}");
        }
    }
    let target = "GET http://evil.example/shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(address, target).status, 403);
    // No host at all, whatever its brackets suggest.
    let brackets = "GET /shutdown HTTP/1.1\r\nHost: [::1].evil.example\r\n\r\n";
    assert_ne!(ask(address, brackets).status, 200);
    let request = format!("POST /shutdown HTTP/1.1\r\nHost: localhost\r\n{last_words}\r\n");
    assert_eq!(ask(address, &request).status, 200);
    let said = ended_by_shutdown(process);
    assert_eq!(said.matches("stopping: ").count(), 1, "{said}");
}

const BEARER: &str = "Authorization: Bearer Secret\r\n";

#[test]
fn shutdown_is_refused_to_strangers_and_web_pages() {
    let strangers = [
        "Host: evil.example",
        "Host: evil.example:80",
        "Host: localhost.evil.example",
        "Host: 127.0.0.1.evil.example",
        "Host: 192.0.2.1",
        "Host: 0.0.0.0",
        "Host: [::2]:80",
        "Host: localhost\r\nOrigin: http://evil.example",
        "Host: localhost\r\nOrigin: http://localhost",
        "Host: localhost\r\nOrigin: null",
        "Host: localhost\r\nOrigin:",
        "Host: localhost\r\nSec-Fetch-Site: cross-site",
        "Host: localhost\r\nSec-Fetch-Site: same-site",
        "Host: localhost\r\nSec-Fetch-Site: None",
        "Host: evil.example\r\nAuthorization: Bearer Secret",
    ];
    check_refused(&[], "", &strangers);
    check_refused(&TOKEN, BEARER, &strangers[..strangers.len() - 1]);
}

/// An image on anybody's page is enough for a request, and not every browser says whose page it was.
#[test]
fn shutdown_is_refused_to_browsers_that_do_not_say_who_has_asked() {
    let images = [
        "Host: 127.0.0.1:8080\r\nAccept: image/*;q=0.8,*/*;q=0.5\r\nReferer: http://evil.example/\r\n\
         User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/15.6 Safari/605.1.15",
        // Of a page that keeps its address to itself.
        "Host: localhost\r\nUser-Agent: Mozilla/5.0 (Windows NT 6.1; Trident/7.0; rv:11.0) like Gecko\r\nAccept: */*",
        "Host: localhost\r\nuser-agent: MOZILLA/4.0",
        // Of a browser that goes by a name of its own.
        "Host: localhost\r\nUser-Agent: w3m/0.5.6\r\nReferer: http://evil.example/",
        "Host: localhost\r\nreferer:",
        "Host: localhost\r\nUser-Agent: Mozilla/5.0 (X11)\r\nSec-Fetch-Mode: no-cors",
        "Host: localhost\r\nUser-Agent: a\r\nUser-Agent: Mozilla/5.0 (X11)",
        // On a guess of what its user is about to type.
        "Host: localhost\r\nSec-Fetch-Site: none\r\nSec-Purpose: prefetch;prerender",
    ];
    check_refused(&[], "", &images);
}

/// A proxy on this machine is a peer on this machine, and its clients may be anywhere.
#[test]
fn shutdown_is_refused_to_what_a_proxy_has_passed_on() {
    let passed_on = [
        "Host: 127.0.0.1:8080\r\nX-Forwarded-For: 192.0.2.1",
        "Host: localhost\r\nx-forwarded-proto: https",
        "Host: localhost\r\nX-Forwarded-Host:",
        "Host: localhost\r\nX-Real-IP: 127.0.0.1",
        "Host: localhost\r\nForwarded: for=127.0.0.1",
        "Host: localhost\r\nVia: 1.1 proxy",
    ];
    check_refused(&[], "", &passed_on);
    check_refused(&TOKEN, BEARER, &passed_on);
}

/// As nginx passes requests on by default: from loopback, to its own name for this server, without a word of itself.
#[test]
fn with_a_token_shutdown_is_refused_to_whoever_does_not_bear_it_from_this_machine_too() {
    let unproven = [
        "Host: 127.0.0.1:8080\r\nConnection: close",
        "Host: localhost",
        "Host: localhost\r\nSec-Fetch-Site: none",
        "Host: localhost\r\nAuthorization: Bearer wrong!",
        "Host: localhost\r\nAuthorization: Bearer secret",
        "Host: localhost\r\nAuthorization: Bearer Secre",
        "Host: localhost\r\nAuthorization: Bearer Secret1",
        "Host: localhost\r\nAuthorization: Bearer ",
        "Host: localhost\r\nAuthorization: Bearer",
        "Host: localhost\r\nAuthorization: Basic Secret",
        "Host: localhost\r\nAuthorization: Secret",
    ];
    check_refused(&TOKEN, BEARER, &unproven);
}

#[test]
fn shutdown_is_refused_to_other_machines_without_the_token() {
    // An address of this machine that is not loopback is as far away as a test can be. Nothing is sent by this.
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    let local = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr()).map(|address| address.ip());
    let Some(IpAddr::V4(ip)) = local.ok().filter(|ip| !ip.is_loopback()) else {
        return skip("this machine has no address but loopback");
    };
    let listen = format!("{ip}:0");
    for options in [&[][..], &TOKEN] {
        let mut process = allout(&[&["--listen", &listen], options].concat());
        let address = process.address();
        assert_eq!(ask(address, SHUTDOWN).status, 403);
        assert_eq!(ask(address, &format!("GET /shutdown HTTP/1.1\r\nHost: {ip}\r\n\r\n")).status, 403);
        let bearing = format!("GET /shutdown HTTP/1.1\r\nHost: localhost\r\n{BEARER}\r\n");
        if options.is_empty() {
            assert_eq!(ask(address, &bearing).status, 403);
        } else {
            assert_eq!(ask(address, &bearing).status, 200);
            ended_by_shutdown(process);
        }
    }
}

#[test]
fn methods_that_only_ask_do_not_stop() {
    let (process, address) = on_any_port(&[]);
    let mut client = Client::connect(address);
    client.send("HEAD /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 200);
    client.send("HEAD /shutdown HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 403);
    let reply = client.ask("OPTIONS /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!((200..300).contains(&reply.status) && reply.header("allow").is_some(), "{}", reply.head);
    assert_eq!(client.ask("DELETE /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n").status, 405);
    assert_eq!(client.ask(PING).text(), "pong");
    assert_eq!(client.ask("GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n").status, 200);
    drop(client);
    let said = shut_down(process, address);
    assert_eq!(said.matches("stopping: ").count(), 1, "{said}");
}

#[test]
fn a_connection_that_shutdown_leaves_idle_is_closed_after_the_idle_grace() {
    let (process, address) = on_any_port(&["--idle-grace", "0.2"]);
    let mut idle = Client::connect(address);
    assert_eq!(idle.ask(PING).text(), "pong");
    let said = shut_down(process, address);
    idle.expect_fin();
    let seconds = seconds_of(&said);
    assert!(seconds >= 0.2, "{said}");
}

/// How long the last line says that it took.
fn seconds_of(said: &str) -> f64 {
    // On a machine that stands still, a line that was to come earlier may stand behind it.
    let last = said.lines().find(|line| line.starts_with("all out: ")).unwrap();
    last.rsplit("; ").next().unwrap().strip_suffix(" s").unwrap().parse().unwrap()
}

#[test]
fn an_answer_that_is_cut_off_at_the_deadline_is_exit_code_124() {
    let mut process = demo(&[&ANY_PORT[..], &["--grace", "0.3"]].concat());
    let address = process.address();
    let mut slow = Client::connect(address);
    slow.send("GET /bytes/50000000 HTTP/1.1\r\nHost: test\r\n\r\n");
    // Its first byte says that the answer is under way. It is more than all buffers between take, and is not read on.
    while slow.stream.peek(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted) {}
    assert_eq!(ask(address, SHUTDOWN).status, 200);
    let (code, said) = process.end();
    assert_eq!(code, Some(124), "{said}");
    // On a machine so slow that its loops are late, only that is known.
    let is_told = said.contains("\ncut off: ") && !said.contains(" 0 cut off; ");
    assert!(is_told || said.contains(" in time\n"), "{said}");
    assert!(said.contains("\nall out: /shutdown; 0 requests finished while draining, "), "{said}");
    assert!(seconds_of(&said) >= 0.3, "{said}");
}

// ---- Lame duck -----------------------------------------------------------------------------------------------------

/// A command whose lame-duck time does not end within the test.
#[track_caller]
fn check_lame_duck(stop: impl FnOnce(&Process, SocketAddr), cause: &str) {
    let (mut process, address) = on_any_port(&["--lame-duck", "1000"]);
    let mut client = Client::connect(address);
    let ask = |client: &mut Client, path: &str| {
        let reply = client.ask(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        assert!(!reply.is_last(), "the drain has not begun: {}", reply.head);
        (reply.status, reply.text())
    };
    assert_eq!(ask(&mut client, "/readyz").0, 200);
    stop(&process, address);
    process.line_with(&format!("stopping: {cause}"));
    for client in [&mut client, &mut Client::connect(address)] {
        assert_eq!(ask(client, "/readyz").0, 503);
        assert_eq!(ask(client, "/ping"), (200, "pong".to_owned()));
        assert_eq!(ask(client, "/livez").0, 200);
        assert_eq!(ask(client, "/readyz"), (503, "stopping\n".to_owned()));
    }
}

#[test]
fn a_lame_duck_serves_on_after_shutdown_but_is_not_ready() {
    check_lame_duck(|_, address| assert_eq!(ask(address, SHUTDOWN).status, 200), "/shutdown");
}

#[cfg(all(unix, feature = "signals"))]
#[test]
fn a_lame_duck_serves_on_after_a_signal_but_is_not_ready() {
    check_lame_duck(|process, _| process.signal(nix::sys::signal::Signal::SIGTERM), "signal");
}

#[test]
fn a_lame_duck_drains_when_its_time_is_over() {
    let (process, address) = on_any_port(&["--lame-duck", "0.3", "--idle-grace", "0.1"]);
    let said = shut_down(process, address);
    assert!(seconds_of(&said) >= 0.3, "{said}");
}

// ---- What is said --------------------------------------------------------------------------------------------------

const BAD_REQUEST: &str = "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";

#[test]
fn only_the_verbose_tell_of_refused_requests() {
    for (arguments, is_told) in [(&[][..], false), (&["--verbose"], true), (&["-v"], true)] {
        let (process, address) = on_any_port(arguments);
        let mut client = Client::connect(address);
        let peer = client.stream.local_addr().unwrap();
        assert_eq!(client.ask(BAD_REQUEST).status, 400);
        drop(client);
        let said = shut_down(process, address);
        assert_eq!(said.contains(&format!("rejected {peer}: 400 ")), is_told, "{said}");
    }
}

#[test]
fn a_panic_of_a_handler_is_told_and_costs_only_its_own_connection() {
    let mut process = demo(&ANY_PORT);
    let address = process.address();
    let mut neighbour = Client::connect(address);
    assert_eq!(neighbour.ask(PING).text(), "pong");
    let reply = ask(address, "GET /panic HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(reply.status == 500 && reply.is_last(), "{}", reply.head);
    assert_eq!(neighbour.ask(PING).text(), "pong");
    drop(neighbour);
    let said = shut_down(process, address);
    assert!(said.contains("handler of GET /panic panicked: asked to"), "{said}");
}

#[test]
fn requests_that_came_with_shutdown_are_answered() {
    let (process, address) = on_any_port(&[]);
    let mut client = Client::connect(address);
    client.send([SHUTDOWN, PING, PING].concat());
    let replies = [client.reply(), client.reply(), client.reply()];
    assert_eq!(
        replies.each_ref().map(|reply| (reply.status, reply.is_last())),
        [(200, false), (200, false), (200, true)]
    );
    client.expect_fin();
    drop(client);
    // How many of them the stop finds unanswered is a matter of time.
    let (code, said) = process.end();
    assert!(code == Some(0) && said.contains(", 0 cut off; "), "{said}");
}

#[test]
#[cfg(all(target_os = "linux", feature = "sys"))]
fn a_server_that_cannot_serve_does_not_say_that_it_listens() {
    let limited = "ulimit -n 40; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, env!("CARGO_BIN_EXE_allout")]).args(ANY_PORT).args(["--loops", "100"]);
    let (code, said) = Process::spawn(&mut command).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("http failed: cannot create a poller: ") && !said.contains("listening"), "{said}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_has_no_descriptor_for_a_client_does_not_say_that_it_listens() {
    for descriptors in 4.. {
        let limited = format!("ulimit -n {descriptors}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        // More than one of each would only take more descriptors.
        command.args(["-c", &limited, ALLOUT]).args(ANY_PORT).args(["--loops", "1"]);
        let mut process = Process::spawn(&mut command);
        // Below some number it cannot even be loaded.
        let line = process.line_with("");
        if let Some(address) = line.strip_prefix("listening on http://") {
            let address = address.parse().unwrap();
            assert_eq!(ask(address, PING).text(), "pong");
            shut_down(process, address);
            return;
        }
        assert_ne!(process.end().0, Some(0), "{line}");
    }
}

#[test]
fn a_line_for_each_step_and_no_other() {
    let (process, address) = on_any_port(&[]);
    assert_eq!(ask(address, PING).text(), "pong");
    let said = shut_down(process, address);
    let starts = [&format!("listening on http://{address}"), "stopping: /shutdown", "all out: /shutdown; "];
    assert_eq!(said.lines().count(), starts.len(), "{said}");
    assert!(said.lines().zip(starts).all(|(line, start)| line.starts_with(start)), "{said}");
}

// ---- Unix sockets, and standard streams that are not there ---------------------------------------------------------

#[cfg(unix)]
mod unix {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::Path;
    use std::process::{Child, ExitStatus};

    use super::*;
    use crate::support::{Folder, HANG, poll};

    /// Connects, as soon as somebody listens: without a stderr nobody can say so.
    fn connect(socket: &Path) -> UnixStream {
        let stream = poll(|| UnixStream::connect(socket).ok()).expect("somebody listens");
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream
    }

    /// Sends a request whose answer is the connection's last, and returns all that comes.
    fn ask(socket: &Path, head: &str) -> String {
        let mut stream = connect(socket);
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[track_caller]
    fn check_serves_and_stops(socket: &Path) {
        let answer = ask(socket, "GET /ping HTTP/1.1\r\nHost: localhost");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\npong"), "{answer}");
        let answer = ask(socket, "POST /shutdown HTTP/1.1\r\nHost: localhost");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nstopping\n"), "{answer}");
    }

    fn listen(socket: &Path) -> String {
        format!("unix:{}", socket.display())
    }

    /// A process whose stderr the test does not read, killed when the test ends before it does.
    struct Unheard(Child);

    impl Unheard {
        fn start(socket: &Path, arguments: &[&str], stderr: impl Into<Stdio>) -> Self {
            let mut command = Command::new(ALLOUT);
            command.args(["--listen", &listen(socket)]).args(arguments).stdin(Stdio::null()).stderr(stderr);
            Self(command.spawn().unwrap())
        }

        fn end(mut self) -> ExitStatus {
            poll(|| self.0.try_wait().unwrap()).expect("it ends")
        }
    }

    impl Drop for Unheard {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_unix_socket_is_served_and_its_file_removed() {
        let folder = Folder::new("unix-served");
        let socket = folder.path("socket");
        let mut process = allout(&["--listen", &listen(&socket), "--listen", "127.0.0.1:0"]);
        process.line_with(&format!("listening on unix:{}", socket.display()));
        let address = process.address();
        assert_eq!(super::ask(address, PING).text(), "pong");
        check_serves_and_stops(&socket);
        ended_by_shutdown(process);
        assert!(!socket.exists());
    }

    #[test]
    fn shutdown_is_refused_over_a_unix_socket_to_web_pages_too() {
        let folder = Folder::new("unix-refused");
        let socket = folder.path("socket");
        let mut process = allout(&["--listen", &listen(&socket)]);
        process.line_with("listening on ");
        for fields in ["Host: evil.example", "Host: localhost\r\nOrigin: http://evil.example"] {
            let answer = ask(&socket, &format!("POST /shutdown HTTP/1.1\r\n{fields}"));
            assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        }
        check_serves_and_stops(&socket);
        ended_by_shutdown(process);
    }

    #[test]
    fn a_stale_socket_file_is_replaced() {
        let folder = Folder::new("unix-stale");
        let socket = folder.path("socket");
        // Closed without removing its file, as if killed.
        drop(UnixListener::bind(&socket).unwrap());
        assert!(socket.exists());
        let mut process = allout(&["--listen", &listen(&socket)]);
        process.line_with("listening on unix:");
        check_serves_and_stops(&socket);
        ended_by_shutdown(process);
        assert!(!socket.exists());
    }

    #[test]
    fn the_socket_file_of_one_that_was_killed_is_replaced() {
        let folder = Folder::new("unix-killed");
        let socket = folder.path("socket");
        for _ in 0..2 {
            let mut process = allout(&["--listen", &listen(&socket)]);
            process.line_with("listening on unix:");
            // Killed.
            drop(process);
            assert!(socket.exists());
        }
    }

    #[test]
    fn a_live_unix_socket_is_taken() {
        let folder = Folder::new("unix-live");
        let socket = folder.path("socket");
        let mut process = allout(&["--listen", &listen(&socket)]);
        process.line_with("listening on unix:");
        let text = format!("cannot listen on `{}`: ", listen(&socket));
        check_fails(allout(&["--listen", &listen(&socket)]), 1, &[&text, "in use"]);
        // And is none the worse for it.
        check_serves_and_stops(&socket);
        ended_by_shutdown(process);
    }

    #[test]
    fn what_is_no_socket_is_not_replaced() {
        let folder = Folder::new("unix-file");
        let file = folder.path("file");
        std::fs::write(&file, "precious").unwrap();
        check_fails(allout(&["--listen", &listen(&file)]), 1, &[&format!("`{}`", listen(&file))]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        let link = folder.path("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check_fails(allout(&["--listen", &listen(&link)]), 1, &[&format!("`{}`", listen(&link))]);
        assert_eq!(std::fs::read_to_string(&link).unwrap(), "precious");
        check_fails(allout(&["--listen", &listen(&folder.path("."))]), 1, &["cannot listen on `unix:"]);
    }

    #[test]
    fn a_socket_in_a_folder_that_is_missing_is_named() {
        let folder = Folder::new("unix-missing");
        let place = listen(&folder.path("missing/socket"));
        check_fails(allout(&["--listen", &place]), 1, &[&format!("cannot listen on `{place}`: ")]);
        let long = listen(&folder.path(&"x".repeat(200)));
        check_fails(allout(&["--listen", &long]), 1, &[&format!("cannot listen on `{long}`: ")]);
    }

    #[test]
    fn a_bad_address_behind_a_unix_socket_leaves_no_file() {
        let folder = Folder::new("unix-second");
        let socket = folder.path("socket");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        check_fails(allout(&["--listen", &listen(&socket), "--listen", &taken]), 1, &[&format!("`{taken}`")]);
        assert!(!socket.exists());
    }

    #[test]
    fn a_socket_file_that_another_server_has_taken_over_is_left_to_it() {
        let folder = Folder::new("unix-taken-over");
        let socket = folder.path("socket");
        let (mut process, address) = {
            let mut process = allout(&["--listen", &listen(&socket), "--listen", "127.0.0.1:0"]);
            let address = process.address();
            (process, address)
        };
        std::fs::remove_file(&socket).unwrap();
        let _other = UnixListener::bind(&socket).unwrap();
        assert_eq!(super::ask(address, SHUTDOWN).status, 200);
        process.line_with("all out: /shutdown");
        assert_eq!(process.end().0, Some(0));
        UnixStream::connect(&socket).unwrap();
    }

    /// A path is bytes, but an option is text. Of what cannot be read as text, no other path is made.
    #[test]
    fn what_is_not_utf_8_is_named_and_not_turned_into_something_else() {
        use std::ffi::OsString;
        use std::os::unix::ffi::OsStringExt;

        let folder = Folder::new("not-utf-8");
        let mut bytes = listen(&folder.path("")).into_bytes();
        bytes.extend_from_slice(b"\xff.sock");
        let place = OsString::from_vec(bytes);
        let mut joined = OsString::from("--listen=");
        joined.push(&place);
        for (arguments, text) in [
            (&["--listen".into(), place.clone()][..], "bad value for --listen: it is not UTF-8"),
            (&[joined], "bad value for --listen: it is not UTF-8"),
            (&["--shutdown-token".into(), place.clone()], "bad value for --shutdown-token: it is not UTF-8"),
            (&[OsString::from_vec(b"--l\xffsten".to_vec())], "unknown option `--l\u{fffd}sten`"),
        ] {
            check_fails(Process::spawn(Command::new(ALLOUT).args(arguments)), 2, &[text]);
        }
        let mut command = Command::new(ALLOUT);
        command.env("ALLOUT_LISTEN", &place);
        check_fails(Process::spawn(&mut command), 2, &["bad value for ALLOUT_LISTEN: it is not UTF-8"]);
        assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 0);
    }

    #[test]
    fn a_socket_without_a_file_is_refused_and_no_file_made() {
        let folder = Folder::new("abstract");
        let mut command = Command::new(ALLOUT);
        command.args(["--listen", "unix:@name"]).current_dir(folder.path(""));
        check_fails(Process::spawn(&mut command), 2, &["bad address `unix:@name`: abstract sockets are not served"]);
        assert_eq!(std::fs::read_dir(folder.path("")).unwrap().count(), 0);
        let address = allout::Address::Unix("@name".into());
        let error = allout::Server::bind(address, allout::Config::default()).unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on `unix:@name`: abstract"), "{error}");
    }

    #[test]
    fn a_path_with_a_comma_is_one_address() {
        let folder = Folder::new("unix-comma");
        let socket = folder.path("one,two");
        let process = allout(&["--listen", &listen(&socket)]);
        check_serves_and_stops(&socket);
        ended_by_shutdown(process);
    }

    #[test]
    fn the_quiet_say_nothing_when_all_goes_well() {
        for quiet in ["--quiet", "-q"] {
            let folder = Folder::new(quiet);
            let socket = folder.path("socket");
            let process = allout(&["--listen", &listen(&socket), quiet]);
            let answer = ask(&socket, "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            check_serves_and_stops(&socket);
            assert_eq!(process.end(), (Some(0), String::new()));
        }
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = taken.local_addr().unwrap().to_string();
        check_fails(allout(&["--quiet", "--listen", &taken]), 1, &[&format!("`{taken}`")]);
        check_fails(allout(&["--quiet", "--loops", "0"]), 2, &["--loops"]);
    }

    #[test]
    fn the_quiet_say_what_was_cut_off() {
        let folder = Folder::new("quiet-cut-off");
        let socket = folder.path("socket");
        let process = demo(&["--listen", &listen(&socket), "--quiet", "--grace", "0.1"]);
        let mut slow = connect(&socket);
        slow.write_all(b"GET /bytes/50000000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        slow.read_exact(&mut [0]).unwrap();
        ask(&socket, "POST /shutdown HTTP/1.1\r\nHost: localhost");
        let (code, said) = process.end();
        assert_eq!(code, Some(124), "{said}");
        // What was cut off, or that it is not known, and the last line.
        assert!(said.lines().count() >= 2 && said.contains("\nall out: /shutdown; "), "{said}");
    }

    #[test]
    fn a_closed_stderr_does_not_keep_it_from_serving_and_stopping() {
        let folder = Folder::new("stderr-closed");
        let socket = folder.path("socket");
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 2>&-"#, ALLOUT, "--verbose", "--listen", &listen(&socket)]);
        let process = Process::spawn(&mut command);
        // A line on a stderr that is closed must not end up in whatever has got its number since.
        let answer = ask(&socket, "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b");
        assert!(answer.starts_with("HTTP/1.1 400 ") && !answer.contains("rejected"), "{answer}");
        check_serves_and_stops(&socket);
        assert_eq!(process.end(), (Some(0), String::new()));
        assert!(!socket.exists());
    }

    #[test]
    fn a_stderr_whose_reader_has_left_does_not_keep_it_from_serving_and_stopping() {
        let folder = Folder::new("stderr-broken");
        let socket = folder.path("socket");
        let mut process = Unheard::start(&socket, &["--verbose"], Stdio::piped());
        drop(process.0.stderr.take());
        ask(&socket, "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b");
        check_serves_and_stops(&socket);
        assert_eq!(process.end().code(), Some(0));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_behind_stderr_does_not_keep_it_from_serving_and_stopping() {
        let folder = Folder::new("stderr-full-disk");
        let socket = folder.path("socket");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let process = Unheard::start(&socket, &["--verbose"], full);
        check_serves_and_stops(&socket);
        assert_eq!(process.end().code(), Some(0));
    }

    #[test]
    fn a_stderr_that_nobody_reads_does_not_keep_it_from_stopping() {
        let folder = Folder::new("stderr-stuck");
        let socket = folder.path("socket");
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut filling = theirs.try_clone().unwrap();
        let process = Unheard::start(&socket, &[], OwnedFd::from(theirs));
        // It is up, and has said so. From now on its reader hangs, like a terminal after Ctrl-S.
        ours.set_read_timeout(Some(HANG)).unwrap();
        (&ours).read_exact(&mut [0; "listening on unix:".len()]).unwrap();
        filling.set_nonblocking(true).unwrap();
        while filling.write(&[b'x'; 4096]).is_ok() {}
        filling.set_nonblocking(false).unwrap();
        check_serves_and_stops(&socket);
        assert_eq!(process.end().code(), Some(0));
        drop(ours);
    }

    /// A process that says how it is, until nobody reads on and its stderr is full. It ends once the idle client goes.
    struct Stuck {
        process: Unheard,
        reader: UnixStream,
        idle: UnixStream,
    }

    impl Stuck {
        fn start(socket: &Path, does_block: bool) -> Self {
            let (reader, theirs) = UnixStream::pair().unwrap();
            let mut filling = theirs.try_clone().unwrap();
            let arguments = ["--verbose", "--idle-grace", "600", "--grace", "600"];
            let process = Unheard::start(socket, &arguments, OwnedFd::from(theirs));
            reader.set_read_timeout(Some(HANG)).unwrap();
            (&reader).read_exact(&mut [0; "listening on unix:".len()]).unwrap();
            let mut idle = connect(socket);
            idle.write_all(PING.as_bytes()).unwrap();
            idle.read_exact(&mut [0]).unwrap();
            filling.set_nonblocking(true).unwrap();
            while filling.write(b"\n").is_ok() {}
            // Which is the same for the process: they share one description of the socket.
            filling.set_nonblocking(!does_block).unwrap();
            Self { process, reader, idle }
        }

        /// Reads on, and gives all lines but the first, which says where it listens.
        fn end(self) -> Vec<String> {
            let Self { process, mut reader, idle } = self;
            drop(idle);
            let mut said = String::new();
            reader.read_to_string(&mut said).unwrap();
            assert_eq!(process.end().code(), Some(0), "{said}");
            said.lines().skip(1).filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect()
        }
    }

    #[test]
    fn of_too_many_lines_for_stderr_the_last_are_written_and_the_others_counted() {
        let folder = Folder::new("stderr-deluge");
        let socket = folder.path("socket");
        let stuck = Stuck::start(&socket, true);
        let refusals = 1_500;
        for _ in 0..refusals {
            let answer = ask(&socket, "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        }
        check_serves_and_stops(&socket);
        let lines = stuck.end();
        assert!(lines.last().unwrap().starts_with("all out: /shutdown; "), "{lines:?}");
        assert_eq!(lines.iter().filter(|line| *line == "stopping: /shutdown").count(), 1, "{lines:?}");
        // Each that is missing is counted, where it is missing.
        let dropped = |line: &String| {
            line.strip_suffix(" lines were dropped, since nobody read them)")?.strip_prefix('(')?.parse::<usize>().ok()
        };
        let dropped: Vec<usize> = lines.iter().filter_map(dropped).collect();
        let notices = lines.len() - dropped.len() - 2;
        assert!(!dropped.is_empty());
        assert_eq!(notices + dropped.iter().sum::<usize>(), refusals, "{dropped:?}");
    }

    #[test]
    fn a_stderr_that_is_full_and_does_not_block_loses_no_line() {
        let folder = Folder::new("stderr-full-nonblocking");
        let socket = folder.path("socket");
        let stuck = Stuck::start(&socket, false);
        for _ in 0..10 {
            ask(&socket, "GET /ping HTTP/1.1\r\nHost: a\r\nHost: b");
        }
        check_serves_and_stops(&socket);
        let lines = stuck.end();
        assert_eq!(lines.len(), 12, "{lines:?}");
        assert!(lines[10] == "stopping: /shutdown" && lines[11].starts_with("all out: "), "{lines:?}");
    }

    #[test]
    fn a_usage_error_waits_for_no_reader() {
        let (reader, theirs) = UnixStream::pair().unwrap();
        let mut filling = theirs.try_clone().unwrap();
        filling.set_nonblocking(true).unwrap();
        while filling.write(&[b'x'; 4096]).is_ok() {}
        filling.set_nonblocking(false).unwrap();
        let folder = Folder::new("stderr-usage");
        let process = Unheard::start(&folder.path("socket"), &["--nonsense"], OwnedFd::from(theirs));
        assert_eq!(process.end().code(), Some(2));
        drop(reader);
    }

    /// The end of the example at its deadline, when sixty clients have not taken their answers.
    fn cut_off_sixty() -> (Option<i32>, String) {
        let folder = Folder::new("many-cut-off");
        let socket = folder.path("socket");
        let process = demo(&["--listen", &listen(&socket), "--grace", "0.1"]);
        let clients: Vec<_> = (0..60)
            .map(|_| {
                let mut client = connect(&socket);
                // More than the socket holds. Its first byte says that the answer is under way.
                client.write_all(b"GET /bytes/300000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
                client.read_exact(&mut [0]).unwrap();
                client
            })
            .collect();
        ask(&socket, "POST /shutdown HTTP/1.1\r\nHost: localhost");
        let end = process.end();
        drop(clients);
        end
    }

    #[test]
    fn of_many_requests_that_are_cut_off_fifty_have_a_line_and_the_others_are_counted() {
        // A machine that stood still for longer than the server counts teaches nothing.
        let is_timely = |said: &str| !said.contains("no time to count") && !said.contains("in time");
        let ends = (0..20).map(|_| cut_off_sixty()).find(|(_, said)| is_timely(said));
        let (code, said) = ends.expect("a machine that is fast once");
        assert_eq!(code, Some(124), "{said}");
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("cut off: ")).collect();
        assert_eq!(lines.len(), 51, "{said}");
        assert!(lines.ends_with(&["cut off: 10 more"]), "{said}");
        assert!(said.lines().last().is_some_and(|last| last.contains(", 60 cut off; ")), "{said}");
    }
}
