//! Signals that a program handles itself.

use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::get;
use super::support::{Folder, Page, poll};

fn start(folder: &Folder) -> Page {
    Page::start(env!("CARGO_BIN_EXE_with_signal_hook"), folder, |_| {})
}

#[test]
fn a_program_keeps_its_own_signals_and_says_which_one_stopped_it() {
    let folder = Folder::new("own_signals");
    let mut page = start(&folder);
    let mut client = page.connect();
    assert_eq!(client.ask(get("/", "")).text(), "hello\n");
    page.signal(Signal::SIGUSR1);
    page.line_with("1 requests");
    page.signal(Signal::SIGHUP);
    page.line_with("read again");
    assert_eq!(client.ask(get("/", "")).text(), "hello\n");
    page.signal(Signal::SIGTERM);
    page.line_with("all out: SIGTERM");
    assert_eq!(page.code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once_and_leaves_no_socket_behind() {
    let folder = Folder::new("own_signals_twice");
    let mut page = start(&folder);
    // A body that does not come holds up the drain, at most until the deadline.
    let mut client = page.connect();
    client.send(get("/", "Content-Length: 9\r\n"));
    // A `kill` before the program has its handler would be the end of it; now it serves.
    assert_eq!(page.connect().ask(get("/", "")).status, 200);
    let code = poll("its end", || {
        page.signal(Signal::SIGINT);
        thread::sleep(Duration::from_millis(50));
        page.has_ended()
    });
    // 0 on a machine that leaves this test standing until the deadline.
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    assert!(!page.socket.exists());
}
