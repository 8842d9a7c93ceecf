//! nginx and HAProxy, each with a configuration of its own in a temporary folder, on loopback ports of its own.
//!
//! Both keep their connections to the server and use them again, and neither tries a failed request a second time:
//! what goes wrong is seen.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::Process;
use crate::{HANG, Result};

/// A proxy that can be put in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Haproxy,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Proxy {
    kind: Kind,
    process: Process,
    folder: TempDir,
    /// Its ways in.
    pub(crate) fronts: Vec<Front>,
    /// nginx: where it tells its counts.
    status: SocketAddr,
}

/// A way in: an address, and how requests that come to it are passed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Front {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    /// It passes `OPTIONS *` on; nginx answers that itself, with 400.
    pub(crate) passes_asterisk: bool,
}

/// Counts that a proxy keeps from its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// nginx: connections in both directions, and those from clients. HAProxy: connections to the server, and none.
    opened: u64,
    accepted: u64,
    /// Requests that were not sent, since no connection to the server was to be had.
    unsent: u64,
}

impl Counts {
    /// The connections to the server that were opened since.
    pub(crate) fn upstream_since(self, earlier: Self) -> u64 {
        (self.opened - earlier.opened).saturating_sub(self.accepted - earlier.accepted)
    }

    /// The requests that could not be sent since.
    pub(crate) fn unsent_since(self, earlier: Self) -> u64 {
        self.unsent - earlier.unsent
    }
}

impl Kind {
    /// The Debian package, which is the program's name too but for the flavour.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Nginx => "nginx-light",
            Self::Haproxy => "haproxy",
        }
    }

    /// Where the program lies, if it is installed.
    pub(crate) fn program(self) -> Option<PathBuf> {
        find_program(match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        })
    }

    /// Starts it in front of three servers with its file of `tests/deploy`, in which nothing but addresses is other.
    pub(crate) fn deploy(
        self,
        program: PathBuf,
        folder: &Path,
        servers: [SocketAddr; 3],
        retries: bool,
    ) -> Result<Proxy> {
        let folder = tempfile::tempdir_in(folder)?;
        let [front, ..] = free_ports()?;
        let mut config = deployed(self).to_owned();
        let mut replace = |from: &str, to: &str| match config.matches(from).count() {
            1 => {
                config = config.replace(from, to);
                Ok(())
            }
            count => Err(format!("tests/deploy says `{from}` {count} times")),
        };
        for (number, server) in (1..).zip(servers) {
            replace(
                &format!("server {}10.0.0.{number}:8080", self.label(number)),
                &format!("server {}{server}", self.label(number)),
            )?;
        }
        let path = folder.path().join("deployed");
        let mut command = Command::new(program);
        match self {
            Self::Nginx => {
                replace("listen 80;", &format!("listen {front};"))?;
                if !retries {
                    replace("proxy_next_upstream error timeout;", "proxy_next_upstream off;")?;
                }
                let own = folder.path().join("config");
                std::fs::write(&own, nginx_main(&format!("include {};", path.display())))?;
                command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(own);
            }
            Self::Haproxy => {
                replace("bind :80\n", &format!("bind {front}\n"))?;
                if !retries {
                    replace("retries 3\n", "retries 0\n")?;
                    replace("    option redispatch 1\n", "")?;
                }
                let own = folder.path().join("config");
                std::fs::write(&own, HAPROXY_GLOBAL)?;
                command.arg("-db").current_dir(folder.path()).arg("-f").arg(own).arg("-f").arg(&path);
            }
        }
        std::fs::write(&path, config)?;
        let mut process = Process::start(command.stdout(Stdio::null()))?;
        wait_until_it_listens(front, &mut process)?;
        let fronts = vec![Front { name: self.package(), address: front, passes_asterisk: self == Self::Haproxy }];
        Ok(Proxy { kind: self, process, folder, fronts, status: front })
    }

    /// What stands before a server's address, where servers have names.
    fn label(self, number: usize) -> &'static str {
        match self {
            Self::Nginx => "",
            Self::Haproxy => ["a ", "b ", "c "][number - 1],
        }
    }

    /// Starts it in front of a server, with its files in a folder of that folder.
    pub(crate) fn start(self, program: PathBuf, folder: &Path, server: SocketAddr) -> Result<Proxy> {
        let folder = tempfile::tempdir_in(folder)?;
        let [first, second, status] = free_ports()?;
        let mut command = Command::new(program);
        let (config, fronts) = match self {
            Self::Nginx => {
                command.args(["-e", "stderr", "-p"]).arg(folder.path());
                let front = |name, address| Front { name, address, passes_asterisk: false };
                let fronts = vec![front("nginx, requests buffered", first), front("nginx, requests streamed", second)];
                (nginx_config(server, first, second, status), fronts)
            }
            Self::Haproxy => {
                command.arg("-db").current_dir(folder.path());
                let front = Front { name: "HAProxy", address: first, passes_asterisk: true };
                (haproxy_config(server, first), vec![front])
            }
        };
        let path = folder.path().join("config");
        std::fs::write(&path, config)?;
        command.arg(if self == Self::Nginx { "-c" } else { "-f" }).arg(path).stdout(Stdio::null());
        let mut process = Process::start(&mut command)?;
        for front in &fronts {
            wait_until_it_listens(front.address, &mut process)?;
        }
        Ok(Proxy { kind: self, process, folder, fronts, status })
    }
}

/// Where a program lies: on the path, or where Debian keeps servers.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

impl Proxy {
    /// What it has counted so far.
    pub(crate) fn counts(&self) -> Result<Counts> {
        match self.kind {
            Kind::Nginx => self.nginx_counts(),
            Kind::Haproxy => self.haproxy_counts(),
        }
    }

    /// What it has complained of, from the line `from` of its log on: each text once, with its count.
    pub(crate) fn complaints(&self, from: usize) -> BTreeMap<String, u64> {
        let mut complaints = BTreeMap::new();
        for line in self.process.lines().iter().skip(from) {
            *complaints.entry(self.essence(line)).or_default() += 1;
        }
        complaints
    }

    /// True of a complaint that the server did something wrong.
    pub(crate) fn blames_server(&self, complaint: &str) -> bool {
        match self.kind {
            Kind::Nginx => true,
            // Else the session was ended by the client, or by nobody: it is told for its status, 500 for example.
            Kind::Haproxy => complaint.rsplit(' ').next().is_none_or(|state| !state.starts_with(['C', 'c', '-'])),
        }
    }

    /// How many lines its log has.
    pub(crate) fn log_length(&self) -> usize {
        self.process.lines().len()
    }

    /// Tells it to leave.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.terminate()?;
        self.process.end_within(HANG)?;
        Ok(())
    }

    /// nginx numbers its connections, those to clients and those to servers in one row, and counts the former.
    fn nginx_counts(&self) -> Result<Counts> {
        let mut stream = TcpStream::connect(self.status)?;
        stream.set_read_timeout(Some(HANG))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let wrong = || format!("nginx's status is not understood: {answer:?}");
        let opened = answer.lines().find_map(|line| line.strip_prefix("Connection-Number: ")).ok_or_else(wrong)?;
        let mut lines = answer.lines().skip_while(|line| !line.starts_with("server accepts"));
        let accepted = lines.nth(1).and_then(|line| line.split_whitespace().next()).ok_or_else(wrong)?;
        let complaints = self.complaints(0);
        let unsent = complaints.iter().filter(|(text, _)| text.starts_with("connect() failed")).map(|(_, count)| count);
        Ok(Counts { opened: opened.trim().parse()?, accepted: accepted.parse()?, unsent: unsent.sum() })
    }

    /// Its log is no place to count: a line is dropped when two of its threads have one at the same moment.
    fn haproxy_counts(&self) -> Result<Counts> {
        let mut stream = UnixStream::connect(self.folder.path().join("stats"))?;
        stream.set_read_timeout(Some(HANG))?;
        stream.write_all(b"show stat demo 2 -1\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let mut rows = answer.lines().map(|line| line.trim_start_matches("# ").split(','));
        let (names, values) = (rows.next().into_iter().flatten(), rows.next().into_iter().flatten());
        let columns: BTreeMap<_, _> = names.zip(values).collect();
        let column = |name| {
            let value = columns.get(name).and_then(|value| value.parse().ok());
            value.ok_or_else(|| format!("HAProxy's statistics are not understood: {answer:?}"))
        };
        Ok(Counts { opened: column("connect")?, accepted: 0, unsent: column("econ")? })
    }

    /// A line of the log without what is different in each.
    fn essence(&self, line: &str) -> String {
        let text = match self.kind {
            // 2026/01/31 12:00:00 [error] 12#12: *34 what is wrong, client: 127.0.0.1, …
            Kind::Nginx => line.split_once(": *").and_then(|(_, text)| text.split_once(' ')),
            Kind::Haproxy => None,
        };
        let text = text.map_or(line, |(_, text)| text);
        text.split(", client: ").next().unwrap_or_default().to_owned()
    }
}

/// Three loopback ports that nobody has at the moment.
fn free_ports() -> Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind("127.0.0.1:0");
    // All at once, so that they differ.
    let listeners = [listen()?, listen()?, listen()?];
    let [first, second, third] = listeners.each_ref().map(TcpListener::local_addr);
    Ok([first?, second?, third?])
}

fn wait_until_it_listens(address: SocketAddr, process: &mut Process) -> Result<()> {
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if process.has_ended()? || start.elapsed() > HANG {
            return Err(format!("the proxy does not listen on {address}: {:?}", process.lines()).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Its file of `tests/deploy`.
pub(crate) fn deployed(kind: Kind) -> &'static str {
    match kind {
        Kind::Nginx => include_str!("../../deploy/nginx.conf"),
        Kind::Haproxy => include_str!("../../deploy/haproxy.cfg"),
    }
}

const HAPROXY_GLOBAL: &str = "\
global
    nbthread 2
    maxconn 1000
    tune.bufsize 32768
    log stderr format raw local0
    stats socket unix@stats
";

/// What stands around the servers.
fn nginx_main(servers: &str) -> String {
    // Started by root, nginx would give its workers to a user who cannot read the folder.
    let user = if nix::unistd::geteuid().is_root() { "user root root;" } else { "" };
    format!(
        r#"{user}
daemon off;
worker_processes 2;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {servers}
}}
"#
    )
}

fn nginx_config(server: SocketAddr, buffered: SocketAddr, streamed: SocketAddr, status: SocketAddr) -> String {
    nginx_main(&format!(
        r#"client_max_body_size 0;
    large_client_header_buffers 8 32k;
    upstream demo {{
        server {server};
        keepalive 32;
    }}
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_next_upstream off;
    server {{
        listen {buffered};
        proxy_request_buffering on;
        location / {{ proxy_pass http://demo; }}
    }}
    server {{
        listen {streamed};
        proxy_request_buffering off;
        location / {{ proxy_pass http://demo; }}
    }}
    server {{
        listen {status};
        location / {{
            stub_status;
            add_header Connection-Number $connection;
        }}
    }}
"#
    ))
}

fn haproxy_config(server: SocketAddr, front: SocketAddr) -> String {
    format!(
        r#"{HAPROXY_GLOBAL}
defaults
    mode http
    log global
    option dontlog-normal
    log-format "%ST, session state %ts"
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    retries 0
    http-reuse always
frontend front
    bind {front}
    default_backend demo
backend demo
    server demo {server}
"#
    )
}
