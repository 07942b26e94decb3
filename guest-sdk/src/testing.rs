//! Run a handler natively, in `cargo test`, against surroundings that the test makes up. Not compiled into components.
//!
//! It imitates what a worker sees, not the host: no limits on CPU, memory or the length of a chain are kept here. Those are tested by running
//! the worker with `tovuk dev`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::{CallError, Env, Handler, Request, Response, Result};

type Target = Rc<dyn Fn(Request) -> Result<Response, CallError>>;

thread_local! {
    // A stack, because a made-up service may itself run a handler with surroundings of its own.
    static CURRENT: RefCell<Vec<TestEnv>> = const { RefCell::new(Vec::new()) };
}

/// A call that a handler made, and to what: the name of a binding, or the prefix of a URL as the test gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The binding's name, or the URL's prefix; for a call that met nothing, the binding or URL that it asked for.
    pub target: String,
    /// What was sent.
    pub request: Request,
}

/// The surroundings of a handler under test: variables, bound services, hosts on the network.
///
/// ```
/// use tovuk::{Env, Request, Response, Result, testing::TestEnv};
///
/// fn handle(_: Request, env: Env) -> Result<Response> {
///     let user = env.service("AUTH_SERVICE").get("/whoami")?;
///     Ok(Response::text(format!("hello {}", user.body_text()?)))
/// }
///
/// let env = TestEnv::new().service("AUTH_SERVICE", |_| Ok(Response::text("ada")));
/// let response = env.run(handle, Request::get("/"));
/// assert_eq!(response.body_text()?, "hello ada");
/// assert_eq!(env.calls()[0].request.path(), "/whoami");
/// # Ok::<(), tovuk::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct TestEnv {
    vars: BTreeMap<String, String>,
    services: BTreeMap<String, Target>,
    urls: BTreeMap<String, Target>,
    calls: Rc<RefCell<Vec<Call>>>,
}

impl TestEnv {
    /// Nothing is set, bound or reachable. The variables of the test's own process are not seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Binds a service under a name. It receives a path with its query, as a real one does; `another_env.run(handler, req)` inside makes it a real one.
    #[must_use]
    pub fn service(mut self, binding: &str, target: impl Fn(Request) -> Result<Response, CallError> + 'static) -> Self {
        self.services.insert(binding.to_owned(), Rc::new(target));
        self
    }

    /// Answers requests to URLs that start with `prefix`, for example `https://api.example.com`; of several prefixes that fit, the longest. It
    /// receives the absolute URL.
    #[must_use]
    pub fn url(mut self, prefix: &str, target: impl Fn(Request) -> Result<Response, CallError> + 'static) -> Self {
        self.urls.insert(prefix.trim_end_matches('/').to_owned(), Rc::new(target));
        self
    }

    /// Runs a handler and gives what a client would see: an error as its response, and a call's unhandled error as the status of the host's answer
    /// with an empty body.
    pub fn run<Args>(&self, handler: impl Handler<Args>, request: Request) -> Response {
        let _restore = Entered::new(self);
        match handler.call(request, Env) {
            Ok(response) => response,
            Err(error) => error.into_response().unwrap_or_else(|error| Response::empty(error.status())),
        }
    }

    /// Runs a handler and gives what it returned.
    ///
    /// # Errors
    /// Those of the handler.
    pub fn try_run<Args>(&self, handler: impl Handler<Args>, request: Request) -> Result<Response> {
        let _restore = Entered::new(self);
        handler.call(request, Env)
    }

    /// The calls made so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.borrow().clone()
    }

    pub(crate) fn lookup_var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    pub(crate) fn call_service(&self, binding: &str, request: Request) -> Result<Response, CallError> {
        self.record(binding, &request);
        match self.services.get(binding) {
            Some(target) => target(request),
            None => Err(CallError::UnknownBinding(format!("the test binds no service as {binding}: add `.service(\"{binding}\", |req| ...)` to its TestEnv"))),
        }
    }

    pub(crate) fn call_url(&self, request: Request) -> Result<Response, CallError> {
        if !request.uri().starts_with("http://") && !request.uri().starts_with("https://") {
            return Err(CallError::InvalidRequest(format!("`{}` is not an absolute URL", request.uri())));
        }
        let fits = |prefix: &str| request.uri().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']));
        let found = self.urls.iter().filter(|(prefix, _)| fits(prefix)).max_by_key(|(prefix, _)| prefix.len());
        self.record(found.map_or(request.uri(), |(prefix, _)| prefix.as_str()), &request);
        match found {
            Some((_, target)) => target(request),
            None => Err(CallError::Denied(format!("the test answers no URL like `{}`: add `.url(\"<its start>\", |req| ...)` to its TestEnv", request.uri()))),
        }
    }

    fn record(&self, target: &str, request: &Request) {
        self.calls.borrow_mut().push(Call { target: target.to_owned(), request: request.clone() });
    }
}

impl std::fmt::Debug for TestEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestEnv")
            .field("vars", &self.vars)
            .field("services", &self.services.keys())
            .field("urls", &self.urls.keys())
            .field("calls", &self.calls.borrow().len())
            .finish()
    }
}

/// The surroundings of the handler that runs on this thread.
pub(crate) fn current() -> Option<TestEnv> {
    CURRENT.with_borrow(|stack| stack.last().cloned())
}

/// Surroundings for as long as this lives, also when the handler panics.
struct Entered;

impl Entered {
    fn new(env: &TestEnv) -> Self {
        CURRENT.with_borrow_mut(|stack| stack.push(env.clone()));
        Self
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|stack| stack.pop());
    }
}
