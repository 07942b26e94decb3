//! Logs of services, deploys and builds: in pages, and as they are written.

use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use schemars::JsonSchema;
use serde::Deserialize;
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::limits::LOG_FOLLOW_SECONDS_MAX;
use tovuk_kernel::operation::{Method, Operation, Request};
use tovuk_runtime::body::{Body, BodyError};

use super::builds::find as build_of;
use super::deploys::find as deploy_of;
use crate::control::handler::{Handler, Streams};
use crate::control::{Caller, Control, Refusal};
use crate::logs::{Entry, Following, Page, Query, Subject};

/// How often an empty line is sent to whoever follows, so that proxies keep the connection and a token that was revoked is noticed.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// A log, as a page and as it is written. Both read the same lines.
macro_rules! log {
    ($page:ident, $follow:ident, $field:ident, $id:literal, $names:literal, $path:literal, $what:literal, $about:expr, $errors:expr, $follow_errors:expr) => {
        #[doc = concat!("Reads ", $what, ".")]
        #[derive(Debug, Deserialize, JsonSchema)]
        pub struct $page {
            #[doc = concat!("The ", $id, ".")]
            pub $field: String,
            /// Most lines to return, 1 to 1,000.
            pub limit: Option<u32>,
            /// Where to go on.
            pub cursor: Option<String>,
            /// Summaries of invocations that ended so alone: `ok`, `trap`, `cpu`, `memory`, `wall`, `refused`, `cancelled`, `failed`, or `error` for all but `ok`.
            pub outcome: Option<String>,
            /// Lines of this trace alone.
            pub trace: Option<String>,
        }

        impl Request for $page {
            const OPERATION: Operation = Operation::new(concat!($names, ".logs"), Method::Get, concat!($path, "/logs"), concat!("Read ", $what))
                .described($about)
                .errors($errors);
            type Response = Page;
        }

        impl Handler for $page {
            async fn run(self, control: Control, caller: Caller) -> Result<Page, Refusal> {
                let subject = $field(&control, &caller, self.$field).await?;
                let query = Query { limit: self.limit, cursor: self.cursor, outcome: self.outcome, trace: self.trace };
                Ok(control.logs().read(subject, &query).await?)
            }
        }

        #[doc = concat!("Follows ", $what, ".")]
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $follow {
            #[doc = concat!("The ", $id, ".")]
            pub $field: String,
            /// How many lines from before come first, 0 to 1,000; 10 when absent.
            pub limit: Option<u32>,
            /// Where to begin: `follow_cursor` of a page, or `cursor` of a line.
            pub cursor: Option<String>,
            /// Summaries of invocations that ended so alone, as for the page.
            pub outcome: Option<String>,
            /// Lines of this trace alone.
            pub trace: Option<String>,
            /// How long to follow, in s, at most an hour, which is also what counts when it is absent.
            pub wait_seconds: Option<u32>,
        }

        impl Request for $follow {
            const OPERATION: Operation =
                Operation::new(concat!($names, ".logs.follow"), Method::Get, concat!($path, "/logs/follow"), concat!("Follow ", $what))
                    .described(FOLLOWED)
                    .errors($follow_errors)
                    .streams();
            type Response = Entry;
        }

        impl Streams for $follow {
            async fn stream(self, control: Control, caller: Caller) -> Result<Body, Refusal> {
                let subject = $field(&control, &caller, self.$field).await?;
                let query = Query { limit: self.limit, cursor: self.cursor, outcome: self.outcome, trace: self.trace };
                follow(control, caller, subject, &query, self.wait_seconds)
            }
        }
    };
}

const FOLLOWED: &str = "The lines of the log as they are written, one JSON object each. Empty lines say that the connection lives. The answer ends after the time \
    that was asked for, when the service is deleted and when the host stops; go on with the `cursor` of the last line.";
const OF_SERVICE: &str = "What the worker has written and how its invocations have ended, the latest lines in the order of time. Where lines are asked for by \
    outcome or trace, a page may be empty and lead on all the same: it looks at no more than 20,000 lines.";
const OF_OTHERS: &str = "The latest lines, in the order of time.";

const SERVICE: &[&Code] = &[&codes::INVALID_CURSOR];
const SERVICE_FOLLOWED: &[&Code] = &[&codes::INVALID_CURSOR, &codes::TOO_MANY_REQUESTS];
const DEPLOY: &[&Code] = &[&codes::DEPLOY_NOT_FOUND, &codes::INVALID_CURSOR];
const DEPLOY_FOLLOWED: &[&Code] = &[&codes::DEPLOY_NOT_FOUND, &codes::INVALID_CURSOR, &codes::TOO_MANY_REQUESTS];
const BUILD: &[&Code] = &[&codes::BUILD_NOT_FOUND, &codes::INVALID_CURSOR];
const BUILD_FOLLOWED: &[&Code] = &[&codes::BUILD_NOT_FOUND, &codes::INVALID_CURSOR, &codes::TOO_MANY_REQUESTS];

log!(OfBuild, FollowBuild, build, "build", "build", "/v1/builds/{build}", "the log of a build", OF_OTHERS, BUILD, BUILD_FOLLOWED);
log!(OfDeploy, FollowDeploy, deploy, "deploy", "deploy", "/v1/deploys/{deploy}", "the log of a deploy", OF_OTHERS, DEPLOY, DEPLOY_FOLLOWED);
log!(
    OfService,
    FollowService,
    service,
    "service",
    "service",
    "/v1/services/{service}",
    "the log of a service's worker",
    OF_SERVICE,
    SERVICE,
    SERVICE_FOLLOWED
);

async fn build(control: &Control, caller: &Caller, id: String) -> Result<Subject, Refusal> {
    let build = build_of(control, caller, id).await?;
    let (account, deploy) = (caller.account_number(), format!("deploy_{}", build.deploy_id));
    let deploy = control.read(move |conn| deploy_of(conn, account, &deploy)).await?;
    Ok(Subject::Build(format!("service_{}", deploy.service_id).into(), format!("job_{}", build.id).into()))
}

async fn deploy(control: &Control, caller: &Caller, id: String) -> Result<Subject, Refusal> {
    let account = caller.account_number();
    let deploy = control.read(move |conn| deploy_of(conn, account, &id)).await?;
    Ok(Subject::Deploy(format!("service_{}", deploy.service_id).into(), format!("deploy_{}", deploy.id).into()))
}

async fn service(control: &Control, caller: &Caller, id: String) -> Result<Subject, Refusal> {
    Ok(Subject::Service(control.service(caller, &id).await?.service_id()))
}

/// What is sent next to whoever follows.
enum Next {
    Lines(Bytes),
    End,
}

/// Whoever follows a log, with what ends it.
struct Follower {
    control: Control,
    caller: Caller,
    following: Following,
    /// On the clock's monotonic scale.
    ends_ms: u64,
    /// When it was last looked whether the token still lets its owner in.
    checked_ms: u64,
    /// What was there at the beginning has been sent.
    begun: bool,
}

fn follow(control: Control, caller: Caller, subject: Subject, query: &Query, seconds: Option<u32>) -> Result<Body, Refusal> {
    let seconds = seconds.unwrap_or(LOG_FOLLOW_SECONDS_MAX).min(LOG_FOLLOW_SECONDS_MAX);
    let following = control.logs().follow(caller.account_number(), subject, query)?;
    let checked_ms = control.clock().monotonic_ms();
    let ends_ms = checked_ms + u64::from(seconds) * 1_000;
    let follower = Follower { control, caller, following, ends_ms, checked_ms, begun: false };
    let frames = stream::try_unfold(follower, |mut follower| async move {
        match follower.next().await {
            Ok(Next::Lines(bytes)) => Ok(Some((Frame::data(bytes), follower))),
            Ok(Next::End) => Ok(None),
            Err(error) => {
                tracing::error!("a log cannot be followed any further: {error}");
                Err(BodyError::InternalError(None))
            }
        }
    });
    Ok(Body::stream(StreamBody::new(frames)))
}

impl Follower {
    async fn next(&mut self) -> Result<Next, Refusal> {
        if !std::mem::replace(&mut self.begun, true) {
            // Something in any case, so that the client knows that it follows.
            return Ok(self.following.now().await?.map_or(Next::End, |lines| written(&lines)));
        }
        let clock = self.control.clock().clone();
        let left = Duration::from_millis(self.ends_ms.saturating_sub(clock.monotonic_ms()));
        let stopping = self.control.deliveries().stopping();
        let lines = tokio::select! {
            biased;
            lines = self.following.next() => Some(lines?),
            () = stopping => return Ok(Next::End),
            () = clock.sleep(left.min(ALIVE_EVERY)) => None,
        };
        let now_ms = clock.monotonic_ms();
        if Duration::from_millis(now_ms.saturating_sub(self.checked_ms)) >= ALIVE_EVERY {
            // Whoever asked may have lost the right to meanwhile.
            if !self.control.tokens().is_valid(&self.caller, self.control.now_ms()) {
                return Ok(Next::End);
            }
            self.checked_ms = now_ms;
        }
        match lines {
            Some(None) => Ok(Next::End),
            Some(Some(lines)) => Ok(written(&lines)),
            None if left <= ALIVE_EVERY => Ok(Next::End),
            None => Ok(written(&[])),
        }
    }
}

/// A JSON object for each line, or one empty line.
fn written(lines: &[Entry]) -> Next {
    let text: Vec<_> = lines.iter().filter_map(|line| serde_json::to_string(line).ok()).collect();
    Next::Lines(Bytes::from(text.join("\n") + "\n"))
}
