//! Answers to what is asked on the first day. Each page is a program that stands in the repository, is compiled with
//! it, and is run by its tests on real sockets: copy it whole and take away what you do not need.
//!
//! All but one take the address to listen on as their first argument, and listen on `127.0.0.1:8080` without one. Text
//! on lines that begin with `//!` says why it is done like this. The example `restart`, in `tests/examples/restart.rs`,
//! is a larger one: a new version takes the old one's place, and nobody is refused.
//!
//! What allout leaves to other crates is shown with them: JSON and a database (`serde_json`, `rusqlite`), forms and
//! cookies (`form_urlencoded`, `cookie`), other signals (`signal-hook`), `tracing`. The versions that these pages are
//! tested with are in `tests/recipes/Cargo.toml`.

macro_rules! pages {
    ($command:literal $($name:ident $question:literal $($needs:literal)?)*) => {
        $(
            #[doc = $question]
            $(#[doc = concat!("\n\nNeeds ", $needs, ".")])?
            #[doc = concat!("\n\n```text\n", $command, stringify!($name), "\n```\n\n```rust")]
            #[doc = include_str!(concat!("../tests/examples/cookbook/", stringify!($name), ".rs"))]
            #[doc = "```"]
            pub mod $name {}
        )*
    };
}

pages! {
    "cargo run --example "
    hello "How do I start? A server that stops on Ctrl-C."
    two_ports "How do I serve on two ports, with a job beside them?"
    existing_program "How do I put a server into a program that has its own signals and its own end?"
    wrap "How do I do something with every request: ids, authentication, CORS, a page for panics?"
    access_log "How do I write an access log: Common Log Format, or JSON?"
    client_address "How do I know the client's address behind a proxy?"
    upload "How do I receive a file of any size?"
    download "How do I send a file, with its length, ranges and conditions?"
    server_sent_events "How do I send events as they happen, and stop in time?"
    worker "How do I run a worker that may finish before the others?"
    retry "How do I run a member that may fail, and tries again?"
    database_last "How do I close the database after everything else?"
    idle "How do I end when nobody has asked for a while?"
}

pages! {
    "cargo run --manifest-path tests/recipes/Cargo.toml --bin "
    json_sqlite "How do I serve JSON, from SQLite?"
        "`rusqlite` (feature `bundled`), `serde` (feature `derive`) and `serde_json`"
    forms_and_cookies "How do I read HTML forms, and set cookies?"
        "`cookie` (features `percent-encode`, `signed`) and `form_urlencoded`"
    with_signal_hook "How do I handle signals of my own, with `signal-hook`?"
        "`signal-hook`, and allout without its feature `signals`"
    with_tracing "How do I log with `tracing`, a span for each request?"
        "`tracing` and `tracing-subscriber`"
}
