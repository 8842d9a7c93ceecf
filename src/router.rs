//! Method and path to handler: exact paths and `{captures}`, 404, 405 with `Allow`, HEAD from GET, OPTIONS.

use std::fmt;

use crate::http::{BodyReader, Handler, Method, Pattern, Request, Response, Status};

/// Finds the handler for a request by its method and path.
///
/// ```
/// use allout::{Request, Response, Router};
///
/// let router = Router::new()
///     .get("/ping", |_: &Request<'_>| Response::text("pong"))
///     .get("/users/{id}", |request: &Request<'_>| {
///         let id = request.param("id").unwrap_or_default();
///         Response::text(format!("user {id}\n"))
///     });
/// ```
///
/// Paths match whole and with regard to case, escapes decoded; `/a` and `/a/` are two paths. A capture stands for one
/// segment that is not empty, and is read with [`Request::param`]. Of several patterns that match, the one with the
/// fewest captures is meant, and of those the one that was added first.
///
/// HEAD is answered by a path's handler of GET, its body left out. OPTIONS is answered with `Allow`, `OPTIONS *` with
/// the methods of all paths. Another path is answered 404, another method of a known one 405.
#[derive(Default)]
pub struct Router {
    paths: Vec<Path>,
}

struct Path {
    pattern: Pattern,
    routes: Vec<(Method, Box<dyn Handler>)>,
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route.
    ///
    /// # Panics
    ///
    /// If the pattern is malformed, or has a handler of this method already: a mistake of the programmer, which is
    /// best found when the program starts.
    pub fn route(mut self, method: Method, pattern: &str, handler: impl Handler) -> Self {
        let parsed = match Pattern::new(pattern) {
            Ok(parsed) => parsed,
            Err(problem) => panic!("bad route `{pattern}`: it {problem}"),
        };
        let at = match self.paths.iter().position(|path| path.pattern.is_same_as(&parsed)) {
            Some(at) => at,
            None => {
                let at = self.paths.partition_point(|path| path.pattern.captures() <= parsed.captures());
                self.paths.insert(at, Path { pattern: parsed, routes: Vec::new() });
                at
            }
        };
        let path = &mut self.paths[at];
        assert!(path.routes.iter().all(|(have, _)| *have != method), "two handlers for {method} {pattern}");
        assert!(path.pattern.text() == pattern, "routes `{pattern}` and `{}` differ in names", path.pattern.text());
        path.routes.push((method, Box::new(handler)));
        self
    }

    /// Adds a handler of GET, and with it of HEAD.
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    pub fn get(self, pattern: &str, handler: impl Handler) -> Self {
        self.route(Method::Get, pattern, handler)
    }

    /// Adds a handler of POST.
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    pub fn post(self, pattern: &str, handler: impl Handler) -> Self {
        self.route(Method::Post, pattern, handler)
    }

    /// Adds a handler of PUT.
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    pub fn put(self, pattern: &str, handler: impl Handler) -> Self {
        self.route(Method::Put, pattern, handler)
    }

    /// Adds a handler of DELETE.
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    pub fn delete(self, pattern: &str, handler: impl Handler) -> Self {
        self.route(Method::Delete, pattern, handler)
    }

    /// Adds a handler that reads the request's body as it arrives, in place of one that is given it whole:
    ///
    /// ```
    /// use std::io;
    /// use allout::{BodyReader, Method, Request, Response, Router};
    ///
    /// let count = |_: &Request<'_>, body: &mut BodyReader<'_>| match io::copy(body, &mut io::sink()) {
    ///     Ok(bytes) => Response::text(format!("{bytes}\n")),
    ///     Err(error) => Response::text(format!("{error}\n")), // Not sent: the body's own fault is answered.
    /// };
    /// let router = Router::new().stream(Method::Post, "/count", count);
    /// ```
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    pub fn stream(
        self,
        method: Method,
        pattern: &str,
        handler: impl Fn(&Request<'_>, &mut BodyReader<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        self.route(method, pattern, Streaming(handler))
    }

    /// Adds a handler that promises not to block: it answers even when all others are busy, see
    /// [`Handler::is_at_once`].
    ///
    /// ```
    /// use allout::{Method, Request, Response, Router};
    ///
    /// let router = Router::new().at_once(Method::Get, "/livez", |_: &Request<'_>| Response::text("live\n"));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    pub fn at_once(self, method: Method, pattern: &str, handler: impl Handler) -> Self {
        self.route(method, pattern, AtOnce(handler))
    }

    /// The handler for a request, and the pattern that matched; or the answer if there is none.
    fn find(&self, request: &Request<'_>) -> Result<(&Pattern, &dyn Handler), Response> {
        let raw_path = request.raw_path_bytes();
        if raw_path == b"*" {
            return Err(allowed(|method| self.paths.iter().any(|path| path.has(method))));
        }
        let Some(path) = self.paths.iter().find(|path| path.pattern.matches(raw_path)) else {
            return Err(Response::text("not found\n").with_status(Status::NOT_FOUND));
        };
        match path.route(request.method()) {
            Some(handler) => Ok((&path.pattern, handler)),
            None if request.method() == Method::Options => Err(allowed(|method| path.has(method))),
            None => {
                let allowed = allowed(|method| path.has(method));
                Err(allowed.with_status(Status::METHOD_NOT_ALLOWED).with_text("method not allowed\n"))
            }
        }
    }
}

impl Handler for Router {
    fn handle(&self, request: &Request<'_>) -> Response {
        match self.find(request) {
            Ok((pattern, handler)) => handler.handle(&request.matched(pattern)),
            Err(response) => response,
        }
    }

    fn refuse(&self, request: &Request<'_>) -> Option<Response> {
        match self.find(request) {
            Ok((pattern, handler)) => handler.refuse(&request.matched(pattern)),
            Err(response) => Some(response),
        }
    }

    /// What no route is for is answered at once too.
    fn is_at_once(&self, request: &Request<'_>) -> bool {
        self.find(request).map_or(true, |(pattern, handler)| handler.is_at_once(&request.matched(pattern)))
    }

    fn streams(&self, request: &Request<'_>) -> bool {
        self.find(request).is_ok_and(|(pattern, handler)| handler.streams(&request.matched(pattern)))
    }

    fn handle_streaming(&self, request: &Request<'_>, body: &mut BodyReader<'_>) -> Response {
        match self.find(request) {
            Ok((pattern, handler)) => handler.handle_streaming(&request.matched(pattern), body),
            Err(response) => response,
        }
    }
}

/// A handler that does not block.
struct AtOnce<H>(H);

impl<H: Handler> Handler for AtOnce<H> {
    fn handle(&self, request: &Request<'_>) -> Response {
        self.0.handle(request)
    }

    fn refuse(&self, request: &Request<'_>) -> Option<Response> {
        self.0.refuse(request)
    }

    fn is_at_once(&self, _: &Request<'_>) -> bool {
        true
    }
}

/// A function that reads the body itself.
struct Streaming<F>(F);

impl<F> Handler for Streaming<F>
where
    F: Fn(&Request<'_>, &mut BodyReader<'_>) -> Response + Send + Sync + 'static,
{
    /// Called for a request without a body.
    fn handle(&self, request: &Request<'_>) -> Response {
        let mut body = request.body();
        self.0(request, &mut BodyReader::new(&mut body))
    }

    fn streams(&self, _: &Request<'_>) -> bool {
        true
    }

    fn handle_streaming(&self, request: &Request<'_>, body: &mut BodyReader<'_>) -> Response {
        self.0(request, body)
    }
}

impl Path {
    fn route(&self, method: Method) -> Option<&dyn Handler> {
        let of = |method| self.routes.iter().find(|(have, _)| *have == method).map(|(_, handler)| handler.as_ref());
        of(method).or_else(|| if method == Method::Head { of(Method::Get) } else { None })
    }

    fn has(&self, method: Method) -> bool {
        method == Method::Options || self.route(method).is_some()
    }
}

/// 204 with the methods that a resource has (RFC 9110 §10.2.1).
fn allowed(has: impl Fn(Method) -> bool) -> Response {
    let names: Vec<_> = Method::ALL.into_iter().filter(|method| has(*method)).map(Method::name).collect();
    Response::new(Status::NO_CONTENT).with_field("Allow", names.join(", "))
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self
            .paths
            .iter()
            .flat_map(|path| path.routes.iter().map(|(method, _)| format!("{method} {}", path.pattern.text())));
        f.debug_list().entries(routes).finish()
    }
}
