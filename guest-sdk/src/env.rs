//! A worker's surroundings: environment variables, bound services, URLs.
//!
//! It holds nothing: the host knows what this worker may reach, and answers by name at each call.

use crate::state::Class;
use crate::{CallError, Error, Request, Response, Result, host};

/// What a worker can reach. Handlers take it as their second argument; `Env` is also free to make anywhere.
///
/// ```
/// use tovuk::{Env, Request, Response, Result};
///
/// #[tovuk::handler]
/// fn handle(req: Request, env: Env) -> Result<Response> {
///     let user = env.service("AUTH_SERVICE").get("/whoami")?;
///     Ok(Response::text(format!("{} in {}", user.body_text()?, env.require("REGION")?)))
/// }
/// # let env = tovuk::testing::TestEnv::new().var("REGION", "eu").service("AUTH_SERVICE", |_| Ok(Response::text("ada")));
/// # assert_eq!(env.run(handle, Request::get("/")).body(), b"ada in eu");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Env;

impl Env {
    /// The environment variable `name`; `None` when it is not set or not text.
    pub fn var(&self, name: &str) -> Option<String> {
        host::var(name)
    }

    /// The environment variable `name`, which the worker cannot do without.
    ///
    /// # Errors
    /// A 500 when it is not set, with the name and what to do in the log.
    pub fn require(&self, name: &str) -> Result<String> {
        self.var(name).ok_or_else(|| {
            Error::internal(format_args!(
                "the environment variable {name} is not set: run `tovuk env set {name} <value>` for this service and deploy it again, or name the \
                 binding that gives it under `bindings` in tovuk.toml"
            ))
        })
    }

    /// The bound service behind the binding `binding`, for example `AUTH_SERVICE`.
    pub fn service<'a>(&self, binding: &'a str) -> Service<'a> {
        Service { binding }
    }

    /// The State class `class` of this worker's service, for example `Room`; the same as [`state`](fn@crate::state).
    ///
    /// ```
    /// use tovuk::{Env, Request, Response, Result, state::Object};
    ///
    /// #[tovuk::state]
    /// fn room(room: Object, _: Request) -> Result<Response> {
    ///     Ok(Response::text(room.increment("visits", 1)?.to_string()))
    /// }
    ///
    /// fn handle(req: Request, env: Env) -> Result<Response> {
    ///     Ok(env.state("Room").object(req.path()).fetch(Request::post("/visit"))?)
    /// }
    /// # let env = tovuk::testing::TestEnv::new().state("Room").state_handler(room);
    /// # assert_eq!(env.run(handle, Request::get("/room-1")).body(), b"1");
    /// # assert_eq!(env.run(handle, Request::get("/room-1")).body(), b"2");
    /// ```
    pub fn state<'a>(&self, class: &'a str) -> Class<'a> {
        crate::state(class)
    }

    /// Sends a request to an absolute URL; the same as [`fetch`].
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn fetch(&self, request: Request) -> Result<Response, CallError> {
        fetch(request)
    }

    /// Sends requests to absolute URLs at once; the same as [`fetch_all`].
    pub fn fetch_all(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Result<Response, CallError>> {
        fetch_all(requests)
    }

    /// Calls several bound services at once and waits for all. The results stand in the order of the calls.
    ///
    /// ```
    /// # use tovuk::{Env, Request, Response, Result, testing::TestEnv};
    /// fn both(_: Request, env: Env) -> Result<Response> {
    ///     let answers = env.call_all([("STOCK", Request::get("/42")), ("PRICE", Request::get("/42"))]);
    ///     let texts = answers.into_iter().map(|answer| Ok(answer?.body_text()?.to_owned())).collect::<Result<Vec<_>>>()?;
    ///     Response::json(&texts)
    /// }
    /// # let env = TestEnv::new().service("STOCK", |_| Ok(Response::text("3"))).service("PRICE", |_| Ok(Response::text("9")));
    /// # assert_eq!(env.run(both, Request::get("/")).body(), br#"["3","9"]"#);
    /// ```
    pub fn call_all<B: Into<String>>(&self, calls: impl IntoIterator<Item = (B, Request)>) -> Vec<Result<Response, CallError>> {
        host::service_fetch_all(calls.into_iter().map(|(binding, request)| (binding.into(), request)).collect())
    }
}

/// A bound service: a private way to another worker, without a URL, a socket or a name to resolve.
///
/// Each call starts a fresh instance of the target and counts as one invocation of the chain (32 for each request from outside) and as one
/// subrequest of this worker.
#[derive(Clone, Copy, Debug)]
pub struct Service<'a> {
    binding: &'a str,
}

impl Service<'_> {
    /// Calls the service and waits for the whole response. The request's URI is a path with its query.
    ///
    /// # Errors
    /// See [`CallError`]. A target that was reached and failed is a response, not an error.
    pub fn fetch(&self, request: Request) -> Result<Response, CallError> {
        host::service_fetch(self.binding, request)
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub fn get(&self, path: impl Into<String>) -> Result<Response, CallError> {
        self.fetch(Request::get(path))
    }

    /// Makes all calls at once and waits for all. The results stand in the order of the requests.
    pub fn fetch_all(&self, requests: impl IntoIterator<Item = Request>) -> Vec<Result<Response, CallError>> {
        host::service_fetch_all(requests.into_iter().map(|request| (self.binding.to_owned(), request)).collect())
    }
}

/// Sends a request to an absolute URL and waits for the whole response: a bound service at `http://<target>.tovuk.internal`, or a host in
/// the service's `outbound` list. Redirects are returned, not followed.
///
/// ```no_run
/// # use tovuk::{Request, Response, Result};
/// fn rates() -> Result<Response> {
///     let answer = tovuk::fetch(Request::get("https://api.example.com/rates").with_header("accept", "application/json"))?;
///     Response::json(&answer.body_json::<serde_json::Value>()?)
/// }
/// ```
///
/// # Errors
/// See [`CallError`].
pub fn fetch(request: Request) -> Result<Response, CallError> {
    host::fetch(request)
}

/// Sends all requests at once and waits for all. The results stand in the order of the requests.
pub fn fetch_all(requests: impl IntoIterator<Item = Request>) -> Vec<Result<Response, CallError>> {
    host::fetch_all(requests.into_iter().collect())
}
