//! The routes on actix-web: `actix ADDRESS`.

use std::thread;
use std::time::Duration;

use actix_web::web::{self, Bytes, PayloadConfig};
use actix_web::{App, HttpServer};

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let routes = || {
        App::new()
            // A body may be as large as with allout.
            .app_data(PayloadConfig::new(1024 * 1024))
            .route("/ping", web::get().to(async || "pong"))
            .route("/sleep", web::get().to(sleep))
            .route("/bytes", web::get().to(async || vec![b'x'; 64 * 1024]))
            .route("/length", web::post().to(async |body: Bytes| body.len().to_string()))
    };
    // Its default of 5 seconds would close the idle connections that are to be measured.
    let server = HttpServer::new(routes).workers(2).keep_alive(Duration::from_secs(75)).bind(address)?;
    actix_web::rt::System::new().block_on(server.run())
}

async fn sleep() -> &'static str {
    let _ = web::block(|| thread::sleep(Duration::from_millis(170))).await;
    "slept"
}
