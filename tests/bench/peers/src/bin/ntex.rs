//! The routes on ntex, over tokio: `ntex ADDRESS`.

use std::thread;
use std::time::Duration;

use ntex::util::Bytes;
use ntex::web::types::PayloadConfig;
use ntex::web::{self, App, HttpServer};

#[ntex::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let routes = || {
        App::new()
            // A body may be as large as with allout.
            .state(PayloadConfig::new(1024 * 1024))
            .route("/ping", web::get().to(async || "pong"))
            .route("/sleep", web::get().to(sleep))
            .route("/bytes", web::get().to(async || Bytes::from(vec![b'x'; 64 * 1024])))
            .route("/length", web::post().to(async |body: Bytes| body.len().to_string()))
    };
    // Its default of 5 seconds would close the idle connections that are to be measured.
    HttpServer::new(routes).workers(2).keep_alive(75).bind(address)?.run().await
}

async fn sleep() -> &'static str {
    let _ = ntex::rt::spawn_blocking(|| thread::sleep(Duration::from_millis(170))).await;
    "slept"
}
