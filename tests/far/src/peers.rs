//! The servers: allout, and those that it is compared with. Each answers `/ping` with four bytes, at [`ADDRESS`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::once::ADDRESS;

/// A server that is there, and how it is started.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// The signal for a graceful stop, then the program and its arguments.
    pub(crate) command: Vec<String>,
}

impl Peer {
    pub(crate) fn allout(program: Option<&Path>) -> Result<Self> {
        let program = program.map_or_else(build, |program| Ok(program.to_owned()))?;
        let command = ["TERM", &text(&program)?, "--listen", ADDRESS, "--loops", "2", "--quiet"];
        Ok(Self { name: "allout", command: command.map(str::to_owned).to_vec() })
    }

    /// `None` if it is not installed.
    pub(crate) fn nginx(folder: &Path) -> Result<Option<Self>> {
        const PROGRAM: &str = "/usr/sbin/nginx";
        if !Path::new(PROGRAM).exists() {
            return Ok(None);
        }
        let file = folder.join("nginx.conf");
        let configuration = format!(
            "daemon off; user root; pid {folder}/pid; error_log {folder}/log; worker_processes 2;
            events {{ worker_connections 1024; }}
            http {{
                access_log off;
                client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
                uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
                server {{ listen {ADDRESS} backlog=4096; location /ping {{ return 200 pong; }} }}
            }}",
            folder = text(folder)?
        );
        std::fs::write(&file, configuration)?;
        let command = ["QUIT", PROGRAM, "-p", &text(folder)?, "-c", &text(&file)?];
        Ok(Some(Self { name: "nginx", command: command.map(str::to_owned).to_vec() }))
    }

    /// `None` if it is not installed.
    pub(crate) fn go(folder: &Path) -> Result<Option<Self>> {
        let is_there = Command::new("go").arg("version").stdout(Stdio::null()).status().is_ok_and(|it| it.success());
        if !is_there {
            return Ok(None);
        }
        let (source, program) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("peer.go"), folder.join("peer"));
        if !Command::new("go").args(["build", "-o"]).arg(&program).arg(source).status()?.success() {
            return Err("cannot build peer.go".into());
        }
        let command = ["TERM", &text(&program)?, ADDRESS];
        Ok(Some(Self { name: "Go", command: command.map(str::to_owned).to_vec() }))
    }
}

/// Builds the command into this crate's own target directory, and says where it lies.
fn build() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = here.join("target").join("allout");
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--release", "--locked", "--quiet", "--bin", "allout", "--manifest-path"])
        .arg(here.join("../../Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if built.success() { Ok(target.join("release").join("allout")) } else { Err("cannot build allout".into()) }
}

fn text(path: &Path) -> Result<String> {
    Ok(path.to_str().ok_or("a path that is not UTF-8")?.to_owned())
}
