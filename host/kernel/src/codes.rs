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
        $(#[doc = $message] pub const $name: Code = Code { code: $code, status: $status, blame: Blame::$blame, retryable: $retryable, message: $message, help: $help };)*
        /// Every code, in the order of the table.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    BAD_REQUEST = 400 "bad_request" Caller false "The request is not valid HTTP for this host." "Send one Host header, one length, and a path that is a valid URI.";
    ARCHIVE_REFUSED = 400 "archive_refused" Caller false "The archive cannot be accepted." "The message names the entry and what to do about it. Send a gzip-compressed tar of regular files, without links, secrets or build output.";
    SERVICE_NOT_FOUND = 404 "service_not_found" Caller false "There is no service at this address." "Check the host name. A service without `routes` is private and answers nobody but the services that bind it.";
    ROUTE_NOT_FOUND = 404 "route_not_found" Caller false "The service has no route for this path." "Add the path to `routes` of the service in tovuk.toml.";
    RESERVED_PATH = 404 "reserved_path" Caller false "There is nothing at this address." "Paths under /.tovuk are the host's own: only it delivers events there. Use another path.";
    DOMAIN_INVALID = 400 "domain_invalid" Caller false "This is no host name that a service can answer at." "Give a host name of your own with at least two labels, such as api.example.com, without scheme, port, path or wildcard.";
    DOMAIN_RESERVED = 409 "domain_reserved" Caller false "This host name cannot be a custom domain." "Use a name under a domain that you registered; names under the host's own domain and local names are not given out.";
    DOMAIN_TAKEN = 409 "domain_taken" Caller false "This host name belongs to another service." "Remove it there first with `tovuk domains delete`, or use another name.";
    DOMAIN_NOT_VERIFIED = 409 "domain_not_verified" Caller true "The DNS record of this host name is not in place." "Make the CNAME record that `tovuk domains list` shows, wait until your DNS provider has published it, then run `tovuk domains verify` again.";
    REMOTE_BUILD_DISABLED = 409 "remote_build_disabled" Operator false "This host does not build from source." "Build the component and deploy it with `tovuk deploy`, which builds on your machine. Operators: start `tovuk serve` with `--remote-build`, or set `remote_build = true`.";
    ARCHIVE_TOO_LARGE = 413 "archive_too_large" Caller false "The archive is larger than this host accepts." "Leave out what the service does not need: the message says which limit was met.";
    BODY_TOO_LARGE = 413 "body_too_large" Caller false "The body is larger than the service accepts." "Send less, or raise `body_mb` (lean world) or `stream_body_mb` (wasi:http) under [services.<name>.limits].";
    INVALID_REQUEST = 400 "invalid_request" Caller false "The request is not valid." "Send what the API reference says for this route.";
    INVALID_NAME = 400 "invalid_name" Caller false "The name cannot be used." "Choose a name as the message says.";
    INVALID_CONFIG = 400 "invalid_config" Caller false "The project's configuration is not valid." "Correct what the message names; `tovuk check` finds the same before a deploy.";
    INVALID_CURSOR = 400 "invalid_cursor" Caller false "The cursor is not one of this list." "Send `next_cursor` of the page before, unchanged, or leave it out to begin anew.";
    UNAUTHORIZED = 401 "unauthorized" Caller false "The request needs a valid token." "Run `tovuk login`, or send `Authorization: Bearer <token>` with a token that `tovuk token create` has made.";
    TOKEN_SCOPE = 403 "token_scope" Caller false "The token does not reach this far." "Use a token of the account whose scope covers this; `tovuk token list` shows scopes. The token of a running worker reaches its own service's data only.";
    ACCOUNT_SUSPENDED = 403 "account_suspended" Operator false "The account is suspended." "Ask the operator of this host.";
    API_ROUTE_NOT_FOUND = 404 "api_route_not_found" Caller false "The API has no such route." "See `GET /openapi.json` of this host for its routes.";
    ACCOUNT_NOT_FOUND = 404 "account_not_found" Caller false "There is no such account." "Run `tovuk operator account list`.";
    TOKEN_NOT_FOUND = 404 "token_not_found" Caller false "There is no such token." "Run `tovuk token list`.";
    TRACE_NOT_FOUND = 404 "trace_not_found" Caller false "There is no such trace." "Run `tovuk traces --service <service>`. Traces are kept for a day; under load only some are kept.";
    DEPLOY_NOT_FOUND = 404 "deploy_not_found" Caller false "There is no such deploy." "Run `tovuk deploy list`.";
    BUILD_NOT_FOUND = 404 "build_not_found" Caller false "There is no such build." "Run `tovuk deploy list`; each deploy names its build.";
    ENV_NOT_FOUND = 404 "env_not_found" Caller false "There is no such secret." "Run `tovuk env list --service <service>`.";
    RESOURCE_NOT_FOUND = 404 "resource_not_found" Caller false "There is no such resource." "Run `tovuk service show <service>`: it names what the service has.";
    BINDING_NOT_FOUND = 404 "binding_not_found" Caller false "There is no such binding." "Run `tovuk binding list --service <service>`.";
    DOMAIN_NOT_FOUND = 404 "domain_not_found" Caller false "There is no such domain." "Run `tovuk domains list --service <service>`.";
    LOGIN_NOT_FOUND = 404 "login_not_found" Caller false "There is no such login." "Run `tovuk login` again: a login is open for ten minutes.";
    NODE_NOT_FOUND = 404 "node_not_found" Caller false "There is no such node." "Run `tovuk nodes list`.";
    METHOD_NOT_ALLOWED = 405 "method_not_allowed" Caller false "The route has no such method." "See `GET /openapi.json` of this host for its methods.";
    SERVICE_EXISTS = 409 "service_exists" Caller false "A service of that name exists." "Choose another name, or deploy to the one that exists.";
    SERVICE_LIMIT = 409 "service_limit" Caller false "The account has as many services as its plan allows." "Delete a service with `tovuk service delete`, or ask the operator for another plan.";
    SERVICE_IN_USE = 409 "service_in_use" Caller false "Other services are bound to this one." "Delete the bindings that the message names, or repeat with `--force` (`?force=true`): their calls then fail.";
    RESOURCE_EXISTS = 409 "resource_exists" Caller false "A resource of that name exists." "Choose another name, or delete the one that exists first.";
    USAGE_CAP_EXCEEDED = 429 "usage_cap_exceeded" Caller true "A usage cap has been reached." "Work goes on when the period ends, which Retry-After says. `tovuk usage` shows what was used, `tovuk limits list` the caps; `tovuk limits set <meter> --period <period> --value <n>` raises one.";
    RESOURCE_LIMIT = 409 "resource_limit" Caller false "The service has as many resources as it may." "Delete resources that are no longer used: see `tovuk service show <service>`.";
    BINDING_REFUSED = 409 "binding_refused" Caller false "The binding is not possible." "Bind a service with a worker to a service with a worker; static frontends neither call nor are called.";
    BINDING_TARGET_NOT_FOUND = 409 "binding_target_not_found" Caller false "The target of the binding does not exist." "Deploy the target first, or correct its name: `tovuk service list`.";
    ENV_LIMIT = 409 "env_limit" Caller false "The service has as many secrets as it may." "Delete secrets that are no longer used: `tovuk env list --service <service>`.";
    TOKEN_LIMIT = 409 "token_limit" Caller false "The account has as many tokens as it may." "Revoke tokens that are no longer used: `tovuk token list`.";
    SECRET_MISSING = 409 "secret_missing" Caller false "The service declares a secret that is not set." "Run `tovuk env set <NAME>=<value> --service <service>`, then deploy again.";
    HANDLE_TAKEN = 409 "handle_taken" Caller false "The handle belongs to another account." "Choose another handle.";
    NOT_DEPLOYED = 409 "not_deployed" Caller false "The service has no live deploy." "Run `tovuk deploy`.";
    DEPLOY_NOT_CANCELABLE = 409 "deploy_not_cancelable" Caller false "The deploy has ended." "Nothing is left to cancel. `tovuk deploy rollback <deploy>` brings an earlier deploy back.";
    ROLLBACK_REFUSED = 409 "rollback_refused" Caller false "The deploy cannot be brought back." "Choose a deploy that has been live: `tovuk deploy list --service <service>`.";
    DOMAIN_LIMIT = 409 "domain_limit" Caller false "The service has as many domains as it may." "Delete domains that are no longer used: `tovuk domains list --service <service>`.";
    BUILD_SANDBOX_UNAVAILABLE = 503 "build_sandbox_unavailable" Operator false "This host cannot build from source now." "Builds run in Linux namespaces or not at all. Build on your machine with `tovuk deploy`. Operators: `tovuk doctor` says what is missing, most often a sysctl that forbids user namespaces.";
    COMPONENT_REFUSED = 422 "component_refused" Worker false "The component cannot run here." "Correct what the message names; `tovuk check <component>` finds the same before a deploy.";
    HEALTH_CHECK_FAILED = 422 "health_check_failed" Worker false "The service did not answer its health request." "Make the path in `health` answer with a status below 400; `tovuk logs --build <build>` says what it answered.";
    BUILD_FAILED = 422 "build_failed" Worker false "The build failed." "Run `tovuk logs --build <build>`.";
    TOO_MANY_REQUESTS = 429 "too_many_requests" Caller true "There were too many requests." "Wait, then try again.";
    NOT_ON_THIS_HOST = 501 "not_on_this_host" Operator false "This host does not offer that." "Billing, support tickets and abuse reports belong to the hosted service; ask the operator of this host instead.";
    HOST_DRAINING = 503 "host_draining" Operator true "The host is stopping or being maintained." "Try again shortly.";
    OBJECT_NOT_FOUND = 404 "object_not_found" Caller false "There is no such object." "Run `tovuk storage list --service <service>`; an object is there once its upload was completed.";
    OBJECT_PATH_INVALID = 400 "object_path_invalid" Caller false "The path of the object cannot be used." "Use a relative path of at most 1,024 bytes of UTF-8, such as uploads/logo.png: no leading or doubled slash, no `.` or `..` segment, no control character, also not encoded.";
    OBJECT_TOO_LARGE = 413 "object_too_large" Caller false "The object is larger than it may be." "Send less at a time: above 100 MiB, create a multipart upload and send the parts that it lists.";
    OBJECT_STORAGE_LIMIT = 409 "object_storage_limit" Caller false "The account's object storage is full." "Delete objects that are no longer used: `tovuk storage delete <path> --service <service>`. Uploads that are open count until they are aborted, at most for 24 hours.";
    OBJECT_MEDIA_REFUSED = 415 "object_media_refused" Caller false "The content is not what its type says." "A public object of an image, audio, video or font type may not hold a program, a script or a page. Send the right content type, or make the object private.";
    OBJECT_PRECONDITION_FAILED = 412 "object_precondition_failed" Caller false "The object is not the version that was asked for." "Read the object again and use its current ETag.";
    OBJECT_RANGE_INVALID = 416 "object_range_invalid" Caller false "The object has no such range." "Ask for a range that begins before the end of the object.";
    UPLOAD_NOT_FOUND = 404 "upload_not_found" Caller false "There is no such upload." "Begin anew: an upload ends when it is completed, aborted, or 24 hours old.";
    UPLOAD_LIMIT = 409 "upload_limit" Caller false "The service has as many open uploads as it may." "Complete or abort uploads that were begun. What is abandoned is removed after 24 hours.";
    UPLOAD_INCOMPLETE = 409 "upload_incomplete" Caller true "Not all of the upload has arrived." "Send what the message names, then complete the upload again.";
    UPLOAD_MISMATCH = 400 "upload_mismatch" Caller false "The upload is not what was announced." "Send exactly as many bytes as announced; list every part once, in order, with the ETag that its upload answered.";
    UPLOAD_INTERRUPTED = 400 "upload_interrupted" Caller true "The upload broke off." "Send the same bytes again to the same URL; parts that have arrived stay.";
    UPLOAD_SUPERSEDED = 409 "upload_superseded" Caller false "Another request sends the same upload." "Nothing is to be done: the later request goes on.";
    SIGNED_URL_INVALID = 403 "signed_url_invalid" Caller false "The URL is not one that this host has signed." "Use the URL exactly as it was given, with the same method.";
    SIGNED_URL_EXPIRED = 403 "signed_url_expired" Caller false "The URL has expired." "Ask for a new one: URLs are valid for 15 minutes, those of multipart uploads for 24 hours.";
    SQLITE_QUERY_FAILED = 400 "sqlite_query_failed" Caller false "The statement could not be run." "Correct the statement or its parameters as the message says; nothing of it was kept.";
    SQLITE_CONSTRAINT = 409 "sqlite_constraint" Caller false "The change breaks a constraint of the database." "The message names the constraint. Nothing of the query or batch was kept.";
    SQLITE_FORBIDDEN = 403 "sqlite_forbidden" Caller false "The statement is not allowed here." "The message names what is not allowed and what to use in its place. SQL reaches its own database only: no other files, extensions or settings of the connection.";
    SQLITE_BUDGET_EXCEEDED = 422 "sqlite_budget_exceeded" Caller false "The statement needed more than it may." "Nothing of it was kept. The message names the limit that was met. Read fewer rows: an index, a LIMIT, or smaller batches; large results can be streamed.";
    SQLITE_STORAGE_FULL = 409 "sqlite_storage_full" Caller false "The database, or what the account has in all, is as large as it may be." "Nothing was written. Delete rows that are no longer needed, then `PRAGMA incremental_vacuum`; where backups take the room, delete some of them; or ask for a plan with larger databases.";
    SQLITE_BUSY = 503 "sqlite_busy" Caller true "The database is handling as much as it can." "Try again shortly. Shorter transactions and fewer concurrent calls help.";
    SQLITE_TRANSACTION_ENDED = 409 "sqlite_transaction_ended" Caller true "The transaction has ended." "It was rolled back: it was open for too long, was idle for too long, or one of its statements failed. Begin it again.";
    SQLITE_MIGRATION_REFUSED = 409 "sqlite_migration_refused" Caller false "The migrations do not fit what was applied, or each other." "The message says which one. Migrations that were applied must stay as they were, and new ones come after them. Undo the edit and add a new migration.";
    SQLITE_BACKUP_NOT_FOUND = 404 "sqlite_backup_not_found" Caller false "There is no such backup." "Run `tovuk sqlite backup list <database> --service <service>`.";
    SQLITE_BACKUP_REFUSED = 422 "sqlite_backup_refused" Caller false "The backup cannot be restored." "The database is unchanged. The message says what is wrong with the backup; restore another one.";
    KV_KEY_INVALID = 400 "kv_key_invalid" Caller false "The key cannot be used." "Use 1 to 512 bytes of UTF-8, and neither `.` nor `..`. Slashes are allowed; in a URL they are percent-encoded.";
    KV_KEY_NOT_FOUND = 404 "kv_key_not_found" Caller false "There is no such key." "Run `tovuk kv keys <namespace> --service <service>`. A key that has expired is gone.";
    KV_VALUE_TOO_LARGE = 413 "kv_value_too_large" Caller false "The value is larger than it may be." "Keep values of more than 25 MiB in object storage: `tovuk storage upload`.";
    KV_METADATA_INVALID = 400 "kv_metadata_invalid" Caller false "The metadata cannot be used." "Send JSON of at most 1,024 bytes, for example {\"kind\":\"profile\"}, and keep the rest in the value.";
    KV_EXPIRATION_TOO_SOON = 400 "kv_expiration_too_soon" Caller false "The expiration is too soon." "Send a ttl of at least 30 seconds, or an expiration in seconds since the UNIX epoch that lies at least 30 seconds ahead. If both are sent, the ttl counts.";
    KV_STORAGE_FULL = 409 "kv_storage_full" Caller false "The account's KV storage is full." "Nothing was written. Remove keys or namespaces that are no longer used: `tovuk kv delete <namespace> <key> --service <service>`. What has expired counts until it is swept, seconds later. Or ask the operator for another plan.";
    KV_BULK_TOO_LARGE = 413 "kv_bulk_too_large" Caller false "The bulk request is larger than it may be." "Split it: at most 100 keys to read, or 10,000 to write or remove, and 100 MB, in one request.";
    STATE_KEY_INVALID = 400 "state_key_invalid" Caller false "The key cannot be used." "Use 1 to 512 bytes of UTF-8, and neither `.` nor `..`, for objects as for the keys in them. Slashes are allowed; in a URL they are percent-encoded.";
    STATE_KEY_NOT_FOUND = 404 "state_key_not_found" Caller false "There is no such key." "Run `tovuk state keys <class> <object> --service <service>`.";
    STATE_VALUE_TOO_LARGE = 413 "state_value_too_large" Caller false "The value is larger than it may be." "A key and its value have at most 2 MiB together. Split the value, or keep it in object storage.";
    STATE_BATCH_TOO_LARGE = 413 "state_batch_too_large" Caller false "The write is larger than it may be." "Split it: at most 1,000 changes and 32 MiB in one atomic write.";
    STATE_NOT_INTEGER = 409 "state_not_integer" Caller false "The value cannot be counted up." "Only what is written as a decimal integer of 64 bits can be incremented, and only as far as such an integer goes. A key that is not there counts from 0.";
    STATE_ALARM_INVALID = 400 "state_alarm_invalid" Caller false "The time of the alarm cannot be used." "Send a delay in seconds, or a time in milliseconds since the UNIX epoch before the year 10000. A time that has passed means now.";
    STATE_ALARM_SCHEDULE_REQUIRED = 400 "state_alarm_schedule_required" Caller false "The alarm has no time." "Say when it rings: `delaySeconds` (`--delay-seconds 60`), or `scheduledAtUnixMs` in milliseconds since the UNIX epoch.";
    STATE_ALARM_SCHEDULE_CONFLICT = 400 "state_alarm_schedule_conflict" Caller false "The alarm has two times." "Send either `delaySeconds` or `scheduledAtUnixMs`, not both.";
    STATE_STORAGE_FULL = 409 "state_storage_full" Caller false "The State storage is full." "Nothing was written. The message says whether it is the object or the account. Delete values that are no longer used, or ask the operator for another plan.";
    STATE_HANDLER_MISSING = 500 "state_handler_missing" Worker false "The service has no handler for its State objects." "Export `tovuk:state/handler` from the worker, #[tovuk::state] in the SDK, and deploy it.";
    STATE_OBJECT_BUSY = 503 "state_object_busy" Caller true "The State object is busy." "Calls of one object run one at a time, and one waits 10 seconds at most. Spread work over more objects, or do less in one call.";
    STATE_DEADLOCK = 508 "state_deadlock" Worker false "The call would wait for itself." "A call of a State object waited for an object that its own chain of calls holds, or that is held by one which waits for it. Call objects in one order, or answer before calling back.";
    QUEUE_MESSAGE_TOO_LARGE = 413 "queue_message_too_large" Caller false "The message is larger than it may be." "A body has at most 127,900 bytes. Keep what is larger in object storage, `tovuk storage upload`, and send its path.";
    QUEUE_BATCH_TOO_LARGE = 413 "queue_batch_too_large" Caller false "The batch is larger than it may be." "Split it: at most 100 messages and 256 KB in one batch.";
    QUEUE_RATE_EXCEEDED = 429 "queue_rate_exceeded" Caller true "Messages come faster than the queue takes them." "A queue takes 5,000 messages a second. Wait as long as Retry-After says, or spread the messages over more queues.";
    QUEUE_BACKLOG_FULL = 409 "queue_backlog_full" Caller true "The queue is full." "Nothing was sent. Messages leave the queue when they are acknowledged or expire: see `tovuk queue metrics <queue> --service <service>`.";
    QUEUE_POLICY_INVALID = 400 "queue_policy_invalid" Caller false "The settings of the queue cannot be used." "Set what the message names within the range that it gives.";
    QUEUE_DEAD_LETTER_REFUSED = 409 "queue_dead_letter_refused" Caller false "The queue cannot take these dead letters." "Name another queue of the same service, whose own dead letters do not come back here; `tovuk queue list --service <service>`.";
    QUEUE_CONSUMER_MISMATCH = 409 "queue_consumer_mismatch" Caller false "The queue is consumed in another way." "Pull from queues whose consumer is `pull`; the others deliver to the worker. `tovuk queue update` changes it.";
    CRON_EXPRESSION_INVALID = 400 "cron_expression_invalid" Caller false "The cron expression cannot be used." "Give five fields in UTC, minute, hour, day of month, month and day of week, such as `0 0 * * *`.";
    STORAGE_FAILED = 503 "storage_failed" Operator true "The host could not store this." "Nothing was changed. Operators: the host's log has the reason; a full disk needs no restart, a failing one does.";
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
