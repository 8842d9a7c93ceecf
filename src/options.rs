//! The command line and the environment, read into [`Options`]. The command line wins.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use allout::{Address, Config};

/// What the user asked the command to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve.
    Serve(Box<Options>),
    /// Ask the server at this address for this path, and leave.
    Check(Address, String),
    /// Print this text and leave.
    Print(String),
}

/// How to serve.
#[derive(Debug)]
pub(crate) struct Options {
    /// Where to listen, beside the sockets that were handed over; if there is neither, see [`Options::complete`].
    pub(crate) listen: Vec<Address>,
    /// Where the admin listener is; if empty, there is none.
    pub(crate) admin: Vec<Address>,
    /// Standard input is a listening socket.
    pub(crate) listens_on_stdin: bool,
    /// The server's limits.
    pub(crate) config: Config,
    /// The deadline for draining.
    pub(crate) grace: Duration,
    /// How long to keep serving, while not ready, before draining.
    pub(crate) lame_duck: Duration,
    /// Lets only its bearer call `/shutdown`.
    pub(crate) shutdown_token: Option<String>,
    /// How much to print.
    pub(crate) volume: Volume,
}

/// How much to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Volume {
    /// What went wrong.
    Quiet,
    /// Start, stop, and what went wrong.
    Normal,
    /// Refused requests too.
    Verbose,
}

/// What is wrong with the command line or the environment: one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(String);

impl UsageError {
    /// A socket was handed over that is none.
    pub(crate) fn of_socket(error: &std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (try --help)", self.0)
    }
}

impl std::error::Error for UsageError {}

/// Every option that takes a value, with its environment variable.
const VALUED: [(&str, &str); 9] = [
    ("--listen", "ALLOUT_LISTEN"),
    ("--admin", "ALLOUT_ADMIN"),
    ("--grace", "ALLOUT_GRACE"),
    ("--idle-grace", "ALLOUT_IDLE_GRACE"),
    ("--lame-duck", "ALLOUT_LAME_DUCK"),
    ("--loops", "ALLOUT_LOOPS"),
    ("--threads", "ALLOUT_THREADS"),
    ("--max-connections", "ALLOUT_MAX_CONNECTIONS"),
    ("--shutdown-token", "ALLOUT_SHUTDOWN_TOKEN"),
];

/// The greatest count allowed: more is a typing error.
const COUNT_MAX: usize = 10_000_000;
const THREADS_MAX: usize = 10_000;
const SECONDS_MAX: u64 = 1_000_000;

fn help(name: &str) -> String {
    format!(
        "\
One out, all out: a small HTTP/1.1 server that loses no request when it stops.

Usage: {name} [OPTIONS]

  --listen ADDR           HOST:PORT, :PORT, unix:PATH or stdin; repeatable       [127.0.0.1:8080]
  --admin ADDR            /livez /readyz /shutdown /metrics /status there alone; repeatable
  --grace SECONDS         deadline for draining                                  [3]
  --idle-grace SECONDS    how long a quiet connection is kept while draining     [0.25]
  --lame-duck SECONDS     keep serving, not ready, before draining               [0]
  --loops N               event loops                                            [one per core]
  --threads N             most worker threads                                    [64]
  --max-connections N     most connections at once                               [10000]
  --shutdown-token TOKEN  lets whoever bears it call /shutdown, and nobody else
  --check ADDR[/PATH]     ask a running server: exit 0 if it answers 200, else 1 [/readyz]
  --quiet                 say only what goes wrong
  --verbose               tell of refused requests too
  --help, --version

With a token only its bearer may call /shutdown; without, clients on this machine may. A proxy is such a client. The
same may see /metrics and /status, which tell who asks for what; with --admin, whoever reaches that address may.

`--listen stdin`: standard input is a listening socket, as of systemd's StandardInput=socket. The sockets that a service
manager hands over (LISTEN_FDS) are served too; the default address is not, if there is any of these. A manager with a
NOTIFY_SOCKET is told of start and stop, and for its watchdog that every event loop responds.

Each option but --check can be set by the environment: ALLOUT_LISTEN, ALLOUT_ADMIN (separated by commas), ALLOUT_GRACE
and so on; ALLOUT_QUIET=1. Prefer it for the token: a command line is seen by every user of the machine.

Exit codes: 0 all out in time, 1 a member failed, 2 wrong usage, 101 a member panicked, 124 at the deadline an answer
was cut off or somebody still ran, 130 forced by a second Ctrl-C. Of --check: 0 the answer was 200, 1 it was not or none
came within 3 s.
"
    )
}

/// Reads the arguments (without the program's name), then the environment for the options that they do not set. A
/// variable that an option overrides is not checked.
///
/// # Errors
///
/// [`UsageError`], for the first thing wrong.
pub(crate) fn read(
    name: &str,
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let mut options = Options::new();
    let (mut given, mut is_volume_given, mut check) = (Vec::new(), false, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        // What is not UTF-8 is refused only once its option is known, so that the message can name it.
        let lossy = argument.to_string_lossy();
        let (option, joined) = match lossy.split_once('=') {
            Some((option, value)) if option.starts_with('-') => (option, Some(value)),
            _ => (&*lossy, None),
        };
        match option {
            "--help" | "-h" | "--version" | "-V" | "--quiet" | "-q" | "--verbose" | "-v" if joined.is_some() => {
                return Err(UsageError(format!("{option} takes no value")));
            }
            "--help" | "-h" => return Ok(Command::Print(help(name))),
            "--version" | "-V" => return Ok(Command::Print(format!("{name} {}\n", env!("CARGO_PKG_VERSION")))),
            "--quiet" | "-q" => (options.volume, is_volume_given) = (Volume::Quiet, true),
            "--verbose" | "-v" => (options.volume, is_volume_given) = (Volume::Verbose, true),
            _ => {
                let mut known = VALUED.into_iter().map(|(known, _)| known).chain(["--check"]);
                let Some(option) = known.find(|known| *known == option) else {
                    let kind = if option.starts_with('-') { "option" } else { "argument" };
                    return Err(UsageError(format!("unknown {kind} `{option}`")));
                };
                let value = match joined {
                    Some(_) if argument.to_str().is_none() => return Err(not_text(option)),
                    Some(value) => value.to_owned(),
                    None => {
                        let value = arguments.next().ok_or_else(|| UsageError(format!("{option} needs a value")))?;
                        value.into_string().map_err(|_| not_text(option))?
                    }
                };
                if option == "--check" {
                    check = Some(target(&value)?);
                    continue;
                }
                options.set(option, option, &value)?;
                given.push(option);
            }
        }
    }
    if let Some((address, path)) = check {
        return Ok(Command::Check(address, path));
    }
    options.read_environment(variable, &given, is_volume_given)?;
    Ok(Command::Serve(Box::new(options)))
}

impl Options {
    fn new() -> Self {
        Self {
            listen: Vec::new(),
            admin: Vec::new(),
            listens_on_stdin: false,
            config: Config::default(),
            grace: allout::GRACE,
            lame_duck: Duration::ZERO,
            shutdown_token: None,
            volume: Volume::Normal,
        }
    }

    /// Reads the variables of all options that were not `given`.
    fn read_environment(
        &mut self,
        variable: impl Fn(&str) -> Option<OsString>,
        given: &[&str],
        is_volume_given: bool,
    ) -> Result<(), UsageError> {
        // A variable set to nothing counts as not set.
        let text = |key: &str| {
            let value = variable(key).filter(|value| !value.is_empty());
            value.map(|value| value.into_string().map_err(|_| not_text(key))).transpose()
        };
        for (option, key) in VALUED.into_iter().filter(|(option, _)| !given.contains(option)) {
            let Some(value) = text(key)? else { continue };
            // An option can be repeated, a variable cannot: it holds a list.
            let values = if matches!(option, "--listen" | "--admin") {
                value.split(',').map(str::trim).collect()
            } else {
                vec![&*value]
            };
            values.into_iter().try_for_each(|value| self.set(option, key, value))?;
        }
        if is_volume_given {
            return Ok(());
        }
        for (key, volume) in [("ALLOUT_QUIET", Volume::Quiet), ("ALLOUT_VERBOSE", Volume::Verbose)] {
            match text(key)?.as_deref() {
                None | Some("0") => {}
                Some("1") => self.volume = volume,
                Some(value) => return Err(UsageError(format!("bad value `{value}` for {key}: 0 or 1 is wanted"))),
            }
        }
        Ok(())
    }

    /// Listens on the default address if there is no other, and not on these `sockets` either.
    ///
    /// # Errors
    ///
    /// An address is both public and the admin listener's.
    pub(crate) fn complete(&mut self, sockets: usize) -> Result<(), UsageError> {
        if self.listen.is_empty() && sockets == 0 {
            self.listen.push(Address::Tcp { host: "127.0.0.1".to_owned(), port: 8080 });
        }
        let is_public = |admin: &&Address| self.listen.iter().any(|public| overlap(admin, public));
        match self.admin.iter().find(is_public) {
            Some(admin) => Err(UsageError(format!("--admin: `{admin}` is a public address"))),
            None => Ok(()),
        }
    }

    /// Sets one option. `origin` is its name as the user wrote it: the option or the variable.
    fn set(&mut self, option: &str, origin: &str, value: &str) -> Result<(), UsageError> {
        match option {
            "--listen" if value == "stdin" => self.listens_on_stdin = true,
            "--listen" | "--admin" => {
                let address = value.parse().map_err(|error| UsageError(format!("{origin}: {error}")))?;
                if option == "--admin" { &mut self.admin } else { &mut self.listen }.push(address);
            }
            "--grace" => self.grace = seconds(origin, value)?,
            "--idle-grace" => self.config.idle_grace = seconds(origin, value)?,
            "--lame-duck" => self.lame_duck = seconds(origin, value)?,
            "--loops" => self.config.loops = count(origin, value, THREADS_MAX)?,
            "--threads" => self.config.handlers_max = count(origin, value, THREADS_MAX)?,
            "--max-connections" => self.config.connections_max = count(origin, value, COUNT_MAX)?,
            _ if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) => {
                return Err(UsageError(format!("bad value for {origin}: a token is visible ASCII without spaces")));
            }
            _ => self.shutdown_token = Some(value.to_owned()),
        }
        Ok(())
    }
}

/// True if both cannot be listened on, as far as their texts tell. The system chooses a port for 0 that is free.
fn overlap(one: &Address, other: &Address) -> bool {
    let (Address::Tcp { host: one, port }, Address::Tcp { host: other, port: other_port }) = (one, other) else {
        return one == other;
    };
    let is_same = match (one.parse::<IpAddr>(), other.parse::<IpAddr>()) {
        (Ok(one), Ok(other)) => {
            one == other || one.is_ipv4() == other.is_ipv4() && (one.is_unspecified() || other.is_unspecified())
        }
        _ => one.eq_ignore_ascii_case(other),
    };
    *port != 0 && port == other_port && (is_same || one.is_empty() || other.is_empty())
}

/// An address, and the path of a request. The path of a Unix socket's file may hold both: only the file system tells.
fn target(value: &str) -> Result<(Address, String), UsageError> {
    let end = if value.starts_with("unix:") { None } else { value.find('/') };
    let (address, path) = value.split_at(end.unwrap_or(value.len()));
    if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(UsageError(format!("bad value `{value}` for --check: visible ASCII without spaces is wanted")));
    }
    let address = address.parse().map_err(|error| UsageError(format!("--check: {error}")))?;
    Ok((address, path.to_owned()))
}

/// Does not repeat the value: it could only be shown garbled, and it may be a token.
fn not_text(origin: &str) -> UsageError {
    UsageError(format!("bad value for {origin}: it is not UTF-8"))
}

fn count(origin: &str, value: &str, max: usize) -> Result<usize, UsageError> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| is_number && (1..=max).contains(number));
    number.ok_or_else(|| UsageError(format!("bad value `{value}` for {origin}: a number from 1 to {max} is wanted")))
}

/// Decimal seconds, to the nanosecond. Read without floating point: the binary would carry that code for this alone.
fn seconds(origin: &str, value: &str) -> Result<Duration, UsageError> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let is_number = !(whole.is_empty() && fraction.is_empty())
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    let whole = if whole.is_empty() { Some(0) } else { whole.parse().ok() };
    let duration = whole.filter(|_| is_number).map(|whole| {
        let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
        Duration::new(whole, digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0')))
    });
    duration.filter(|duration| *duration <= Duration::from_secs(SECONDS_MAX)).ok_or_else(|| {
        UsageError(format!("bad value `{value}` for {origin}: seconds from 0 to {SECONDS_MAX} are wanted"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_with(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Options, String> {
        let arguments = arguments.iter().map(OsString::from);
        let variable = |key: &str| environment.iter().find(|(have, _)| *have == key).map(|(_, v)| OsString::from(v));
        match read("allout", arguments, variable) {
            Ok(Command::Serve(options)) => Ok(*options),
            Ok(Command::Print(text)) => Err(text),
            Ok(Command::Check(address, path)) => Err(format!("check {address} {path}")),
            Err(error) => Err(error.to_string()),
        }
    }

    fn listen(options: &Options) -> Vec<String> {
        options.listen.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn defaults() {
        let mut options = read_with(&[], &[]).expect("nothing is wrong");
        assert!(options.listen.is_empty() && options.admin.is_empty() && !options.listens_on_stdin);
        assert_eq!(options.complete(1), Ok(()));
        assert!(options.listen.is_empty());
        assert_eq!(options.complete(0), Ok(()));
        assert_eq!(listen(&options), ["127.0.0.1:8080"]);
        assert_eq!(options.grace, Duration::from_secs(3));
        assert_eq!(options.config.idle_grace, Duration::from_millis(250));
        assert_eq!(options.config.handlers_max, 64);
        assert_eq!(options.config.connections_max, 10_000);
        assert_eq!(options.volume, Volume::Normal);
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let environment =
            [("ALLOUT_LISTEN", ":1,:2"), ("ALLOUT_GRACE", "9"), ("ALLOUT_LOOPS", "7"), ("ALLOUT_QUIET", "1")];
        let options = read_with(&[], &environment).expect("nothing is wrong");
        assert_eq!(listen(&options), [":1", ":2"]);
        assert_eq!((options.grace, options.config.loops), (Duration::from_secs(9), 7));
        assert_eq!(options.volume, Volume::Quiet);
        let arguments = ["--listen", ":3", "--listen=unix:/a", "--grace=0.5", "--verbose", "--shutdown-token", "x"];
        let options = read_with(&arguments, &environment).expect("nothing is wrong");
        assert_eq!(listen(&options), [":3", "unix:/a"]);
        assert_eq!((options.grace, options.config.loops), (Duration::from_millis(500), 7));
        assert_eq!(options.volume, Volume::Verbose);
        assert_eq!(options.shutdown_token.as_deref(), Some("x"));
    }

    #[test]
    fn a_comma_in_an_option_is_part_of_a_path_and_in_the_variable_stands_between_addresses() {
        let options = read_with(&["--listen", "unix:/a,b"], &[]).expect("nothing is wrong");
        assert_eq!(listen(&options), ["unix:/a,b"]);
        let options = read_with(&[], &[("ALLOUT_LISTEN", "unix:/a, :1")]).expect("nothing is wrong");
        assert_eq!(listen(&options), ["unix:/a", ":1"]);
        let options = read_with(&[], &[("ALLOUT_LISTEN", "stdin, :1")]).expect("nothing is wrong");
        assert_eq!((listen(&options), options.listens_on_stdin), (vec![":1".to_owned()], true));
    }

    #[test]
    fn a_bad_variable_that_is_overridden_is_not_looked_at() {
        for (option, key) in VALUED {
            let value = if matches!(option, "--listen" | "--admin") { ":1" } else { "1" };
            read_with(&[option, value], &[(key, "no good")]).expect(option);
        }
        for option in ["--quiet", "--verbose"] {
            read_with(&[option], &[("ALLOUT_QUIET", "no good"), ("ALLOUT_VERBOSE", "no good")]).expect(option);
        }
        for option in ["--help", "--version"] {
            let printed = read_with(&[option], &[("ALLOUT_GRACE", "no good")]).expect_err("a text");
            assert!(printed.contains("allout"), "{printed}");
        }
    }

    #[test]
    fn no_address_is_public_and_the_admins() {
        for (public, admin, is_wrong) in [
            (":80", ":80", true),
            (":80", "0.0.0.0:80", true),
            (":80", "[::]:80", true),
            (":80", "127.0.0.1:80", true),
            ("0.0.0.0:80", ":80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("[::1]:80", "[::]:80", true),
            ("[0:0::1]:80", "[::1]:80", true),
            ("localhost:80", "LocalHost:80", true),
            ("unix:/a", "unix:/a", true),
            (":80", ":81", false),
            (":0", ":0", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", ":80", false),
        ] {
            let environment = [("ALLOUT_ADMIN", format!("unix:/other, {admin}"))];
            let environment = [(environment[0].0, &*environment[0].1)];
            let mut options = read_with(&["--listen", ":1", "--listen", public], &environment).expect(public);
            let complete = options.complete(0).map_err(|error| error.to_string());
            let wanted =
                if is_wrong { Err(format!("--admin: `{admin}` is a public address (try --help)")) } else { Ok(()) };
            assert_eq!(complete, wanted, "{public} {admin}");
        }
        let mut options = read_with(&["--admin", "127.0.0.1:8080"], &[]).expect("an address");
        assert_eq!(options.complete(1), Ok(()), "a socket that was handed over");
        assert!(options.complete(0).is_err(), "the default one");
    }

    #[test]
    fn whom_to_check_is_an_address_and_a_path_if_there_is_one() {
        for (value, read) in [
            ("127.0.0.1:80", "check 127.0.0.1:80 "),
            (":80/", "check :80 /"),
            ("[::1]:80/a/b", "check [::1]:80 /a/b"),
            ("unix:/a/b", "check unix:/a/b "),
        ] {
            // It serves nothing, so what else is said of serving is no matter.
            let found = read_with(&["--check", value, "--grace", "1"], &[("ALLOUT_LOOPS", "no good")]);
            assert_eq!(found.expect_err("not serving"), read);
        }
    }

    #[test]
    fn seconds_are_decimal() {
        for (value, seconds, nanos) in [
            ("0", 0, 0),
            ("0.25", 0, 250_000_000),
            (".5", 0, 500_000_000),
            ("5.", 5, 0),
            ("007.000000001", 7, 1),
            ("1.9999999999", 1, 999_999_999),
            ("1000000.0", 1_000_000, 0),
        ] {
            let options = read_with(&["--grace", value], &[]).expect(value);
            assert_eq!(options.grace, Duration::new(seconds, nanos), "{value}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (arguments, named) in [
            (&["--port"][..], "unknown option `--port`"),
            (&["8080"], "unknown argument `8080`"),
            (&["a=b"], "unknown argument `a=b`"),
            (&["--port=80"], "unknown option `--port`"),
            (&["--quiet=1"], "--quiet takes no value"),
            (&["-v="], "-v takes no value"),
            (&["--help=listen"], "--help takes no value"),
            (&["--listen", ":1,:2"], "bad address `:1,:2`"),
            (&["--listen"], "--listen needs a value"),
            (&["--listen", "x"], "bad address `x`"),
            (&["--grace", "-1"], "bad value `-1` for --grace"),
            (&["--grace", "inf"], "bad value `inf` for --grace"),
            (&["--grace", "1e3"], "bad value `1e3` for --grace"),
            (&["--grace", "."], "bad value `.` for --grace"),
            (&["--grace", "1.2.3"], "bad value `1.2.3` for --grace"),
            (&["--grace", "1000000.1"], "bad value `1000000.1` for --grace"),
            (&["--grace", "99999999999999999999"], "bad value `99999999999999999999` for --grace"),
            (&["--grace", ""], "bad value `` for --grace"),
            (&["--idle-grace", "9999999"], "bad value `9999999` for --idle-grace"),
            (&["--loops", "0"], "bad value `0` for --loops"),
            (&["--threads", "+5"], "bad value `+5` for --threads"),
            (&["--max-connections=many"], "bad value `many` for --max-connections"),
            (&["--shutdown-token", "a b"], "bad value for --shutdown-token"),
        ] {
            let error = read_with(arguments, &[]).expect_err(named);
            assert!(error.contains(named) && error.lines().count() == 1, "{error}");
        }
        let error = read_with(&[], &[("ALLOUT_LOOPS", "x")]).expect_err("no number");
        assert!(error.contains("ALLOUT_LOOPS"), "{error}");
    }
}
