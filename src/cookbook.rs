//! Answers to what is asked on the first day. Each page is a program that stands in the repository, is compiled with
//! it, and is run by its tests on real sockets: copy it whole and take away what you do not need.
//!
//! All but one take the address to listen on as their first argument, and listen on `127.0.0.1:8080` without one. Text
//! on lines that begin with `//!` says why it is done like this. The example `restart`, in `tests/examples/restart.rs`,
//! is a larger one: a new version takes the old one's place, and nobody is refused.

macro_rules! pages {
    ($($name:ident $question:literal)*) => {
        $(
            #[doc = $question]
            #[doc = concat!("\n\n```text\ncargo run --example ", stringify!($name), "\n```\n\n```rust")]
            #[doc = include_str!(concat!("../tests/examples/cookbook/", stringify!($name), ".rs"))]
            #[doc = "```"]
            pub mod $name {}
        )*
    };
}

pages! {
    hello "How do I start? A server that stops on Ctrl-C."
    two_ports "How do I serve on two ports, with a job beside them?"
    existing_program "How do I put a server into a program that has its own signals and its own end?"
    wrap "How do I do something with every request: ids, authentication, CORS, a page for panics?"
    client_address "How do I know the client's address behind a proxy?"
    upload "How do I receive a file of any size?"
    download "How do I send a file, with its length, ranges and conditions?"
    server_sent_events "How do I send events as they happen, and stop in time?"
    worker "How do I run a worker that may finish before the others?"
    retry "How do I run a member that may fail, and tries again?"
    database_last "How do I close the database after everything else?"
    idle "How do I end when nobody has asked for a while?"
}
