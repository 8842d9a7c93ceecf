//! The command line.

use std::path::PathBuf;

use crate::Result;
use crate::proxy::Kind;

pub(crate) const HELP: &str = "\
allout's example `demo` behind real proxies: requests of mixed kinds, restarts under load, a browser.

Usage: cargo run --release --manifest-path tests/proxies/Cargo.toml -- [OPTIONS]

  --requests N            requests through each way into a proxy; nginx has two; 0 for none       [100000]
  --proxy nginx|haproxy|all                                                                       [all]
  --clients N             keep-alive connections at once                                          [16]
  --seed S                of the requests                                                         [1]
  --restarts N            restarts of the server under load, behind each way in                   [20]
  --handovers N           of a listening socket, under load: N of each of three ways              [0]
  --rolling SECONDS       restarts of three replicas behind each proxy, with tests/deploy's files [0]
  --no-retries            the same, but the proxy tries nothing again: what is lost then is told, and is no fault
                          of nginx's, which does not ask for /readyz
  --browser               Chromium fetches a page, directly and through each way
  --demo PATH             the release build of the example; built here otherwise

Exit codes: 0 all that was asked for ran and was right, 1 something was wrong, 2 wrong usage, 3 nothing was wrong,
but something was skipped.
";

/// What to do.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) requests: u64,
    pub(crate) proxies: Vec<Kind>,
    pub(crate) clients: u64,
    pub(crate) seed: u64,
    pub(crate) restarts: u64,
    pub(crate) handovers: u64,
    pub(crate) rolling: u64,
    pub(crate) retries: bool,
    pub(crate) browser: bool,
    pub(crate) demo: Option<PathBuf>,
}

/// Reads the arguments. `None`: help is asked for.
pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>> {
    let mut options = Options {
        requests: 100_000,
        proxies: vec![Kind::Nginx, Kind::Haproxy],
        clients: 16,
        seed: 1,
        restarts: 20,
        handovers: 0,
        rolling: 0,
        retries: true,
        browser: false,
        demo: None,
    };
    while let Some(option) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
        let number = |text: String| text.parse::<u64>().map_err(|error| format!("bad value `{text}`: {error}"));
        match option.as_str() {
            "--help" => return Ok(None),
            "--requests" => options.requests = number(value()?)?,
            "--clients" => options.clients = number(value()?)?.clamp(1, 500),
            "--seed" => options.seed = number(value()?)?,
            "--restarts" => options.restarts = number(value()?)?,
            "--handovers" => options.handovers = number(value()?)?,
            "--rolling" => options.rolling = number(value()?)?,
            "--no-retries" => options.retries = false,
            "--browser" => options.browser = true,
            "--demo" => options.demo = Some(value()?.into()),
            "--proxy" => {
                options.proxies = match value()?.as_str() {
                    "nginx" => vec![Kind::Nginx],
                    "haproxy" => vec![Kind::Haproxy],
                    "all" => vec![Kind::Nginx, Kind::Haproxy],
                    other => return Err(format!("unknown proxy `{other}`").into()),
                }
            }
            _ => return Err(format!("unknown option `{option}`").into()),
        }
    }
    Ok(Some(options))
}
