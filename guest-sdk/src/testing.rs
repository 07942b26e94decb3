//! Run a handler natively, in `cargo test`, against surroundings that the test makes up. Not compiled into components.
//!
//! It imitates what a worker sees, not the host: no limits on CPU, memory or the length of a chain are kept here. Those are tested by
//! running the worker with `tovuk dev`.

mod kv;
mod state;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(crate) use self::kv::Namespace;
pub(crate) use self::state::StateObject;
use crate::objects::memory::Stored;
use crate::queue::memory::Queues;
use crate::state::{AlarmHandler, Object, ObjectPage, Ringing, Undone};
use crate::{CallError, DataError, Env, Handler, Request, Response, Result, sqlite};

type Database = Rc<dyn Fn(&sqlite::Statement) -> Result<sqlite::Answer, DataError>>;
type ObjectTarget = Rc<dyn Fn(Object, Request) -> Result<Response>>;
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
    databases: BTreeMap<String, Database>,
    calls: Rc<RefCell<Vec<Call>>>,
    kv: Rc<RefCell<kv::Namespaces>>,
    advanced: Rc<Cell<Duration>>,
    objects: Stored,
    queues: Rc<RefCell<Queues>>,
    state: Rc<RefCell<state::Classes>>,
    object_handler: Option<ObjectTarget>,
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

    /// Binds a service under a name. It receives a path with its query, as a real one does; `another_env.run(handler, req)` inside makes it
    /// a real one.
    #[must_use]
    pub fn service(mut self, binding: &str, target: impl Fn(Request) -> Result<Response, CallError> + 'static) -> Self {
        self.services.insert(binding.to_owned(), Rc::new(target));
        self
    }

    /// Answers requests to URLs that start with `prefix`, for example `https://api.example.com`; of several prefixes that fit, the longest.
    /// It receives the absolute URL.
    #[must_use]
    pub fn url(mut self, prefix: &str, target: impl Fn(Request) -> Result<Response, CallError> + 'static) -> Self {
        self.urls.insert(prefix.trim_end_matches('/').to_owned(), Rc::new(target));
        self
    }

    /// Answers the SQL that is sent to a database, statement by statement; [`Answer::of`](sqlite::Answer::of) makes rows. What the SQL says is not looked
    /// at: that it fits the tables is seen with `tovuk dev`.
    ///
    /// ```
    /// use tovuk::sqlite::{Answer, database, params};
    /// use tovuk::{Request, Response, Result, testing::TestEnv};
    ///
    /// fn count(_: Request) -> Result<Response> {
    ///     let count: i64 = database("DB").query("select count(*) from notes", ())?.one()?;
    ///     Ok(Response::text(count.to_string()))
    /// }
    ///
    /// let env = TestEnv::new().sqlite("DB", |_| Ok(Answer::of(["count(*)"], [params![3]])));
    /// assert_eq!(env.run(count, Request::get("/")).body(), b"3");
    /// ```
    #[must_use]
    pub fn sqlite(mut self, name: &str, answer: impl Fn(&sqlite::Statement) -> Result<sqlite::Answer, DataError> + 'static) -> Self {
        self.databases.insert(name.to_owned(), Rc::new(answer));
        self
    }

    /// Makes a KV namespace, which is kept in memory and is the same for all that runs in these surroundings.
    #[must_use]
    pub fn kv(self, name: &str) -> Self {
        self.kv.borrow_mut().make(name);
        self
    }

    /// Makes a queue, which is kept in memory. What is sent to it waits until [`deliver`](Self::deliver).
    #[must_use]
    pub fn queue(self, name: &str) -> Self {
        self.queues.borrow_mut().make(name);
        self
    }

    /// Runs a handler with a batch of all that can be delivered from a queue, and takes away what it says is done.
    pub fn deliver<Args>(&self, handler: impl Handler<Args>, queue: &str) -> Response {
        let event = self.queues.borrow_mut().event(queue, self.now());
        let response = self.run(handler, event);
        self.queues.borrow_mut().settle(queue, &response, self.now());
        response
    }

    /// The bodies of what waits in a queue, in the order in which it was sent.
    pub fn queued(&self, queue: &str) -> Vec<Vec<u8>> {
        self.queues.borrow().bodies(queue)
    }

    /// Makes a State class, whose objects are kept in memory and are the same for all that runs in these surroundings.
    #[must_use]
    pub fn state(self, class: &str) -> Self {
        self.state.borrow_mut().make(class);
        self
    }

    /// Has this function answer calls of State objects: the one with `#[tovuk::state]`.
    #[must_use]
    pub fn state_handler<Args>(mut self, handler: impl crate::state::Handler<Args> + 'static) -> Self {
        self.object_handler = Some(Rc::new(move |object, request| handler.call(object, request)));
        self
    }

    /// Has the alarm of an object ring, whatever time it is set for.
    ///
    /// # Errors
    /// Those of the handler, after which the object and its alarm are as before; and when no alarm is set.
    pub fn ring(&self, handler: impl AlarmHandler, class: &str, object: &str) -> Result<()> {
        let _restore = Entered::new(self);
        let object = Object::new(class, object);
        let Some(alarm) = object.alarm()? else {
            return Err(crate::Error::internal(format_args!("no alarm of {class} `{}` is set", object.key())));
        };
        let before = self.state.borrow_mut().hold(&object)?;
        self.with_state(&object, |mut object| Ok(object.delete_alarm()))?;
        let rung = handler.ring(object.clone(), Ringing { scheduled_ms: alarm.scheduled_ms, retry_count: 0 });
        self.state.borrow_mut().release(&object, rung.is_err().then_some(before));
        rung
    }

    /// Lets time pass for what expires or waits. The worker's own clock is the machine's.
    pub fn advance(&self, by: Duration) {
        self.advanced.set(self.advanced.get() + by);
    }

    /// Runs something else than a handler in these surroundings, for example to prepare or to look at data.
    pub fn within<T>(&self, run: impl FnOnce() -> T) -> T {
        let _restore = Entered::new(self);
        run()
    }

    /// Runs a handler and gives what a client would see: an error as its response, and a call's unhandled error as the status of the host's
    /// answer with an empty body.
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

    /// Stores an object before the handler runs.
    #[must_use]
    pub fn with_object(self, path: &str, bytes: impl AsRef<[u8]>) -> Self {
        // What a path cannot be is refused where the handler would be.
        let restore = Entered::new(&self);
        let stored = crate::objects().put(path, bytes);
        drop(restore);
        debug_assert!(stored.is_ok(), "{stored:?}");
        self
    }

    /// The bytes of an object, as the handler has left it.
    pub fn object(&self, path: &str) -> Option<Vec<u8>> {
        self.objects.borrow().get(path).map(|(_, bytes)| bytes.to_vec())
    }

    pub(crate) fn objects(&self) -> Stored {
        self.objects.clone()
    }

    pub(crate) fn lookup_var(&self, name: &str) -> Option<String> {
        self.vars.get(name).cloned()
    }

    pub(crate) fn call_service(&self, binding: &str, request: Request) -> Result<Response, CallError> {
        self.record(binding, &request);
        match self.services.get(binding) {
            Some(target) => target(request),
            None => Err(CallError::UnknownBinding(format!(
                "the test binds no service as {binding}: add `.service(\"{binding}\", |req| ...)` to its TestEnv"
            ))),
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
            None => Err(CallError::Denied(format!(
                "the test answers no URL like `{}`: add `.url(\"<its start>\", |req| ...)` to its TestEnv",
                request.uri()
            ))),
        }
    }

    pub(crate) fn run_sql(&self, name: &str, statement: &sqlite::Statement) -> Result<sqlite::Answer, DataError> {
        let no_database = || {
            let text = format!("the test has no database {name}: add `.sqlite(\"{name}\", |statement| ...)` to its TestEnv");
            DataError::new("resource_not_found", text)
        };
        self.databases.get(name).ok_or_else(no_database)?(statement)
    }

    #[expect(clippy::disallowed_methods, reason = "a worker under test reads the machine's clock, and what it computes from that has to fit")]
    fn now(&self) -> u64 {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + self.advanced.get()).as_secs()
    }

    pub(crate) fn with_kv<T>(&self, namespace: &str, ask: impl FnOnce(Namespace<'_>) -> Result<T, DataError>) -> Result<T, DataError> {
        ask(self.kv.borrow_mut().find(namespace, self.now())?)
    }

    pub(crate) fn with_queues<T>(&self, ask: impl FnOnce(&mut Queues, u64) -> Result<T, DataError>) -> Result<T, DataError> {
        ask(&mut self.queues.borrow_mut(), self.now())
    }

    pub(crate) fn with_state<T>(&self, of: &Object, ask: impl FnOnce(StateObject<'_>) -> Result<T, DataError>) -> Result<T, DataError> {
        self.state.borrow_mut().on(of, self.now().saturating_mul(1_000), ask)
    }

    pub(crate) fn state_objects(&self, class: &str, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<ObjectPage, DataError> {
        self.state.borrow_mut().objects(class, prefix, limit, cursor)
    }

    /// Calls the handler of State objects. A call that calls its own object is refused, as the host does.
    pub(crate) fn call_object(&self, of: &Object, request: Request) -> Result<Response, CallError> {
        let refused = |code: &str, text: &str| CallError::State(DataError::new(code, text));
        let before = self.state.borrow_mut().hold(of).map_err(CallError::State)?;
        let answer = match &self.object_handler {
            Some(handler) => handler(of.clone(), request).map_err(Undone::from),
            None => Err(Undone::Call(refused("state_handler_missing", "the test has no handler: add `.state_handler(…)` to its TestEnv"))),
        };
        self.state.borrow_mut().release(of, answer.is_err().then_some(before));
        match answer {
            Ok(response) | Err(Undone::Answer(response)) => Ok(response),
            Err(Undone::Call(error @ (CallError::State(_) | CallError::ChainLimit(_)))) => Err(error),
            Err(Undone::Call(error)) => Ok(Response::empty(error.status())),
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
            .field("databases", &self.databases.keys())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Error;

    fn hello(_: Request) -> Response {
        Response::text("hello")
    }

    fn parse(req: Request) -> Result<Response, std::num::ParseIntError> {
        let number: u32 = req.path().trim_start_matches('/').parse()?;
        Ok(Response::text(number.to_string()))
    }

    fn asks(req: Request, env: Env) -> Result<Response> {
        Ok(env.service("NEXT").fetch(req)?)
    }

    #[test]
    fn handlers_of_every_shape_run() {
        let env = TestEnv::new().service("NEXT", |req| Ok(Response::text(req.path())));
        assert_eq!(env.run(hello, Request::get("/")).body(), b"hello");
        assert_eq!(env.run(parse, Request::get("/7")).body(), b"7");
        let failed = env.run(parse, Request::get("/seven"));
        assert_eq!((failed.status(), failed.body()), (500, br#"{"error":"internal error"}"#.as_slice()));
        assert_eq!(env.run(asks, Request::get("/x")).body(), b"/x");
    }

    #[test]
    fn an_unhandled_call_error_is_the_status_of_the_hosts_answer() {
        for (error, status) in [
            (CallError::ChainLimit(Vec::new()), 508),
            (CallError::Timeout, 504),
            (CallError::Unreachable("refused".into()), 502),
            (CallError::SubrequestLimit(50), 500),
        ] {
            let env = TestEnv::new().service("NEXT", move |_| Err(error.clone()));
            assert_eq!(env.run(asks, Request::get("/")).status(), status);
        }
        let error = TestEnv::new().try_run(asks, Request::get("/")).unwrap_err();
        assert!(matches!(error.call_error(), Some(CallError::UnknownBinding(text)) if text.contains(".service(\"NEXT\"")), "{error}");
    }

    #[test]
    fn variables_are_those_of_the_test_alone() {
        let path_of = |_: Request, env: Env| Response::json(&(env.var("PATH"), env.var("REGION")));
        assert_eq!(TestEnv::new().var("REGION", "eu").run(path_of, Request::get("/")).body(), br#"[null,"eu"]"#);
        let needs = |_: Request, env: Env| -> Result<Response> { Ok(Response::text(env.require("KEY")?)) };
        let error = TestEnv::new().try_run(needs, Request::get("/")).unwrap_err();
        assert!(error.to_string().contains("tovuk env set KEY"), "{error}");
    }

    #[test]
    fn urls_go_to_the_longest_prefix_and_nowhere_else() {
        let env = TestEnv::new()
            .url("https://api.example.com/", |_| Ok(Response::text("api")))
            .url("https://api.example.com/v2", |_| Ok(Response::text("v2")));
        let get = |req: Request| -> Result<Response> { Ok(crate::fetch(Request::get(req.query_param("url").unwrap_or_default()))?) };
        let answer = |url: &str| env.try_run(get, Request::get(format!("/?url={url}")));
        assert_eq!(answer("https://api.example.com/v2/x").unwrap().body(), b"v2");
        assert_eq!(answer("https://api.example.com/v20").unwrap().body(), b"api");
        assert_eq!(answer("https://api.example.com").unwrap().body(), b"api");
        for (url, code) in [("https://api.example.com.evil.org/", "denied"), ("http://api.example.com/", "denied"), ("/v2", "invalid_request")] {
            assert_eq!(answer(url).unwrap_err().call_error().map(CallError::code), Some(code), "{url}");
        }
    }

    #[test]
    fn calls_are_recorded_in_order_and_batches_answer_in_order() {
        let env = TestEnv::new().service("A", |req| Ok(Response::text(format!("a{}", req.path())))).service("B", |_| Err(CallError::Timeout));
        let batch = |_: Request, env: Env| -> Result<Response> {
            let mixed = env.call_all([("A", Request::get("/1")), ("B", Request::get("/2"))]);
            let same = env.service("A").fetch_all([Request::get("/3"), Request::get("/4")]);
            let texts: Vec<String> = mixed
                .into_iter()
                .chain(same)
                .map(|answer| answer.map_or_else(|error| error.code().into(), |answer| String::from_utf8_lossy(answer.body()).into_owned()))
                .collect();
            Response::json(&texts)
        };
        assert_eq!(env.run(batch, Request::get("/")).body(), br#"["a/1","timeout","a/3","a/4"]"#);
        let calls: Vec<_> = env.calls().into_iter().map(|call| (call.target, call.request.path().to_owned())).collect();
        assert_eq!(calls, [("A".into(), "/1".into()), ("B".into(), "/2".into()), ("A".into(), "/3".into()), ("A".into(), "/4".into())]);
    }

    #[test]
    fn surroundings_nest_and_end_with_the_handler_even_when_it_panics() {
        let inner = TestEnv::new().var("NAME", "inner");
        let name = |_: Request, env: Env| -> Result<Response> { Ok(Response::text(env.require("NAME")?)) };
        let outer = TestEnv::new().var("NAME", "outer").service("NEXT", move |req| Ok(inner.run(name, req)));
        let both = |req: Request, env: Env| -> Result<Response> {
            let below = env.service("NEXT").fetch(req)?;
            Ok(Response::text(format!("{} in {}", below.body_text()?, env.require("NAME")?)))
        };
        assert_eq!(outer.run(both, Request::get("/")).body(), b"inner in outer");
        let panics = |_: Request| -> Response { std::panic::resume_unwind(Box::new(())) };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outer.run(panics, Request::get("/")))).is_err());
        assert!(current().is_none());
        let lost = Env.service("NEXT").get("/").map_err(Error::from).unwrap_err();
        assert!(lost.to_string().contains("TestEnv"), "{lost}");
    }
}
