//! What the servers are asked.

use std::net::SocketAddr;

pub const IDLE: usize = 10_000;
pub const SLEEPERS: u32 = 12;
/// Of the long response and the long body.
pub const LONG_BYTES: usize = 64 * 1024;

/// The routes that every server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /ping`: `pong`.
    Ping,
    /// `GET /sleep`: blocks for 170 ms.
    Sleep,
    /// `GET /bytes`: 64 KiB.
    Bytes,
    /// `POST /length`: how long the body is.
    Length,
}

/// Who is connected besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    Nobody,
    /// Connections that have asked once, and rest.
    Idle,
    /// Clients that ask for `/sleep` again and again.
    Sleepers,
}

#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// As the filter and the tables have it.
    pub name: &'static str,
    pub about: &'static str,
    pub route: Route,
    pub connections: u32,
    /// Requests that are sent in one piece.
    pub pipelined: usize,
    /// A connection for each request.
    pub closes: bool,
    pub company: Company,
}

const PING: Workload = Workload {
    name: "",
    about: "",
    route: Route::Ping,
    connections: 64,
    pipelined: 1,
    closes: false,
    company: Company::Nobody,
};

pub const WORKLOADS: [Workload; 9] = [
    Workload { name: "one", about: "keep-alive, 1 connection", connections: 1, ..PING },
    Workload { name: "64", about: "keep-alive, 64 connections", ..PING },
    Workload { name: "512", about: "keep-alive, 512 connections", connections: 512, ..PING },
    Workload { name: "pipelined", about: "16 pipelined, 64 connections", pipelined: 16, ..PING },
    Workload {
        name: "close",
        about: "a connection for each request, 16 at once",
        connections: 16,
        closes: true,
        ..PING
    },
    Workload { name: "idle", about: "64 connections beside 10,000 idle ones", company: Company::Idle, ..PING },
    Workload { name: "sleepers", about: "64 beside 12 whose handler sleeps", company: Company::Sleepers, ..PING },
    Workload { name: "bytes", about: "a response of 64 KiB, 64 connections", route: Route::Bytes, ..PING },
    Workload { name: "body", about: "a request body of 64 KiB, 64 connections", route: Route::Length, ..PING },
];

impl Route {
    pub fn path(self) -> &'static str {
        match self {
            Self::Ping => "/ping",
            Self::Sleep => "/sleep",
            Self::Bytes => "/bytes",
            Self::Length => "/length",
        }
    }

    /// Bytes of the answer's body.
    pub fn answer_bytes(self) -> usize {
        match self {
            Self::Ping => "pong".len(),
            Self::Sleep => "slept".len(),
            Self::Bytes => LONG_BYTES,
            Self::Length => LONG_BYTES.to_string().len(),
        }
    }
}

impl Workload {
    /// One request, as `wrk` writes it, but for the order of the fields.
    pub fn request(&self, address: SocketAddr) -> String {
        let (method, length, body) = match self.route {
            Route::Length => ("POST", format!("Content-Length: {LONG_BYTES}\r\n"), "x".repeat(LONG_BYTES)),
            _ => ("GET", String::new(), String::new()),
        };
        let close = if self.closes { "Connection: close\r\n" } else { "" };
        format!("{method} {} HTTP/1.1\r\nHost: {address}\r\n{length}{close}\r\n{body}", self.route.path())
    }

    /// What `wrk` must be told; empty if its default will do. The requests are made once, when it starts.
    pub fn script(&self) -> String {
        let mut script = String::new();
        if self.route == Route::Length {
            script += &format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {LONG_BYTES})\n");
        }
        if self.closes {
            script += "wrk.headers[\"Connection\"] = \"close\"\n";
        }
        if self.pipelined > 1 {
            script += "function init()\n    local one = wrk.format()\n";
            script += &format!("    wrk.format = function() return string.rep(one, {}) end\nend\n", self.pipelined);
        }
        script
    }
}
