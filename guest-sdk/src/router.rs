//! Methods and path patterns.
//!
//! A list that is walked from the top, and not a radix tree: every request gets a fresh instance and hence a fresh router, so a tree would
//! be built anew to be asked once. Walking compares a few short strings for each route and allocates for the one that matches.

use percent_encoding::percent_decode_str;

use crate::cron::{self, Tick};
use crate::queue::{self, Batch};
use crate::{Error, Request, Response, Result};

type Action<'a> = Box<dyn Fn(Request) -> Result<Response> + 'a>;

struct Route<'a> {
    /// `None` matches every method.
    method: Option<&'static str>,
    /// What the path begins with, before the pattern.
    prefix: &'static str,
    pattern: &'static str,
    // A box around a function or a closure that captures nothing does not allocate.
    action: Action<'a>,
}

/// Routes, tried from the top; the first that matches answers.
///
/// `{name}` matches one path segment, `{*rest}` at the end matches whatever is left (at least one character). Values are percent-decoded
/// and read with [`Request::param`]. A path that no route has is 404; one that routes have for other methods is 405 with `allow`. `HEAD` is
/// answered by the `GET` route unless it has its own.
///
/// ```
/// use tovuk::{Env, Request, Response, Result, Router};
///
/// #[tovuk::handler]
/// fn handle(req: Request, env: Env) -> Result<Response> {
///     Router::new()
///         .get("/", |_| Ok(Response::text("home")))
///         .get("/orders/{id}", order)
///         .get("/files/{*path}", |req| Ok(Response::text(req.param::<String>("path")?)))
///         .post("/orders", |req| env.service("ORDERS").fetch(req).map_err(Into::into))
///         .run(req)
/// }
///
/// fn order(req: Request) -> Result<Response> {
///     let id: u64 = req.param("id")?;
///     Ok(Response::text(format!("order {id}")))
/// }
/// # let env = tovuk::testing::TestEnv::new();
/// # assert_eq!(env.run(handle, Request::get("/orders/42")).body(), b"order 42");
/// # assert_eq!(env.run(handle, Request::get("/files/a/b%20c")).body(), b"a/b c");
/// # assert_eq!(env.run(handle, Request::get("/orders/x")).status(), 400);
/// # assert_eq!(env.run(handle, Request::put("/orders")).header("allow"), Some("POST"));
/// ```
#[derive(Default)]
pub struct Router<'a> {
    routes: Vec<Route<'a>>,
}

impl<'a> Router<'a> {
    /// No routes: everything is 404.
    pub fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Answers `GET` and `HEAD`.
    #[must_use]
    pub fn get(self, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.route("GET", pattern, action)
    }

    /// Answers `POST`.
    #[must_use]
    pub fn post(self, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.route("POST", pattern, action)
    }

    /// Answers `PUT`.
    #[must_use]
    pub fn put(self, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.route("PUT", pattern, action)
    }

    /// Answers `PATCH`.
    #[must_use]
    pub fn patch(self, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.route("PATCH", pattern, action)
    }

    /// Answers `DELETE`.
    #[must_use]
    pub fn delete(self, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.route("DELETE", pattern, action)
    }

    /// Answers one method, in upper case.
    #[must_use]
    pub fn route(self, method: &'static str, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.add(Some(method), pattern, action)
    }

    /// Answers every method.
    #[must_use]
    pub fn any(self, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.add(None, pattern, action)
    }

    /// Answers ticks of the service's cron trigger of this name; `{name}` stands for any. Success is 204, and a tick that fails is delivered again after one,
    /// two and four minutes.
    #[must_use]
    pub fn cron(mut self, trigger: &'static str, action: impl Fn(Tick) -> Result<()> + 'a) -> Self {
        let action = move |request: Request| action(Tick::of(&request)?).map(|()| Response::empty(204)).map_err(Error::of_event);
        self.routes.push(Route { method: Some("POST"), prefix: cron::PREFIX, pattern: trigger, action: Box::new(action) });
        self
    }

    /// Answers batches of the service's queue of this name; `{name}` stands for any. When it succeeds, the messages are done, but for those that it has
    /// asked to have again; when it fails, those that it has not settled come again.
    #[must_use]
    pub fn queue(mut self, queue: &'static str, action: impl Fn(&Batch) -> Result<()> + 'a) -> Self {
        let action = move |request: Request| {
            let batch = Batch::of(&request)?;
            let result = action(&batch);
            batch.answer(result)
        };
        self.routes.push(Route { method: Some("POST"), prefix: queue::PREFIX, pattern: queue, action: Box::new(action) });
        self
    }

    fn add(mut self, method: Option<&'static str>, pattern: &'static str, action: impl Fn(Request) -> Result<Response> + 'a) -> Self {
        self.routes.push(Route { method, prefix: "", pattern, action: Box::new(action) });
        self
    }

    /// Answers the request by the first route that matches it.
    ///
    /// # Errors
    /// What the route returned; 404 when no route has the path.
    pub fn run(&self, mut request: Request) -> Result<Response> {
        let wanted = request.method();
        let on_path = || self.routes.iter().filter(|route| route.matches(request.path()));
        let found = on_path()
            .find(|route| route.method.is_none_or(|method| method == wanted))
            .or_else(|| on_path().find(|route| wanted == "HEAD" && route.method == Some("GET")));
        let Some(route) = found else {
            let allowed = allowed(on_path());
            if allowed.is_empty() {
                return Err(Error::not_found(format!("there is nothing at {}", request.path())));
            }
            let body = format!("{{\"error\":{}}}", serde_json::Value::from(format!("{wanted} is not allowed here; allowed: {allowed}")));
            return Ok(Response::empty(405).with_header("allow", allowed).with_header("content-type", "application/json").with_body(body));
        };
        let params = params(route.pattern, request.path().strip_prefix(route.prefix).unwrap_or_default())?;
        request.set_params(params);
        (route.action)(request)
    }
}

impl std::fmt::Debug for Router<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| (route.method.unwrap_or("*"), route.prefix, route.pattern))).finish()
    }
}

/// The methods of these routes, for the `allow` field.
fn allowed<'r>(routes: impl Iterator<Item = &'r Route<'r>>) -> String {
    let mut methods: Vec<&str> = routes.filter_map(|route| route.method).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

/// The name in `{name}`.
fn name_in_braces(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// Walks pattern and path together and calls `bind` with each name and the raw text that it matched. Whether they match.
fn walk<'p>(pattern: &'static str, path: &'p str, mut bind: impl FnMut(&'static str, &'p str)) -> bool {
    let (mut pattern, mut path) = (Some(pattern), Some(path));
    loop {
        let (Some(pattern_left), Some(path_left)) = (pattern, path) else {
            return pattern.is_none() && path.is_none();
        };
        if let Some(rest) = name_in_braces(pattern_left).and_then(|name| name.strip_prefix('*')) {
            bind(rest, path_left);
            return !path_left.is_empty();
        }
        let (want, pattern_next) = split_segment(pattern_left);
        let (have, path_next) = split_segment(path_left);
        match name_in_braces(want) {
            Some(name) if !have.is_empty() => bind(name, have),
            None if want == have => {}
            _ => return false,
        }
        (pattern, path) = (pattern_next, path_next);
    }
}

/// The text before the first `/`, and what follows it.
fn split_segment(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (text, None),
    }
}

impl Route<'_> {
    fn matches(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix).is_some_and(|rest| walk(self.pattern, rest, |_, _| {}))
    }
}

fn params(pattern: &'static str, path: &str) -> Result<Vec<(String, String)>> {
    let mut raw = Vec::new();
    walk(pattern, path, |name, value| raw.push((name, value)));
    raw.into_iter()
        .map(|(name, value)| match percent_decode_str(value).decode_utf8() {
            Ok(text) => Ok((name.to_owned(), text.into_owned())),
            Err(_) => Err(Error::bad_request(format!("the path parameter `{name}` is not UTF-8 text once decoded"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn routes() -> Router<'static> {
        Router::new()
            .get("/", |_| Ok(Response::text("root")))
            .get("/users/me", |_| Ok(Response::text("me")))
            .get("/users/{id}", |req| Ok(Response::text(format!("user {}", req.param::<u32>("id")?))))
            .delete("/users/{id}", |_| Ok(Response::empty(204)))
            .post("/users", |_| Ok(Response::empty(201)))
            .put("/users/{user}/notes/{note}", |req| Ok(Response::text(req.param::<String>("user")? + "/" + &req.param::<String>("note")?)))
            .patch("/users", |_| Ok(Response::text("patched")))
            .get("/files/{*path}", |req| Ok(Response::text(req.param::<String>("path")?)))
            .route("HEAD", "/files/{*path}", |_| Ok(Response::text("head of its own")))
            .any("/any", |req| Ok(Response::text(req.method())))
    }

    fn body(method: &str, uri: &str) -> String {
        String::from_utf8(routes().run(Request::new(method, uri)).unwrap().into_body()).unwrap()
    }

    fn status(method: &str, uri: &str) -> u16 {
        match routes().run(Request::new(method, uri)) {
            Ok(response) => response.status(),
            Err(error) => error.status(),
        }
    }

    #[test]
    fn the_first_route_that_matches_answers_with_decoded_parameters() {
        assert_eq!(body("GET", "/"), "root");
        assert_eq!(body("GET", "/?a=/users/1"), "root");
        assert_eq!(body("GET", "/users/me"), "me");
        assert_eq!(body("GET", "/users/7?x=1"), "user 7");
        assert_eq!(body("PUT", "/users/a%2Fb/notes/%C3%B8"), "a/b/ø");
        assert_eq!(body("PATCH", "/users"), "patched");
        assert_eq!(body("GET", "/files/a/b/"), "a/b/");
        assert_eq!(body("BREW", "/any"), "BREW");
    }

    #[test]
    fn ticks_go_to_the_trigger_of_their_name() {
        let seen = std::cell::RefCell::new(Vec::new());
        let routes = Router::new()
            .cron("nightly", |tick| {
                seen.borrow_mut().push(tick);
                Ok(())
            })
            .cron("fails", |_| Err(Error::internal("no")))
            .cron("lacks", |_| Err(Error::not_found("no such user")))
            .get("/nightly", |_| Ok(Response::text("a page")));
        let status = |request: Request| routes.run(request).map_or_else(|error| error.status(), |response| response.status());
        let tick = |name: &str| Tick::new(name, "0 0 * * *", 7);
        assert_eq!(status(tick("nightly").to_request().unwrap()), 204);
        assert_eq!((status(tick("fails").to_request().unwrap()), status(tick("other").to_request().unwrap())), (500, 404));
        assert_eq!(status(tick("lacks").to_request().unwrap()), 500, "404 is for a worker without a handler");
        assert_eq!((status(Request::get("/.tovuk/cron/nightly")), status(Request::post("/.tovuk/cron/nightly"))), (405, 400));
        assert_eq!((status(Request::get("/nightly")), status(Request::post("/nightly"))), (200, 405));
        assert_eq!(*seen.borrow(), [tick("nightly")]);
        assert_eq!(
            (tick("nightly").cron_expression(), tick("nightly").scheduled()),
            ("0 0 * * *", std::time::UNIX_EPOCH + std::time::Duration::from_millis(7))
        );
    }

    #[test]
    fn segments_must_match_whole_and_be_there() {
        for path in ["/users/", "/users/7/", "/users/7/notes", "/user", "/files", "/files/", "//", "/users//notes/1", "/Users/me"] {
            assert_eq!(status("GET", path), 404, "{path}");
        }
        assert_eq!(status("GET", ""), 404);
    }

    #[test]
    fn another_method_is_refused_with_those_that_are_allowed() {
        let response = routes().run(Request::put("/users/7")).unwrap();
        assert_eq!((response.status(), response.header("allow")), (405, Some("DELETE, GET, HEAD")));
        let response = routes().run(Request::get("/users")).unwrap();
        assert_eq!((response.status(), response.header("allow")), (405, Some("PATCH, POST")));
        assert_eq!(response.body_text().unwrap(), r#"{"error":"GET is not allowed here; allowed: PATCH, POST"}"#);
    }

    #[test]
    fn head_is_answered_by_get_unless_it_has_a_route() {
        assert_eq!(body("HEAD", "/users/me"), "me");
        assert_eq!(body("HEAD", "/files/x"), "head of its own");
        assert_eq!(status("HEAD", "/users"), 405);
    }

    #[test]
    fn a_parameter_that_does_not_parse_is_the_clients_error_and_an_unknown_one_the_workers() {
        let error = routes().run(Request::get("/users/seven")).unwrap_err();
        assert_eq!((error.status(), error.message()), (400, "the path parameter `id` is `seven`, which is not a valid u32"));
        let error = Router::new().get("/{a}", |req| Ok(Response::text(req.param::<String>("b")?))).run(Request::get("/x")).unwrap_err();
        assert_eq!((error.status(), error.message()), (500, "internal error"));
        assert!(error.to_string().contains("write `{b}` in the pattern"), "{error}");
        assert_eq!(status("GET", "/files/%ff"), 400);
    }
}
