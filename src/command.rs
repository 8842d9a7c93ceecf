//! The command: options, members, routes, exit code. With `log`, the only file that prints.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use allout::{Cause, Exit, Group, Inherited, LocalAddress, MemberResult, Notice, Outcome, Router, Server, Stats, Stop};

use crate::admin::{self, Admin};
use crate::check;
use crate::log::{self, say};
use crate::notify::Manager;
use crate::options::{self, Command, Options, UsageError, Volume};
use crate::routes::{self, Access};
use crate::status::Overview;
use crate::threads;

/// Runs the command called `name`. `extend` adds routes to the command's own.
pub(crate) fn run(name: &'static str, extend: impl FnOnce(Router) -> Router) -> ExitCode {
    let variable = |key: &str| std::env::var_os(key);
    let code = match options::read(name, std::env::args_os().skip(1), variable) {
        // Before there is any other thread.
        Ok(Command::Serve(mut options)) => match complete(&mut options) {
            Ok(sockets) => serve(name, *options, sockets, extend),
            Err(error) => wrong_usage(name, &error),
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

/// What can only be decided once the sockets are known that were handed over: returns these.
fn complete(options: &mut Options) -> Result<Vec<Inherited>, UsageError> {
    let sockets = inherited(options).map_err(|error| UsageError::of_socket(&error))?;
    options.complete(sockets.len())?;
    Ok(sockets)
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
    options: Options,
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

    let (server, admin) = match bind(&options, sockets, &stop) {
        Some(Ok((server, admin))) => (tell_of_notices(server, volume), admin),
        Some(Err(error)) => return fail(name, error),
        // Stopped before it was bound: nothing has started, so nothing must end.
        None => return finish(volume, &Stats::default(), &group.run(options.grace), None),
    };
    let stats = server.stats();
    let liveness: Vec<_> = std::iter::once(&server).chain(&admin).map(Server::liveness).collect();
    let overview = Overview::new(stats.clone(), &stop, options.lame_duck, options.grace);
    let access = Access { token: options.shutdown_token, is_admin: admin.is_some() };
    let (router, admin) = match operate(routes::ping(), admin, volume, &overview, access) {
        Ok((router, admin)) => (router, admin.map(|admin| (admin, &*overview))),
        Err(error) => return fail(name, error),
    };
    let router = extend(router);
    tell_of_half_grace(&mut group, volume, &overview, &manager);
    let server = tell_of_start(server, volume, &stop, &manager);
    add(&mut group, &overview, "http", move |stop| server.run(router, stop));
    if manager.has_watchdog() {
        add(&mut group, &overview, "watchdog", move |stop| manager.watch(&liveness, stop));
    }
    #[cfg(feature = "signals")]
    add(&mut group, &overview, "signals", move |stop| signals.run(stop));
    finish(volume, &stats, &group.run(options.grace), admin)
}

/// Adds a member that `/status` shows.
fn add(
    group: &mut Group,
    overview: &Arc<Overview>,
    name: &'static str,
    body: impl FnOnce(&Stop) -> MemberResult + Send + 'static,
) {
    let here = overview.enter(name);
    group.add(name, move |stop| {
        let _here = here;
        body(stop)
    });
}

/// Adds the routes for those who run the command: to the public ones, unless there is an admin listener, which then
/// serves.
fn operate(
    public: Router,
    admin: Option<Server>,
    volume: Volume,
    overview: &Arc<Overview>,
    access: Access,
) -> Result<(Router, Option<Admin>), String> {
    let Some(server) = admin else { return Ok((routes::operating(public, overview, access), None)) };
    let router = routes::operating(Router::new(), overview, access);
    let server = tell_of_notices(server, volume).on_listening(move |place| {
        if volume >= Volume::Normal {
            announce("admin", place);
        }
    });
    let admin = Admin::start(server, router, overview.stop());
    Ok((public, Some(admin.map_err(|error| format!("cannot start a thread: {error}"))?)))
}

fn tell_of_notices(server: Server, volume: Volume) -> Server {
    server.on_notice(move |notice| {
        if volume >= Volume::Verbose || !notice.is_verbose() {
            tell(notice);
        }
    })
}

fn tell_of_half_grace(group: &mut Group, volume: Volume, overview: &Arc<Overview>, manager: &Arc<Manager>) {
    let (overview, manager) = (Arc::clone(overview), Arc::clone(manager));
    group.on_half_grace(move |members| {
        let line = overview.still_here(members);
        if volume >= Volume::Normal {
            say(format_args!("{line}"));
        }
        manager.status(&line);
    });
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
            announce("listening", place);
        }
        unsaid.set(unsaid.get().saturating_sub(1));
        // Whoever has been told of the stop is not to hear this after it.
        if unsaid.get() == 0 && stop.cause().is_none() {
            manager.ready();
        }
    })
}

fn announce(what: &str, place: &LocalAddress) {
    let scheme = if matches!(place, LocalAddress::Tcp(_)) { "http://" } else { "" };
    say(format_args!("{what} on {scheme}{place}"));
}

/// The public server, and that of the admin listener.
type BindResult = Result<(Server, Option<Server>), Box<dyn std::error::Error + Send + Sync>>;

/// What the thread that binds has come to, or the stop; whichever is first.
#[derive(Default)]
struct Binding {
    first: Mutex<Option<Option<BindResult>>>,
    changed: Condvar,
}

impl Binding {
    fn put(&self, result: Option<BindResult>) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(result);
        self.changed.notify_all();
    }

    fn wait(&self) -> Option<BindResult> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match first.take() {
                Some(result) => return result,
                None => first = self.changed.wait(first).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Binds on a thread of its own, since resolving a name can take long. `None`: the stop came first, and the thread is
/// left behind.
fn bind(options: &Options, sockets: Vec<Inherited>, stop: &Stop) -> Option<BindResult> {
    let (listen, admin, config) = (options.listen.clone(), options.admin.clone(), options.config.clone());
    let bind = move || -> BindResult {
        let server = Server::bind(&listen, config)?.and_listeners(sockets)?;
        let admin = if admin.is_empty() { None } else { Some(Server::bind(&admin, admin::config())?) };
        Ok((server, admin))
    };
    let bound = Arc::new(Binding::default());
    let (binder, stopper) = (Arc::clone(&bound), Arc::clone(&bound));
    if let Err(error) = threads::start("bind", Box::new(move || binder.put(Some(bind())))) {
        return Some(Err(format!("cannot start the thread that binds: {error}").into()));
    }
    stop.on_cause(move |_| stopper.put(None));
    bound.wait()
}

/// Reports how it ended, on the pages of the admin listener too, and ends that.
fn finish(volume: Volume, stats: &Stats, outcome: &Outcome, admin: Option<(Admin, &Overview)>) -> ExitCode {
    let mut code = outcome.exit_code();
    say_exits(outcome);
    let line = last_line(stats, outcome);
    if let Some((admin, overview)) = admin {
        overview.end(&line);
        let end = admin.end();
        // What it had to cut off was not owed to anybody; what went wrong is no less so than elsewhere.
        let wrong = end
            .iter()
            .flat_map(Outcome::exits)
            .find(|(_, exit, _)| matches!(exit, Exit::Failed(_) | Exit::Panicked(_)));
        match wrong {
            Some((_, exit, _)) if matches!(code, 0 | 124) => {
                say(format_args!("admin {exit}"));
                code = end.as_ref().map_or(code, Outcome::exit_code);
            }
            _ => {}
        }
    }
    if volume >= Volume::Normal || code != 0 {
        say(format_args!("{line}"));
    }
    ExitCode::from(code)
}

fn say_exits(outcome: &Outcome) {
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
}

fn last_line(stats: &Stats, outcome: &Outcome) -> String {
    let cause = outcome.cause().map_or_else(|| "nothing to do".to_owned(), ToString::to_string);
    let (finished, cut_off) = (stats.finished_while_draining(), stats.cut_off());
    let took = outcome.took() + Duration::from_millis(5);
    let took = format!("{}.{:02} s", took.as_secs(), took.subsec_millis() / 10);
    let requests = if finished == 1 { "request" } else { "requests" };
    format!("all out: {cause}; {finished} {requests} finished while draining, {cut_off} cut off; {took}")
}

fn fail(name: &str, error: impl std::fmt::Display) -> ExitCode {
    say(format_args!("{name}: {error}"));
    ExitCode::from(1)
}
