//! Method and path to handler: exact paths and `{captures}`, 404, 405 with `Allow`, HEAD from GET, OPTIONS.

use std::fmt;

use crate::http::{BodyPlan, BodyReader, Handler, Method, Pattern, Request, Response, Status};
use crate::sync::Arc;

/// Finds the handler for a request by its method and path.
///
/// ```
/// use allout::{Request, Response, Router, Status};
///
/// struct NotANumber;
///
/// impl From<NotANumber> for Response {
///     fn from(_: NotANumber) -> Self {
///         Response::text("a number is wanted\n").with_status(Status::BAD_REQUEST)
///     }
/// }
///
/// fn user(request: &Request<'_>) -> Result<Response, NotANumber> {
///     let id: u32 = request.param("id").and_then(|id| id.parse().ok()).ok_or(NotANumber)?;
///     Ok(Response::text(format!("user {id}\n")))
/// }
///
/// let router = Router::new()
///     .get("/ping", |_| Response::text("pong"))
///     .get("/users/{id}", user)
///     .delete("/users/{id}", |_| Status::FORBIDDEN);
/// ```
///
/// A handler gives whatever is `Into<Response>`: a [`Response`], a [`Status`] alone, a `Result` of two such, so that it
/// can use `?` with errors of your own. Text is wrapped, `Response::text("…")`: were it enough alone, an `Err` with a
/// text would be answered 200. A closure that only panics has to say which: `|_| -> Response { panic!() }`.
///
/// A clone has the same handlers: give one each to two servers.
///
/// Paths match whole and with regard to case, escapes decoded; `/a` and `/a/` are two paths. A capture stands for one
/// segment that is not empty, and is read with [`Request::param`]. Of several patterns that match, the one with the
/// fewest captures is meant, and of those the one that was added first.
///
/// HEAD is answered by a path's handler of GET, its body left out. OPTIONS is answered with `Allow`, `OPTIONS *` with
/// the methods of all paths. Another path is answered 404, or by [`fallback`](Self::fallback); another method of a
/// known one 405. A client that waits to send a body for one of these is answered before it does (RFC 9110 §10.1.1).
#[derive(Clone, Default)]
pub struct Router {
    paths: Vec<Path>,
    fallback: Option<Arc<dyn Handler>>,
}

#[derive(Clone)]
struct Path {
    pattern: Pattern,
    routes: Vec<(Method, Arc<dyn Handler>)>,
}

/// The shortest way for each method: a closure needs no annotations here.
macro_rules! methods {
    ($($name:ident $method:ident $what:literal)*) => {
        impl Router {
            $(
                #[doc = concat!("Adds a handler of ", $what, ".")]
                ///
                /// # Panics
                ///
                /// As [`route`](Self::route).
                #[track_caller]
                pub fn $name<R: Into<Response>>(
                    self,
                    pattern: &str,
                    handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
                ) -> Self {
                    self.route(Method::$method, pattern, handler)
                }
            )*
        }
    };
}

methods! {
    get Get "GET, and with it of HEAD"
    post Post "POST"
    put Put "PUT"
    patch Patch "PATCH"
    delete Delete "DELETE"
}

impl Router {
    /// A router without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a route: any [`Handler`], another router for example. A closure has to say here what it takes,
    /// `|request: &Request<'_>| …`.
    ///
    /// # Panics
    ///
    /// If the pattern is malformed, or has a handler of this method already: a mistake of the programmer, which is
    /// best found when the program starts.
    #[track_caller]
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
        path.routes.push((method, Arc::new(handler)));
        self
    }

    /// Adds a handler that reads the request's body as it arrives, in place of one that is given it whole:
    ///
    /// ```
    /// use std::io;
    /// use allout::{Method, Response, Router};
    ///
    /// let router = Router::new().stream(Method::Post, "/count", |_, body| {
    ///     match io::copy(body, &mut io::sink()) {
    ///         Ok(bytes) => Response::text(format!("{bytes}\n")),
    ///         // Not sent: the body's own fault is answered, 400 or 408.
    ///         Err(error) => Response::text(format!("{error}\n")),
    ///     }
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn stream<R: Into<Response>>(
        self,
        method: Method,
        pattern: &str,
        handler: impl Fn(&Request<'_>, &mut BodyReader<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(method, pattern, Streaming(handler))
    }

    /// Adds a handler that promises not to block: it answers even when all others are busy, see
    /// [`Handler::is_at_once`].
    ///
    /// ```
    /// use allout::{Method, Response, Router};
    ///
    /// let router = Router::new().at_once(Method::Get, "/livez", |_| Response::text("live\n"));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn at_once<R: Into<Response>>(
        self,
        method: Method,
        pattern: &str,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(method, pattern, AtOnce(handler))
    }

    /// Adds a handler of requests with a body that has a limit of its own, in bytes, in place of
    /// [`Config::body_bytes_max`](crate::Config::body_bytes_max).
    ///
    /// ```
    /// use allout::{Method, Response, Router};
    ///
    /// let router = Router::new().hold(Method::Put, "/picture", 10 << 20, |request| {
    ///     Response::text(format!("{} bytes\n", request.body().len()))
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// As [`route`](Self::route).
    #[track_caller]
    pub fn hold<R: Into<Response>>(
        self,
        method: Method,
        pattern: &str,
        body_bytes_max: usize,
        handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.route(method, pattern, Holding(handler, body_bytes_max))
    }

    /// Answers requests whose path no route has, in place of 404. Whatever a path has no method for stays 405, and
    /// `OPTIONS` is answered as ever. Of several, the last one counts.
    ///
    /// ```
    /// use allout::{Response, Router, Status};
    ///
    /// let router = Router::new()
    ///     .get("/ping", |_| Response::text("pong"))
    ///     .fallback(|request| {
    ///         let text = format!("there is no {}\n", request.raw_path());
    ///         Response::text(text).with_status(Status::NOT_FOUND)
    ///     });
    /// ```
    pub fn fallback<R: Into<Response>>(self, handler: impl Fn(&Request<'_>) -> R + Send + Sync + 'static) -> Self {
        Self { fallback: Some(Arc::new(handler)), ..self }
    }

    /// The handler for a request, and the pattern that matched, if one has; or the answer if there is none.
    fn find(&self, request: &Request<'_>) -> Result<(Option<&Pattern>, &dyn Handler), Response> {
        let raw_path = request.raw_path_bytes();
        if raw_path == b"*" {
            return Err(allowed(|method| self.paths.iter().any(|path| path.has(method))));
        }
        let Some(path) = self.paths.iter().find(|path| path.pattern.matches(raw_path)) else {
            let not_found = || Response::text("not found\n").with_status(Status::NOT_FOUND);
            return self.fallback.as_deref().map(|handler| (None, handler)).ok_or_else(not_found);
        };
        match path.route(request.method()) {
            Some(handler) => Ok((Some(&path.pattern), handler)),
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

    /// What no route is for needs no body.
    fn body_plan(&self, request: &Request<'_>) -> BodyPlan {
        self.find(request).map_or(BodyPlan::Refuse, |(pattern, handler)| handler.body_plan(&request.matched(pattern)))
    }

    /// What no route is for is answered at once too.
    fn is_at_once(&self, request: &Request<'_>) -> bool {
        self.find(request).map_or(true, |(pattern, handler)| handler.is_at_once(&request.matched(pattern)))
    }
}

/// A handler that does not block.
struct AtOnce<H>(H);

impl<H: Handler> Handler for AtOnce<H> {
    fn handle(&self, request: &Request<'_>) -> Response {
        self.0.handle(request)
    }

    fn is_at_once(&self, _: &Request<'_>) -> bool {
        true
    }
}

/// A handler with a limit of its own.
struct Holding<H>(H, usize);

impl<H: Handler> Handler for Holding<H> {
    fn handle(&self, request: &Request<'_>) -> Response {
        self.0.handle(request)
    }

    fn body_plan(&self, _: &Request<'_>) -> BodyPlan {
        BodyPlan::HoldUpTo(self.1)
    }
}

/// A function that reads the body itself.
struct Streaming<F>(F);

impl<F, R> Handler for Streaming<F>
where
    F: Fn(&Request<'_>, &mut BodyReader<'_>) -> R + Send + Sync + 'static,
    R: Into<Response>,
{
    fn handle(&self, request: &Request<'_>) -> Response {
        self.0(request, &mut request.body_reader()).into()
    }

    fn body_plan(&self, _: &Request<'_>) -> BodyPlan {
        BodyPlan::Stream
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
