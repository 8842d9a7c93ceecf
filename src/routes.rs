//! The command's own routes, and who may call which.
//!
//! | route | on the public listener | on the admin listener |
//! |---|---|---|
//! | `/ping` | everybody | not there |
//! | `/livez`, `/readyz` | everybody, unless there is an admin listener | everybody |
//! | `/shutdown` | whoever [may](Access), unless there is an admin listener | whoever may |
//! | `/metrics`, `/status` | the same: they tell who asks for what | everybody |
//!
//! With an admin listener, the public one answers 404 for all but `/ping`. All but `/status` are answered at once. So
//! is that on the admin listener, except as a stream of events; on the public one it must not be, since it waits until
//! that server's own event loops tell of their handlers.

use std::net::IpAddr;
use std::sync::Arc;

use allout::{Cause, Handler, Method, Request, Response, Router, Status};

use crate::status::Overview;

/// The public listener's own route.
pub(crate) fn ping() -> Router {
    Router::new().at_once(Method::Get, "/ping", |_| Response::text("pong"))
}

/// Adds the routes for those who run the command.
pub(crate) fn operating(router: Router, overview: &Arc<Overview>, access: Access) -> Router {
    let access = Arc::new(access);
    let route = |what| Operating { what, overview: Arc::clone(overview), access: Arc::clone(&access) };
    router
        .route(Method::Get, "/livez", route(What::Live))
        .route(Method::Get, "/readyz", route(What::Ready))
        .route(Method::Get, "/shutdown", route(What::Shutdown))
        .route(Method::Post, "/shutdown", route(What::Shutdown))
        .route(Method::Get, "/metrics", route(What::Metrics))
        .route(Method::Get, "/status", route(What::Status))
}

/// Who may do more than ask whether all is well. With a token: only its bearer. That a request comes from this machine
/// says little about its sender, since a proxy may have passed it on; so that counts only if no token is set.
pub(crate) struct Access {
    pub(crate) token: Option<String>,
    /// On the admin listener, everybody may look.
    pub(crate) is_admin: bool,
}

impl Access {
    /// The answer to a request that may not.
    fn refuse(&self, request: &Request<'_>) -> Option<Response> {
        let (may, who) = match &self.token {
            Some(token) => (bears(request, token), "only with the token\n"),
            None => (is_from_here(request), "only from this machine\n"),
        };
        (!may).then(|| Response::text(who).with_status(Status::FORBIDDEN))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Live,
    Ready,
    Shutdown,
    Metrics,
    Status,
}

/// A route for those who run the command.
struct Operating {
    what: What,
    overview: Arc<Overview>,
    access: Arc<Access>,
}

impl Handler for Operating {
    fn handle(&self, request: &Request<'_>) -> Response {
        let is_open = match self.what {
            What::Live | What::Ready => true,
            What::Shutdown => false,
            What::Metrics | What::Status => self.access.is_admin,
        };
        if let Some(refusal) = (!is_open).then(|| self.access.refuse(request)).flatten() {
            return refusal;
        }
        let response = match self.what {
            What::Live => Response::text("live\n"),
            What::Ready if self.overview.stop().cause().is_none() => Response::text("ready\n"),
            What::Ready => Response::text("stopping\n").with_status(Status::SERVICE_UNAVAILABLE),
            What::Shutdown => return self.shut_down(request),
            What::Metrics => self.overview.metrics(),
            What::Status if accepts(request, b"text/event-stream") => self.overview.events(self.access.is_admin),
            What::Status if accepts(request, b"text/plain") && !accepts(request, b"text/html") => self.overview.text(),
            What::Status => self.overview.page(),
        };
        response.with_field("Cache-Control", "no-store")
    }

    fn is_at_once(&self, request: &Request<'_>) -> bool {
        self.what != What::Status || self.access.is_admin && !accepts(request, b"text/event-stream")
    }
}

impl Operating {
    fn shut_down(&self, request: &Request<'_>) -> Response {
        let response = Response::text("stopping\n");
        // HEAD returns what GET would return, but must not act (RFC 9110 §9.2.1).
        if request.method() == Method::Head {
            return response;
        }
        let stop = self.overview.stop().clone();
        response.closing().on_sent(move || {
            stop.trigger(Cause::Request("/shutdown".to_owned()));
        })
    }
}

/// True if `Accept` names this media type: no more is needed to tell a browser's page, its events and a program apart.
fn accepts(request: &Request<'_>, media_type: &[u8]) -> bool {
    let mut accept = request.headers().get_all("accept");
    accept.any(|value| value.windows(media_type.len()).any(|part| part.eq_ignore_ascii_case(media_type)))
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
