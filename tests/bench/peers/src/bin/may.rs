//! The routes on may_minihttp: `may ADDRESS`.

use std::io::{self, Read};
use std::time::Duration;

use may_minihttp::{HttpServer, HttpService, Request, Response};

#[derive(Clone)]
struct Routes;

impl HttpService for Routes {
    fn call(&mut self, request: Request<'_, '_, '_>, response: &mut Response<'_>) -> io::Result<()> {
        match request.path() {
            "/ping" => response.body("pong"),
            "/sleep" => {
                // It has no threads for what blocks: its coroutines have a sleep of their own.
                may::coroutine::sleep(Duration::from_millis(170));
                response.body("slept");
            }
            "/bytes" => response.body_vec(vec![b'x'; 64 * 1024]),
            "/length" => {
                let mut body = Vec::new();
                request.body().read_to_end(&mut body)?;
                response.body_vec(body.len().to_string().into_bytes());
            }
            _ => _ = response.status_code(404, "Not Found"),
        }
        response.header("Content-Type: text/plain; charset=utf-8");
        Ok(())
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    may::config().set_workers(2);
    let server = HttpServer(Routes).start(address)?;
    server.join().map_err(|_| io::Error::other("the server panicked"))
}
