//! `--check`: the command asks a running server, and says by its exit code whether all is well.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::thread;

use crate::support::{Client, allout};

const ALLOUT: &str = env!("CARGO_BIN_EXE_allout");
const SHUTDOWN: &str = "POST /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[track_caller]
fn check(target: &str, code: i32, line: &str) {
    // What the environment says of the server is no matter here.
    let output = Command::new(ALLOUT).args(["--check", target]).env("ALLOUT_LISTEN", "nowhere").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{said}");
    match line {
        "" => assert_eq!(said, ""),
        line => {
            let is_it = said.starts_with(&format!("allout: {target}: ")) && said.contains(line);
            assert!(is_it && said.lines().count() == 1, "{said}");
        }
    }
}

#[test]
fn a_server_that_answers_200_is_well_and_one_that_stops_is_not_ready() {
    let mut process = allout(&["--listen", "127.0.0.1:0", "--lame-duck", "60"]);
    let address = process.address();
    for target in [format!("{address}"), format!("localhost:{}/livez", address.port())] {
        check(&target, 0, "");
    }
    for target in [format!(":{}", address.port()), format!("{address}/ping?a=1/2")] {
        check(&target, 0, "");
    }
    check(&format!("{address}/"), 1, "answers 404");
    check(&format!("{address}/nothing"), 1, "answers 404");
    assert_eq!(Client::connect(address).ask(SHUTDOWN).status, 200);
    process.line_with("stopping");
    check(&format!("{address}"), 1, "answers 503");
    check(&format!("{address}/livez"), 0, "");
}

#[cfg(unix)]
#[test]
fn a_server_on_a_unix_socket_can_be_asked_and_the_path_may_follow_the_files() {
    let folder = crate::support::Folder::new("check");
    let path = folder.path("a socket").with_file_name("socket");
    let place = format!("unix:{}", path.display());
    let mut process = allout(&["--listen", &place]);
    process.line_with("listening on unix:");
    for target in ["", "/readyz", "/livez", "/ping?a=/b"] {
        check(&format!("{place}{target}"), 0, "");
    }
    check(&format!("{place}/"), 1, "answers 404");
    check(&format!("{place}/nothing"), 1, "answers 404");
    assert_eq!(Client::connect_unix(&path).ask(SHUTDOWN).status, 200);
    assert_eq!(process.end().0, Some(0));
    check(&place, 1, "No such file");
    std::fs::write(&path, "").unwrap();
    check(&place, 1, "refused");
}

#[test]
fn a_server_that_is_not_there_or_does_not_answer_or_not_in_http_is_not_well() {
    // It lives, and does not accept.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    check(&silent.local_addr().unwrap().to_string(), 1, "no answer within 3 s");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let long = "x".repeat(100_000);
    for (answer, why) in [
        ("", "does not answer in HTTP"),
        ("\n", "does not answer in HTTP"),
        ("SSH-2.0-x\r\n", "does not answer in HTTP"),
        ("HTTP/1.1 20\r\n", "does not answer in HTTP"),
        ("HTTP/2 200\r\n", "does not answer in HTTP"),
        (&long, "does not answer in HTTP"),
        ("HTTP/1.0 204 No Content\r\n\r\n", "answers 204"),
        ("HTTP/1.1 301 Moved\r\n\r\n", "answers 301"),
    ] {
        thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 256];
                let count = stream.read(&mut head).unwrap();
                assert!(head[..count].ends_with(b"\r\n\r\n"));
                // The client reads no more than it wants to.
                let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
                let _ = stream.read_to_end(&mut Vec::new());
            });
            check(&address, 1, why);
        });
    }
    drop(listener);
    check(&address, 1, "refused");
}
