//! An HTML form, and a cookie that remembers who has filled it in. The cookie is
//! signed, so that nobody can make one up; it says until when it is valid; scripts
//! cannot read it (`HttpOnly`); and it is sent over https only (`Secure`, `__Host-`:
//! this server stands behind a proxy that has the certificate).
//!
//! Two things keep a page of another site from posting in a visitor's name: browsers
//! leave the cookie out of its requests (`SameSite`), and they say where a request
//! comes from (`Sec-Fetch-Site`; older ones `Origin`, for which the proxy must pass on
//! `Host`). Both hold for POST, so whatever changes something is a POST.

use std::borrow::Cow;
use std::env;
use std::error::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use allout::{Config, GRACE, Group, Handler, Method, Outcome, Server, around, signals};
use allout::{Request, Response, Router, Status};
use cookie::{Cookie, CookieJar, Key, SameSite, time::Duration};

const SESSION: &str = "__Host-session";
const SECONDS: i64 = 7 * 24 * 60 * 60;

fn site(key: Key) -> impl Handler {
    let (leave_key, enter_key) = (key.clone(), key.clone());
    let router = Router::new()
        .get("/", move |request| page(visitor(request, &key).as_deref()))
        // A name and nothing more. With a password, here is where its hash is compared.
        .post("/enter", move |request| -> Result<Response, Status> {
            let name = field(request, "name")?.filter(|name| name.len() <= 100);
            let name = name.filter(|name| !name.trim().is_empty());
            let name = name.ok_or(Status::UNPROCESSABLE_CONTENT)?;
            let until = now() + SECONDS;
            Ok(back_home(&enter_key, Some(format!("{until} {}", name.trim()))))
        })
        .post("/leave", move |_| back_home(&leave_key, None));
    around(router, |request, next| {
        let is_read = matches!(request.method(), Method::Get | Method::Head);
        if !is_read && is_from_elsewhere(request) {
            return Status::FORBIDDEN.into();
        }
        next(request)
    })
}

fn is_from_elsewhere(request: &Request<'_>) -> bool {
    let field = |name| request.headers().get_str(name);
    match (field("sec-fetch-site"), field("origin")) {
        (Some(site), _) => site != "same-origin" && site != "none",
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_none() || host != request.host()
        }
        (None, None) => false, // no browser
    }
}

/// A field of a form; `None` if it has no such.
fn field<'a>(
    request: &Request<'a>,
    name: &str,
) -> Result<Option<Cow<'a, str>>, Status> {
    let media_type = request.headers().get_str("content-type").unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(Status::UNSUPPORTED_MEDIA_TYPE);
    }
    let mut fields = form_urlencoded::parse(request.body());
    Ok(fields.find(|(have, _)| have == name).map(|(_, value)| value))
}

/// Who asks, if the cookie is ours and still good.
fn visitor(request: &Request<'_>, key: &Key) -> Option<String> {
    let cookies = request.headers().get_str("cookie")?.to_owned();
    let mut jar = CookieJar::new();
    for cookie in Cookie::split_parse_encoded(cookies).flatten() {
        jar.add_original(cookie);
    }
    let session = jar.signed(key).get(SESSION)?;
    let (until, name) = session.value().split_once(' ')?;
    (until.parse::<i64>().ok()? > now()).then(|| name.to_owned())
}

/// 303: the browser asks for the page by GET, so a reload does not post again. Sets the
/// cookie, or takes it away.
fn back_home(key: &Key, session: Option<String>) -> Response {
    let age = if session.is_some() { SECONDS } else { 0 };
    let cookie = Cookie::build((SESSION, session.unwrap_or_default()))
        .path("/")
        .secure(true)
        .http_only(true)
        .same_site(SameSite::Lax)
        .max_age(Duration::seconds(age));
    let mut jar = CookieJar::new();
    jar.signed_mut(key).add(cookie);
    let response = Response::new(Status::SEE_OTHER).with_field("Location", "/");
    jar.delta().fold(response, |response, cookie| {
        response.with_field("Set-Cookie", cookie.encoded().to_string())
    })
}

fn page(visitor: Option<&str>) -> Response {
    let content = match visitor {
        Some(name) => format!(
            "<p>Hello, {}!</p>\
             <form method=post action=/leave><button>Leave</button></form>",
            escaped(name)
        ),
        None => "<form method=post action=/enter>\
                 <label>Your name <input name=name maxlength=50 required></label> \
                 <button>Enter</button></form>"
            .to_owned(),
    };
    let page =
        format!("<!doctype html><meta charset=utf-8><title>Door</title>{content}");
    Response::bytes("text/html; charset=utf-8", page)
        .with_field("Cache-Control", "no-store")
        .with_field("Content-Security-Policy", "default-src 'self'")
}

/// What a visitor has written is text, never markup.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn main() -> Result<Outcome, Box<dyn Error>> {
    let address = env::args().nth(1).unwrap_or("127.0.0.1:8080".to_owned());
    // At least 64 bytes of chance, the same after a restart and in each process that
    // serves this site. Without it, whoever is inside is outside after a restart.
    let key = match env::var("SESSION_KEY") {
        Ok(secret) => Key::try_from(secret.as_bytes())?,
        Err(_) => Key::generate(),
    };
    let mut group = Group::new();
    let signals = signals::install(&group.stop())?;
    let config = Config { body_bytes_max: 16 * 1024, ..Config::default() };
    let server = Server::bind(address, config)?;
    let site = site(key);
    group.add("http", move |stop| server.run(site, stop));
    group.add("signals", move |stop| signals.run(stop));
    Ok(group.run(GRACE))
}
