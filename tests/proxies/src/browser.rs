//! A real browser: Chromium, headless, fetches a page and shows what it has made of it.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::Process;
use crate::proxy::find_program;
use crate::routes::{LONG_STREAM, Routes};
use crate::{HANG, Result};

/// The Debian package.
pub(crate) const PACKAGE: &str = "chromium";

/// Where Chromium lies, if it is installed.
pub(crate) fn program() -> Option<PathBuf> {
    find_program("chromium")
}

/// The page that is fetched, and its text: a long stream, or the page of a server that has none.
pub(crate) fn page(routes: &Routes) -> (String, String) {
    match routes.streams.get(&LONG_STREAM) {
        Some(stream) => (format!("/stream/{LONG_STREAM}"), String::from_utf8_lossy(&stream.bytes).into_owned()),
        None => ("/ping".to_owned(), "pong".to_owned()),
    }
}

/// Has a page fetched, with a profile in a folder of that folder, and fails unless its text is shown whole.
pub(crate) fn fetch(program: &Path, folder: &Path, address: SocketAddr, (path, text): &(String, String)) -> Result<()> {
    let profile = tempfile::tempdir_in(folder)?;
    let mut command = Command::new(program);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &format!("http://{address}{path}")])
        .stdout(Stdio::piped());
    let mut chromium = Process::start(&mut command)?;
    let stdout = chromium.child().stdout.take();
    let reader = std::thread::spawn(move || {
        let mut page = String::new();
        stdout.map(|mut stdout| stdout.read_to_string(&mut page)).transpose().map(|_| page)
    });
    let status = chromium.end_within(HANG)?;
    // Whatever it has left behind would keep its stdout open.
    drop(chromium);
    let page = reader.join().map_err(|_| "the reader of Chromium's output panicked")??;
    // A text is shown in a `pre` of a page that the browser makes around it.
    let shown = page.split_once("<pre").and_then(|(_, rest)| rest.split_once('>'));
    let shown = shown.and_then(|(_, rest)| rest.rsplit_once("</pre>")).map(|(text, _)| unescape(text));
    match shown {
        Some(shown) if shown.trim_end() == text.trim_end() && status.success() => Ok(()),
        _ => Err(format!("Chromium, which ended with {status}, shows for {path}: {page:?}").into()),
    }
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}
