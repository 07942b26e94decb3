//! The one table of error codes: status, who is to blame, whether trying again can help, and a help text. Responses, the command line and
//! the reference documentation derive from it.

use serde::Serialize;

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Whoever sent the request.
    Caller,
    /// Whoever wrote the worker.
    Worker,
    /// Whoever runs the host.
    Operator,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// The code as it stands in the body.
    pub code: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// Who has to act.
    pub blame: Blame,
    /// Whether the same request can succeed later without a change.
    pub retryable: bool,
    /// What anonymous clients are told. It names no tenant, figure or path.
    pub message: &'static str,
    /// What to do about it, for whoever may know more.
    pub help: &'static str,
}

macro_rules! codes {
    ($($name:ident = $status:literal $code:literal $blame:ident $retryable:literal $message:literal $help:literal;)*) => {
        $(#[doc = $message] pub static $name: Code = Code { code: $code, status: $status, blame: Blame::$blame, retryable: $retryable, message: $message, help: $help };)*
        /// Every code, in the order of the table.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    BAD_REQUEST = 400 "bad_request" Caller false "The request is not valid HTTP for this host." "Send one Host header, one length, and a path that is a valid URI.";
    SERVICE_NOT_FOUND = 404 "service_not_found" Caller false "There is no service at this address." "Check the host name. A service without `routes` is private and answers nobody but the services that bind it.";
    ROUTE_NOT_FOUND = 404 "route_not_found" Caller false "The service has no route for this path." "Add the path to `routes` of the service in tovuk.toml.";
    RESERVED_PATH = 404 "reserved_path" Caller false "There is nothing at this address." "Paths under /.tovuk are the host's own: only it delivers events there. Use another path.";
    BODY_TOO_LARGE = 413 "body_too_large" Caller false "The body is larger than the service accepts." "Send less, or raise `body_mb` (lean world) or `stream_body_mb` (wasi:http) under [services.<name>.limits].";
    MISDIRECTED_REQUEST = 421 "misdirected_request" Caller false "The request reached a host that does not serve its authority." "Send the request to the address of its own host name.";
    WORKER_TRAPPED = 500 "worker_trapped" Worker false "The service failed." "The worker trapped; the log has the backtrace: a panic, an `unreachable`, or a stack that grew too deep.";
    WORKER_FAILED = 500 "worker_failed" Worker false "The service failed." "The worker returned an error, exited or ended without a response; the log says which.";
    RESPONSE_TOO_LARGE = 502 "response_too_large" Worker false "The service answered with more than it may." "Answer with less, or raise `body_mb` under [services.<name>.limits]; a worker that streams has `stream_body_mb`.";
    UPSTREAM_UNREACHABLE = 502 "upstream_unreachable" Worker true "The service could not reach something it depends on." "The worker passed on a failed outgoing call; the log says to where and why.";
    WORKER_CPU_EXCEEDED = 503 "worker_cpu_exceeded" Worker false "The service used more CPU time than it may." "Do less in one request, or raise `cpu_ms` under [services.<name>.limits].";
    WORKER_MEMORY_EXCEEDED = 503 "worker_memory_exceeded" Worker false "The service used more memory than it may." "Hold less in memory, or raise `memory_mb` under [services.<name>.limits].";
    SERVICE_NOT_DEPLOYED = 503 "service_not_deployed" Worker true "The service has no live deploy." "Deploy the service; under `tovuk dev`, correct what its build reports.";
    SERVICE_BUSY = 503 "service_busy" Caller true "The service is handling as many requests as it may." "Try again shortly, or raise `concurrency` under [services.<name>.limits].";
    HOST_BUSY = 503 "host_busy" Operator true "The host is handling as much as it can." "Try again shortly. Operators: every instance slot or the guest memory is in use.";
    WORKER_TIMEOUT = 504 "worker_timeout" Worker true "The service did not answer in time." "Answer sooner, or raise `wall_ms` under [services.<name>.limits].";
    BINDING_CHAIN_LIMIT = 508 "binding_chain_limit" Worker false "The request caused more service calls than it may." "One request may cause 32 invocations; the hops are in the log and in the error that the calling worker got.";
    SUBREQUEST_LIMIT = 500 "subrequest_limit" Worker false "The service made more calls than it may." "Make fewer calls in one request, or raise `subrequests` under [services.<name>.limits].";
    INTERNAL_ERROR = 500 "internal_error" Operator true "The host failed." "The host's log has the details under this request id.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique_and_their_public_messages_are_neutral() {
        let mut seen = HashSet::new();
        for code in ALL {
            assert!(seen.insert(code.code), "{} twice", code.code);
            assert!((400..600).contains(&code.status), "{}", code.code);
            assert!(!code.message.contains("tovuk"), "{}", code.code);
            assert!(!code.help.is_empty());
        }
    }
}
