//! The command: options, members, routes, exit code. With `log`, the only file that prints.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use allout::{
    Cause, Exit, Group, Inherited, LocalAddress, Method, Notice, Outcome, Request, Response, Router, Server, Stats,
    Status, Stop,
};

use crate::check;
use crate::log::{self, say};
use crate::notify::Manager;
use crate::options::{self, Command, Options, UsageError, Volume};

/// Runs the command called `name`. `extend` adds routes to the command's own.
pub(crate) fn run(name: &'static str, extend: impl FnOnce(Router) -> Router) -> ExitCode {
    let variable = |key: &str| std::env::var_os(key);
    let code = match options::read(name, std::env::args_os().skip(1), variable) {
        // Before there is any other thread.
        Ok(Command::Serve(options)) => match inherited(&options) {
            Ok(sockets) => serve(name, *options, sockets, extend),
            Err(error) => wrong_usage(name, &UsageError::of_socket(&error)),
        },
        Ok(Command::Check(address, path)) => {
            let give_up = move |problem: &str| {
                fail(name, problem);
                std::process::exit(1);
            };
            match check::check(&address, &path, give_up) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(name, error),
            }
        }
        Ok(Command::Print(text)) => {
            // It is no failure if the reader has gone (`| head` for example).
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => wrong_usage(name, &error),
    };
    log::flush();
    // Those that a thread still binds, for which nobody waits any more.
    allout::remove_socket_files();
    code
}

fn wrong_usage(name: &str, error: &UsageError) -> ExitCode {
    log::start();
    say(format_args!("{name}: {error}"));
    ExitCode::from(2)
}

/// The sockets that were handed over.
fn inherited(options: &Options) -> std::io::Result<Vec<Inherited>> {
    let mut sockets: Vec<_> = Inherited::from_environment()?.into_iter().map(|(_, socket)| socket).collect();
    if options.listens_on_stdin {
        sockets.push(stdin()?);
    }
    Ok(sockets)
}

#[cfg(unix)]
fn stdin() -> std::io::Result<Inherited> {
    Inherited::stdin()
}

#[cfg(not(unix))]
fn stdin() -> std::io::Result<Inherited> {
    Err(std::io::Error::new(std::io::ErrorKind::Unsupported, "stdin is no socket on this system"))
}

/// How many lines to print about cut-off requests, one each; one more line then says how many are left out.
const CUT_OFF_LINES_MAX: usize = 50;

thread_local! {
    /// Where this thread last panicked, until that is reported.
    static PANICKED_AT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The name of the last thread that panicked, and where. A member's thread has the member's name; another thread
/// reports what ended it.
static LAST_PANIC: Mutex<Option<(String, String)>> = Mutex::new(None);

/// The server or the group that catches a panic reports it, in one line: they know what it was doing. The hook only
/// notes where it happened.
fn note_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let who = thread::current().name().map(ToOwned::to_owned);
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = who.zip(place.clone());
        // Fails only while this thread is ending.
        let _ = PANICKED_AT.try_with(|noted| noted.replace(place));
    }));
}

fn tell(notice: &Notice<'_>) {
    let place = if matches!(notice, Notice::HandlerPanicked { .. }) { PANICKED_AT.take() } else { None };
    say(format_args!("{notice}{}", at(place)));
}

/// Where this member's thread panicked.
fn panicked_at(member: &str) -> Option<String> {
    let last = LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    last.filter(|(who, _)| who == member).map(|(_, place)| place)
}

/// The end of a line that reports a panic.
fn at(place: Option<String>) -> String {
    place.map(|place| format!(" (at {place})")).unwrap_or_default()
}

fn serve(
    name: &'static str,
    mut options: Options,
    sockets: Vec<Inherited>,
    extend: impl FnOnce(Router) -> Router,
) -> ExitCode {
    let volume = options.volume;
    log::start();
    note_panics();
    let mut group = Group::new();
    group.lame_duck(options.lame_duck);
    let stop = group.stop();
    let manager = Arc::new(Manager::from_environment(|key| std::env::var_os(key)));
    tell_of_stop(&stop, &options, &manager);
    // First of all, so that a signal stops the start-up too.
    #[cfg(feature = "signals")]
    let listening = allout::signals::install_with(&stop, || {
        say(format_args!("a second signal: leaving at once"));
        allout::remove_socket_files();
        log::flush();
        std::process::exit(130);
    });
    #[cfg(feature = "signals")]
    let signals = match listening {
        Ok(signals) => signals,
        Err(error) => return fail(name, error),
    };

    if options.listen.is_empty() && sockets.is_empty() {
        options.listen.push(options::default_address());
    }
    let server = match bind(&options, sockets, &stop) {
        Some(Ok(server)) => server.on_notice(move |notice| {
            if volume >= Volume::Verbose || !notice.is_verbose() {
                tell(notice);
            }
        }),
        Some(Err(error)) => return fail(name, error),
        // Stopped before it was bound: nothing has started, so nothing must end.
        None => return finish(volume, &Stats::default(), &group.run(options.grace)),
    };
    let stats = server.stats();
    let router = extend(routes(&stop, options.shutdown_token));
    let liveness = server.liveness();
    let server = tell_of_start(server, volume, &stop, &manager);
    group.add("http", move |stop| server.run(router, stop));
    if manager.has_watchdog() {
        group.add("watchdog", move |stop| manager.watch(&liveness, stop));
    }
    #[cfg(feature = "signals")]
    group.add("signals", move |stop| signals.run(stop));
    finish(volume, &stats, &group.run(options.grace))
}

fn tell_of_stop(stop: &Stop, options: &Options, manager: &Arc<Manager>) {
    let (volume, time, manager) = (options.volume, options.lame_duck + options.grace, Arc::clone(manager));
    stop.on_cause(move |cause| {
        if volume >= Volume::Normal {
            let place = if let Cause::Panicked { who, .. } = cause { panicked_at(who) } else { None };
            say(format_args!("stopping: {cause}{}", at(place)));
        }
        manager.stopping(cause, time);
    });
}

fn tell_of_start(server: Server, volume: Volume, stop: &Stop, manager: &Arc<Manager>) -> Server {
    let (unsaid, stop, manager) = (Cell::new(server.addresses().count()), stop.clone(), Arc::clone(manager));
    server.on_listening(move |place| {
        if volume >= Volume::Normal {
            announce(place);
        }
        unsaid.set(unsaid.get().saturating_sub(1));
        // Whoever has been told of the stop is not to hear this after it.
        if unsaid.get() == 0 && stop.cause().is_none() {
            manager.ready();
        }
    })
}

fn announce(place: &LocalAddress) {
    match place {
        LocalAddress::Tcp(address) => say(format_args!("listening on http://{address}")),
        place => say(format_args!("listening on {place}")),
    }
}

type BindResult = Result<Server, Box<dyn std::error::Error + Send + Sync>>;

/// Binds on a thread of its own, since resolving a name can take long. `None`: the stop came first, and the thread is
/// left behind.
fn bind(options: &Options, sockets: Vec<Inherited>, stop: &Stop) -> Option<BindResult> {
    let (sender, first) = mpsc::channel();
    let (listen, config, bound) = (options.listen.clone(), options.config.clone(), sender.clone());
    let thread = thread::Builder::new().name("bind".to_owned()).spawn(move || {
        let all = Server::bind(&listen, config).map_err(Into::into);
        let all = all.and_then(|server| server.and_listeners(sockets).map_err(Into::into));
        let _ = bound.send(Some(all));
    });
    if let Err(error) = thread {
        return Some(Err(format!("cannot start the thread that binds: {error}").into()));
    }
    stop.on_cause(move |_| {
        let _ = sender.send(None);
    });
    first.recv().ok().flatten()
}

/// The command's own routes.
fn routes(stop: &Stop, token: Option<String>) -> Router {
    let (ready, shutdown) = (stop.clone(), Shutdown { stop: stop.clone(), token });
    let post = shutdown.clone();
    Router::new()
        .at_once(Method::Get, "/ping", |_| Response::text("pong"))
        .at_once(Method::Get, "/livez", |_| Response::text("live\n"))
        .at_once(Method::Get, "/readyz", move |_| match ready.cause() {
            None => Response::text("ready\n"),
            Some(_) => Response::text("stopping\n").with_status(Status::SERVICE_UNAVAILABLE),
        })
        .at_once(Method::Get, "/shutdown", move |request| shutdown.answer(request))
        .at_once(Method::Post, "/shutdown", move |request| post.answer(request))
}

/// `/shutdown`, and who may call it. With a token: only its bearer. That a request comes from this machine says little
/// about its sender, since a proxy may have passed it on; so that counts only if no token is set.
#[derive(Clone)]
struct Shutdown {
    stop: Stop,
    token: Option<String>,
}

impl Shutdown {
    fn answer(&self, request: &Request<'_>) -> Response {
        let (may, who) = match &self.token {
            Some(token) => (bears(request, token), "only with the token\n"),
            None => (is_from_here(request), "only from this machine\n"),
        };
        if !may {
            return Response::text(who).with_status(Status::FORBIDDEN);
        }
        // HEAD returns what GET would return, but must not act (RFC 9110 §9.2.1).
        if request.method() == Method::Head {
            return Response::text("stopping\n");
        }
        let stop = self.stop.clone();
        Response::text("stopping\n").closing().on_sent(move || {
            stop.trigger(Cause::Request("/shutdown".to_owned()));
        })
    }
}

/// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
fn bears(request: &Request<'_>, token: &str) -> bool {
    let credentials = request.headers().get("authorization").unwrap_or_default();
    let (scheme, given) = credentials.split_at_checked("Bearer ".len()).unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"Bearer ") && is_same(given, token.as_bytes())
}

/// Compares in a time that does not reveal how much of a guess was right.
fn is_same(given: &[u8], secret: &[u8]) -> bool {
    given.len() == secret.len() && given.iter().zip(secret).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

/// True for a peer on this machine that speaks for itself. A web page does not: its requests come from this machine
/// too, but its browser says so, or names a host that is not ours (DNS rebinding), or is too old to say where a request
/// comes from. Nor does a proxy that identifies itself; one that does not cannot be told from a client.
fn is_from_here(request: &Request<'_>) -> bool {
    let headers = request.headers();
    let is_local_host = request.host().is_none_or(is_loopback);
    // A browser marks requests that it makes on a guess, while its user is still typing the address, with
    // `Sec-Purpose`.
    let is_meant = headers.get("origin").is_none() && headers.get("sec-purpose").is_none();
    let is_direct = match headers.get("sec-fetch-site") {
        Some(site) => matches!(site, b"none" | b"same-origin"),
        None => !headers.iter().any(is_of_a_browser),
    };
    let is_passed_on = || headers.iter().any(|(name, _)| is_of_a_proxy(name));
    request.peer().is_local() && is_local_host && is_direct && is_meant && !is_passed_on()
}

/// True for a field that browsers send and programs do not. An image on any page makes a browser request whatever URL
/// the page likes, and older browsers do not say so in `Sec-Fetch-Site`. But they call themselves `Mozilla/`, which no
/// page can change for an image, a frame or a form; and if one goes by another name, `Referer` shows that there was a
/// page. PowerShell calls itself `Mozilla/` too, so it needs another `-UserAgent`, or the token.
fn is_of_a_browser((name, value): (&str, &[u8])) -> bool {
    let calls_itself_one = || value.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"Mozilla/"));
    name.eq_ignore_ascii_case("referer") || (name.eq_ignore_ascii_case("user-agent") && calls_itself_one())
}

/// True for a field that proxies add: RFC 7239, RFC 9110 §7.6.3, and the fields in use before those.
fn is_of_a_proxy(name: &str) -> bool {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    starts("x-forwarded-") || ["forwarded", "via", "x-real-ip"].iter().any(|field| name.eq_ignore_ascii_case(field))
}

/// True for `localhost` and loopback addresses, with a port or without.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Reports how it ended.
fn finish(volume: Volume, stats: &Stats, outcome: &Outcome) -> ExitCode {
    let (mut is_first, mut cut_off_lines) = (true, 0);
    for (member, exit, _) in outcome.exits() {
        // The first failure is the cause, which has been reported already.
        let is_cause = match outcome.cause() {
            Some(Cause::Failed { who, .. } | Cause::Panicked { who, .. }) => {
                who == member && std::mem::take(&mut is_first)
            }
            _ => false,
        };
        match exit {
            Exit::Done => {}
            Exit::CutOff(cut_off) => {
                let left = CUT_OFF_LINES_MAX.saturating_sub(cut_off_lines);
                cut_off.details.iter().take(left).for_each(|detail| say(format_args!("cut off: {detail}")));
                cut_off_lines += cut_off.details.len();
            }
            _ if is_cause => {}
            _ => say(format_args!("{member} {exit}")),
        }
    }
    if cut_off_lines > CUT_OFF_LINES_MAX {
        say(format_args!("cut off: {} more", cut_off_lines - CUT_OFF_LINES_MAX));
    }
    if volume >= Volume::Normal || outcome.exit_code() != 0 {
        let cause = outcome.cause().map_or_else(|| "nothing to do".to_owned(), ToString::to_string);
        let (finished, cut_off) = (stats.finished_while_draining(), stats.cut_off());
        let hundredths = (outcome.took().as_millis() + 5) / 10;
        let took = format!("{}.{:02} s", hundredths / 100, hundredths % 100);
        let requests = if finished == 1 { "request" } else { "requests" };
        say(format_args!("all out: {cause}; {finished} {requests} finished while draining, {cut_off} cut off; {took}"));
    }
    ExitCode::from(outcome.exit_code())
}

fn fail(name: &str, error: impl std::fmt::Display) -> ExitCode {
    say(format_args!("{name}: {error}"));
    ExitCode::from(1)
}
