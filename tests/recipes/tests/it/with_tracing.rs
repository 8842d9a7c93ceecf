//! Requests as spans, notices as events.

use super::get;
use super::support::{Folder, Page};

#[test]
fn events_lie_in_the_span_of_their_request() {
    let folder = Folder::new("spans");
    let mut page = Page::start(env!("CARGO_BIN_EXE_with_tracing"), &folder, |_| {});
    page.line_with("listening on");
    let mut client = page.connect();
    assert_eq!(client.ask(get("/", "")).text(), "hello\n");
    let span = r#"request{id=1 method=GET path="/"}"#;
    let line = page.line_with("somebody is here");
    assert!(line.contains(span), "{line}");
    let line = page.line_with("answered");
    assert!(line.contains(span) && line.contains("status=200"), "{line}");

    // In a closure that runs after its handler.
    assert_eq!(client.ask(get("/numbers", "")).text(), "1\n2\n3\n");
    let line = page.line_with("writing");
    assert!(line.contains(r#"request{id=2 method=GET path="/numbers"}"#), "{line}");

    assert_eq!(client.ask(get("/broken", "")).status, 500);
    let line = page.line_with("panicked: as asked");
    assert!(line.contains(" WARN "), "{line}");
    page.signal(nix::sys::signal::Signal::SIGTERM);
    page.line_with("stopping: signal");
    page.line_with("all out: signal");
    assert_eq!(page.code(), Some(0));
}
