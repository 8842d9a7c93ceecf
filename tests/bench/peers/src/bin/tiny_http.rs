//! The routes on tiny_http, two threads that answer: `tiny_http ADDRESS`.

use std::io;
use std::thread;
use std::time::Duration;

use tiny_http::{Request, Response, Server};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let address = std::env::args().nth(1).ok_or("no address")?;
    let server = Server::http(address)?;
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for request in server.incoming_requests() {
                    // A client that has gone is no matter.
                    let _ = answer(request);
                }
            });
        }
    });
    Ok(())
}

fn answer(mut request: Request) -> io::Result<()> {
    match request.url() {
        "/ping" => request.respond(Response::from_string("pong")),
        "/sleep" => {
            // Or it would hold up everybody else.
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(170));
                request.respond(Response::from_string("slept"))
            });
            Ok(())
        }
        // Its default would send it in chunks.
        "/bytes" => {
            let response = Response::from_data(vec![b'x'; 64 * 1024]);
            request.respond(response.with_chunked_threshold(usize::MAX))
        }
        "/length" => {
            let mut body = Vec::new();
            request.as_reader().read_to_end(&mut body)?;
            request.respond(Response::from_string(body.len().to_string()))
        }
        _ => request.respond(Response::empty(404)),
    }
}
