//! The routes on axum, over hyper and tokio: `axum ADDRESS`.

use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let address = std::env::args().nth(1).ok_or("no address")?;
    let routes = Router::new()
        .route("/ping", get(async || "pong"))
        .route("/sleep", get(sleep))
        .route("/bytes", get(async || vec![b'x'; 64 * 1024]))
        .route("/length", post(async |body: Bytes| body.len().to_string()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?.tap_io(|stream| _ = stream.set_nodelay(true));
        Ok(axum::serve(listener, routes).await?)
    })
}

async fn sleep() -> &'static str {
    let _ = tokio::task::spawn_blocking(|| thread::sleep(Duration::from_millis(170))).await;
    "slept"
}
