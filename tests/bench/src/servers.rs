//! The servers that are compared: how each is built, started, and told where to listen.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::builds::{self, Profile};
use crate::process::{Process, free_address};
use crate::workloads::{LONG_BYTES, Workload};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A binary of `peers/`.
    Rust,
    /// `allout`'s, built with the poller that it has for systems without epoll.
    Sweep,
    /// The same, which must be told what to answer.
    Limit,
    Nginx,
    Go,
}

/// A server that is there, ready to be started.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: &'static str,
    kind: Kind,
    program: PathBuf,
}

/// `allout` first, and the limit last.
const SERVERS: [(&str, Kind); 11] = [
    ("allout", Kind::Rust),
    ("sweep", Kind::Sweep),
    ("hyper", Kind::Rust),
    ("axum", Kind::Rust),
    ("actix", Kind::Rust),
    ("ntex", Kind::Rust),
    ("may", Kind::Rust),
    ("tiny_http", Kind::Rust),
    ("nginx", Kind::Nginx),
    ("go", Kind::Go),
    ("limit", Kind::Limit),
];

/// What is not measured, and why.
const CANNOT: [(&str, &str, &str); 3] = [
    ("limit", "sleepers", "it parses nothing, and so has no handlers"),
    ("nginx", "sleepers", "it has no handler that sleeps"),
    ("may", "close", "may_minihttp ignores `Connection: close`"),
];

impl Server {
    /// Builds those that are wanted, and says on stderr which are not here.
    pub fn all(is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Self>> {
        let folder = builds::peers(Profile::Release)?;
        let mut servers = Vec::new();
        for (name, kind) in SERVERS.into_iter().filter(|(name, _)| is_wanted(name)) {
            let program = match kind {
                Kind::Rust | Kind::Limit => Some(folder.join(name)),
                Kind::Sweep => Some(builds::sweep_peer()?),
                Kind::Nginx => installed("nginx", "-v", "nginx-light").then(|| "nginx".into()),
                Kind::Go => installed("go", "version", "golang-go").then(go).transpose()?,
            };
            servers.extend(program.map(|program| Self { name, kind, program }));
        }
        Ok(servers)
    }

    /// All that there may be.
    pub fn names() -> [&'static str; SERVERS.len()] {
        SERVERS.map(|(name, _)| name)
    }

    /// Why it cannot be asked this.
    pub fn cannot(&self, workload: &Workload) -> Option<&'static str> {
        CANNOT.iter().find(|(name, what, _)| (*name, *what) == (self.name, workload.name)).map(|(.., why)| *why)
    }

    /// Starts it, and waits for its first answer, which is to a request of the workload. Returns how long that took.
    pub fn start(&self, workload: &Workload) -> Result<(Process, Duration)> {
        let address = free_address()?;
        let request = workload.request(address);
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Rust | Kind::Sweep => _ = command.arg(address.to_string()),
            // What Go calls its threads that run handlers.
            Kind::Go => _ = command.arg(address.to_string()).env("GOMAXPROCS", "2"),
            Kind::Limit => {
                command.arg(address.to_string()).arg(request.len().to_string());
                command.arg(workload.route.answer_bytes().to_string()).args(workload.closes.then_some("close"));
            }
            Kind::Nginx => _ = command.arg("-c").arg(nginx_configured(address)?),
        }
        Process::start_at(command, address, &request).map_err(|error| format!("{}: {error}", self.name).into())
    }

    /// Bytes of its stripped binary in a profile, and of nginx's as it is installed.
    pub fn binary_bytes(&self, profile: Profile) -> Result<Option<u64>> {
        let program = match (self.kind, profile) {
            (Kind::Rust | Kind::Limit, _) => builds::peers(profile)?.join(self.name),
            (Kind::Go | Kind::Sweep, Profile::Release) => self.program.clone(),
            (Kind::Nginx, Profile::Release) => {
                let found = Command::new("sh").args(["-c", "command -v nginx"]).output()?;
                String::from_utf8_lossy(&found.stdout).trim().into()
            }
            (Kind::Go | Kind::Nginx | Kind::Sweep, Profile::Small) => return Ok(None),
        };
        Ok(Some(fs::metadata(program)?.len()))
    }

    pub fn is_ours(&self) -> bool {
        self.name == SERVERS[0].0
    }

    pub fn is_limit(&self) -> bool {
        self.kind == Kind::Limit
    }

    /// The limit is a line, and the other poller is for systems where there is no comparison.
    pub fn is_plotted(&self) -> bool {
        !matches!(self.kind, Kind::Limit | Kind::Sweep)
    }
}

/// Says aloud what is missing, and in which package of Debian it is.
pub fn installed(program: &str, argument: &str, package: &str) -> bool {
    // Whatever it answers: that it can be started is what counts.
    let is_here = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !is_here {
        eprintln!("SKIPPED: there is no `{program}`; on Debian it is in the package `{package}`");
    }
    is_here
}

fn peers() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers")
}

fn scratch() -> Result<PathBuf> {
    let folder = builds::target().join("compare");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn go() -> Result<PathBuf> {
    let program = scratch()?.join("go");
    let mut command = Command::new("go");
    command.args(["build", "-ldflags", "-s -w", "-o"]).arg(&program).arg(peers().join("main.go"));
    if command.status()?.success() { Ok(program) } else { Err("cannot build peers/main.go".into()) }
}

fn nginx_configured(address: SocketAddr) -> Result<PathBuf> {
    let folder = scratch()?;
    fs::write(folder.join("bytes"), "x".repeat(LONG_BYTES))?;
    let text = fs::read_to_string(peers().join("nginx.conf"))?;
    let text = text.replace("ADDRESS", &address.to_string()).replace("FOLDER", &folder.to_string_lossy());
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    Ok(file)
}

/// Writes what `wrk` must be told for a workload, if anything.
pub fn script(workload: &Workload) -> Result<Option<PathBuf>> {
    let text = workload.script();
    if text.is_empty() {
        return Ok(None);
    }
    let file = scratch()?.join(format!("{}.lua", workload.name));
    fs::write(&file, text)?;
    Ok(Some(file))
}
