//! The limits that are the same for every plan and service: constants, and the table that the reference is made of.

use super::Fixed;

/// Constants, and the table of them, from one place.
macro_rules! fixed {
    ($(#[doc = $doc:literal] pub const $name:ident: $type:ty = $value:expr;)*) => {
        $(#[doc = $doc] pub const $name: $type = $value;)*
        /// The limits that are the same for every plan and service.
        pub const FIXED: &[Fixed] = &[$(Fixed { name: stringify!($name), value: $name as u64, doc: $doc }),*];
    };
}

// Not indented, so that a row reads like any other constant.
fixed! {
/// Invocations that one request from outside may cause, itself included. The same for every plan.
pub const CHAIN_INVOCATIONS: u32 = 32;
/// Top-level requests of all services of one account that run at a time.
pub const ACCOUNT_CONCURRENCY: u32 = 512;
/// Wall clock of an invocation started by an event (queue batch, cron tick, alarm).
pub const EVENT_WALL_MS: u64 = 900_000;
/// Largest answer of a worker to an event, in bytes.
pub const EVENT_ANSWER_BYTES_MAX: u64 = 1 << 20;
/// At which percentage of a usage cap its account is told, unless the cap says otherwise.
pub const CAP_NOTIFY_PERCENT_DEFAULT: u16 = 80;
/// Tokens that one account may have at a time.
pub const API_TOKENS_MAX: u64 = 100;
/// Secrets of one service.
pub const ENV_VARIABLES_MAX: u64 = 64;
/// Largest value of a secret, in bytes.
pub const ENV_VALUE_BYTES_MAX: usize = 5 << 10;
/// Largest body of a deploy, in bytes: a component and an archive of files, both written in base64.
pub const DEPLOY_BODY_BYTES_MAX: u64 = 160 << 20;
/// Largest archive of source or static files, compressed.
pub const ARCHIVE_GZIP_BYTES: u64 = 50_331_648;
/// Bodies of API requests that are held at a time by all clients together, in MiB.
pub const API_BODIES_MIB_MAX: u32 = 512;
/// How much of that the bodies of one account may take, in MiB: more than the largest deploy, and less than all.
pub const API_BODIES_ACCOUNT_MIB_MAX: u32 = 256;
/// Largest body of an operation that needs no token, in bytes.
pub const API_PUBLIC_BODY_BYTES_MAX: u64 = 64 << 10;
/// Up to this an answer of the API needs no share of the host's memory, in bytes: so an operator is heard whatever guests use up.
pub const API_ANSWER_BYTES_FREE: usize = 1 << 20;
/// How fast the body of an API request has to arrive on the whole, in bytes/s, after a first minute: memory is held for it meanwhile.
pub const API_BODY_BYTES_PER_SECOND_MIN: u64 = 128 << 10;
/// Longest wait for the end of a build, in s: shorter than what clients and proxies wait for an answer.
pub const BUILD_WAIT_SECONDS_MAX: u32 = 20;
/// How far the clock of a development host can be moved at a time, in s: ten years.
pub const CLOCK_ADVANCE_SECONDS_MAX: u64 = 315_360_000;
/// Longest display name of an account, in characters.
pub const DISPLAY_NAME_CHARS_MAX: usize = 100;
/// Longest name of a token, in characters.
pub const TOKEN_NAME_CHARS_MAX: usize = 100;
/// Largest body of an API request with SQL, in bytes: a batch with its parameters, or the scripts of a migrations folder.
pub const API_SQLITE_BODY_BYTES_MAX: u64 = 32 << 20;
/// Largest body of an API request that writes to KV, in bytes: what a bulk request may have, written as base64, with room for the rest.
pub const API_KV_BODY_BYTES_MAX: u64 = 140_000_000;
/// Largest body of an API request that writes a value of State, in bytes: what it may have, with each byte written as an escape of JSON.
pub const API_STATE_BODY_BYTES_MAX: u64 = 13 << 20;
/// Largest `config` of a deploy, in bytes of JSON.
pub const DEPLOY_CONFIG_BYTES_MAX: usize = 1 << 20;
/// Longest name of a commit, in bytes.
pub const COMMIT_SHA_BYTES_MAX: usize = 128;
/// Builds of one account that wait or run at a time.
pub const BUILDS_OPEN_ACCOUNT_MAX: u64 = 500;
/// What was uploaded for builds of one account that wait or run, in bytes.
pub const UPLOADS_OPEN_ACCOUNT_BYTES_MAX: u64 = 2 << 30;
/// Builds of one account that run at a time where the host runs more.
pub const BUILDS_RUNNING_ACCOUNT_MAX: usize = 2;
/// How long a deploy waits for the answer to its health request, in ms.
pub const HEALTH_TIMEOUT_MS: u64 = 30_000;
/// Deploys of one service that are kept for history and rollback. The live one is kept in any case.
pub const DEPLOYS_KEPT: u32 = 50;
/// The same where the author's own builds are deployed on every change.
pub const LOCAL_DEPLOYS_KEPT: u32 = 5;
/// How often a build is tried anew when the host ended while it ran.
pub const BUILD_ATTEMPTS_MAX: u32 = 3;
/// How long a login by device code is open, in s.
pub const LOGIN_EXPIRY_SECONDS: u64 = 600;
/// How often a client asks whether a login is complete, in s.
pub const LOGIN_INTERVAL_SECONDS: u64 = 5;
/// Logins that are open at a time. Anybody can begin one.
pub const LOGINS_OPEN_MAX: u64 = 1_000;
/// Logins that one client has open at a time: one IPv4 address, or the 64 bits of an IPv6 address that a network gives to one customer.
pub const LOGINS_OPEN_CLIENT_MAX: u64 = 50;
/// Largest form of the login page, in bytes.
pub const LOGIN_FORM_BYTES_MAX: u64 = 16 << 10;
/// How long somebody stays signed in at the host's pages, in s.
pub const BROWSER_SESSION_SECONDS: u64 = 43_200;
/// Browsers that are signed in to one account at a time. The one that has been for longest makes room.
pub const BROWSER_SESSIONS_MAX: usize = 10;
/// How long the activity of an account is kept, in days.
pub const ACTIVITY_DAYS: u64 = 90;
/// Entries of a list when the request does not say.
pub const PAGE_DEFAULT: u32 = 100;
/// Most entries of one page of a list.
pub const PAGE_MAX: u32 = 1_000;
/// Static files of one deploy.
pub const STATIC_ASSET_FILES_PER_VERSION: usize = 20_000;
/// Largest static file, in bytes.
pub const STATIC_ASSET_FILE_BYTES: u64 = 25 << 20;
/// How long a request from outside waits for its turn when its service, its account or the host is busy, in ms.
pub const ADMISSION_WAIT_MS: u64 = 5_000;
/// How many times as long an event (queue batch, cron tick, alarm) waits for its turn: those before it in its line have gone by then, whoever floods it.
pub const ADMISSION_EVENT_WAITS: u32 = 4;
/// How many requests from outside may wait for an instance slot at a time. Where as many do, the account with most of them gives one up for an account with fewer.
pub const ADMISSION_QUEUE_MAX: usize = 8_192;
/// How many requests of one account may wait because a service or the account has as many running as it may: twice as many as run. More would wait in vain where one takes half of the longest wait.
pub const ADMISSION_ACCOUNT_WAITING_MAX: usize = 1_024;
/// What the chains of one account may have of a host's instance slots at a time, in percent.
pub const SLOTS_ACCOUNT_PERCENT: u32 = 50;
/// A host with fewer instance slots lets one account have all of them: half of so few would be a few requests at a time, since each needs the rest of its chain to be free.
pub const SLOTS_SHARED_MIN: u32 = 128;
/// Connections of one listener at a time. More wait unaccepted.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections of one client at a time: of one IPv4 address, or of the 64 bits of an IPv6 address that a network gives to one customer. More are closed.
pub const CONNECTIONS_CLIENT_MAX: usize = 1_024;
/// How long a client may take to send a request's head, and how long an HTTP/1 connection may be without a request, in s.
pub const HEAD_SECONDS_MAX: u64 = 30;
/// Largest head of a request, in bytes.
pub const HEAD_BYTES_MAX: usize = 64 << 10;
/// How long an HTTP/2 connection may be without a request, in s.
pub const CONNECTION_IDLE_SECONDS_MAX: u64 = 90;
/// How long a body may stand still because the client neither sends nor reads, in s.
pub const BODY_STALL_SECONDS_MAX: u64 = 60;
/// Requests of one HTTP/2 connection at a time.
pub const HTTP2_STREAMS_MAX: u32 = 128;
/// Requests that a client of HTTP/2 may take back before they are looked at. More end its connection.
pub const HTTP2_RESETS_MAX: usize = 20;
/// How long a TLS handshake may take, in s.
pub const TLS_HANDSHAKE_SECONDS_MAX: u64 = 10;
/// Longest line of a worker's log, in bytes. A longer one is cut and marked.
pub const LOG_EVENT_BYTES: usize = 256 << 10;
/// Messages of one page of log lines, in bytes. A page that would have more ends before, and has at least one line.
pub const LOG_PAGE_BYTES_MAX: usize = 4 << 20;
/// How long spans of traces are kept, in hours.
pub const TRACE_HOURS: u64 = 24;
/// What all spans may take on disk, in bytes. Of more, the oldest go.
pub const TRACE_BYTES_MAX: u64 = 1 << 30;
/// Spans of one second, of all services. Where more come, one trace in two is kept, then one in four, and so on.
pub const TRACE_SPANS_PER_SECOND_MAX: u64 = 2_000;
/// Operations on data and requests to hosts outside that one invocation has spans of.
pub const TRACE_OPERATIONS_MAX: u32 = 1_000;
/// Spans of one trace that are shown.
pub const TRACE_SPANS_SHOWN_MAX: usize = 2_000;
/// Services with figures of their own in what Prometheus reads: the busiest. All others are one series.
pub const METRICS_SERVICES_MAX: usize = 200;
/// How often the busiest services are chosen anew, in s.
pub const METRICS_CHOICE_SECONDS: u64 = 60;
/// Services of one answer of `tovuk top`.
pub const TOP_SERVICES_MAX: usize = 100;
/// Lines that one page of a log looks at for those that were asked for. What lies further back is on the next page.
pub const LOG_PAGE_SCAN_MAX: u32 = 20_000;
/// Clients that follow logs at a time, on the whole host.
pub const LOG_FOLLOWERS_MAX: usize = 1_024;
/// The same of one account.
pub const LOG_FOLLOWERS_ACCOUNT_MAX: u32 = 32;
/// How long a log is followed by one request, in s. A client goes on with the cursor of the last line.
pub const LOG_FOLLOW_SECONDS_MAX: u32 = 3_600;
/// Longest key of KV, in bytes of UTF-8.
pub const KV_KEY_BYTES_MAX: usize = 512;
/// Largest value of KV, in bytes.
pub const KV_VALUE_BYTES_MAX: usize = 25 << 20;
/// Largest metadata of a KV key, in bytes of JSON.
pub const KV_METADATA_BYTES_MAX: usize = 1_024;
/// How far ahead the expiration of a KV key has to lie at least, in s.
pub const KV_EXPIRATION_SECONDS_MIN: u64 = 30;
/// The latest expiration of a KV key, in s since the UNIX epoch: the end of the year 9999.
pub const KV_EXPIRATION_UNIX_MAX: u64 = 253_402_300_799;
/// Keys of one page of a KV list.
pub const KV_PAGE_KEYS_MAX: usize = 1_000;
/// Keys of a KV list that is not asked for in pages.
pub const KV_LIST_KEYS_MAX: usize = 100_000;
/// Size from which such a list ends earlier, in bytes. What follows is asked for by its cursor.
pub const KV_LIST_BYTES_MAX: usize = 32 << 20;
/// Keys of one bulk read of KV.
pub const KV_BULK_READ_KEYS_MAX: usize = 100;
/// Keys of one bulk write or bulk removal of KV.
pub const KV_BULK_WRITE_KEYS_MAX: usize = 10_000;
/// Keys, values and metadata of one bulk request of KV together, in bytes, and of the answer to a bulk read.
pub const KV_BULK_BYTES_MAX: usize = 100_000_000;
/// The same for a worker's call, in bytes: the largest value and what belongs to it. It fits into what one call of a worker may carry.
pub const KV_CALL_BYTES_MAX: usize = 26 << 20;
/// Writes of one account to KV that are on their way at a time, in KiB, each key with 4 KiB besides: others wait behind no more. A larger request goes alone.
pub const KV_WRITING_ACCOUNT_KIB_MAX: u32 = 16 << 10;
/// Longest number that a KV key is incremented from, in bytes of text.
pub const KV_NUMBER_BYTES_MAX: usize = 32;
/// Longest path of an object, in bytes.
pub const OBJECT_PATH_BYTES_MAX: usize = 1_024;
/// Longest content type of an object, in bytes.
pub const OBJECT_CONTENT_TYPE_BYTES_MAX: usize = 255;
/// Largest object, in bytes.
pub const OBJECT_BYTES_MAX: u64 = 5_237_760 << 20;
/// Largest object that is sent as a whole, and largest part of one that is sent in parts, in bytes.
pub const OBJECT_SINGLE_BYTES_MAX: u64 = 5_115 << 20;
/// Part of an object that is sent in parts when the client names no size, in bytes. Clients send larger objects in parts.
pub const OBJECT_PART_BYTES: u64 = 100 << 20;
/// Smallest part that a client may ask for, in bytes; the last part of an object may be smaller.
pub const OBJECT_PART_BYTES_MIN: u64 = 5 << 20;
/// Parts of one object. Where there would be more, each is made larger than asked for.
pub const OBJECT_PARTS_MAX: u64 = 10_000;
/// What the plan of an upload in parts may take, in bytes: of an object with a long path there are fewer and larger parts, since each has its own URL.
pub const OBJECT_PLAN_BYTES_MAX: u64 = 8 << 20;
/// Uploads of one service that are open at a time.
pub const OBJECT_UPLOADS_OPEN_MAX: u64 = 1_000;
/// How long an upload may be open, in s. What was sent for it is then removed.
pub const OBJECT_UPLOAD_SECONDS_MAX: u64 = 86_400;
/// How long the URL of a download, or of an upload as a whole, is valid, in s.
pub const OBJECT_URL_SECONDS: u64 = 900;
/// How long the URLs of an upload in parts are valid, in s.
pub const OBJECT_PART_URL_SECONDS: u64 = 86_400;
/// Memory for objects that are being received, in MiB. More uploads wait before more of them is read.
pub const OBJECT_BUFFERS_MIB_MAX: u32 = 512;
/// How much of that one account may take, in MiB.
pub const OBJECT_BUFFERS_ACCOUNT_MIB_MAX: u32 = 128;
/// How much of that one service may take, in MiB.
pub const OBJECT_BUFFERS_SERVICE_MIB_MAX: u32 = 64;
/// Memory for the first 64 KiB of what is written at a time of objects that are being received, in MiB: the rest is taken when those have come.
pub const OBJECT_BEGINNINGS_MIB_MAX: u32 = 128;
/// How much of that one account may take, in MiB.
pub const OBJECT_BEGINNINGS_ACCOUNT_MIB_MAX: u32 = 16;
/// How much of that one service may take, in MiB.
pub const OBJECT_BEGINNINGS_SERVICE_MIB_MAX: u32 = 8;
/// How fast what is written at a time of an object has to arrive, in bytes/s, after a first minute: memory is held for it meanwhile.
pub const OBJECT_BYTES_PER_SECOND_MIN: u64 = 128 << 10;
/// Largest request that completes an upload in parts, in bytes: the number and the tag of each part.
pub const API_OBJECT_PARTS_BODY_BYTES_MAX: u64 = 4 << 20;
/// Objects that one invocation of a worker reads at a time.
pub const OBJECT_READERS_MAX: usize = 16;
/// Objects that one invocation of a worker writes at a time, piece by piece.
pub const OBJECT_WRITERS_MAX: usize = 4;
/// Largest piece that a worker reads or writes of an object at a time, in bytes.
pub const OBJECT_PIECE_BYTES_MAX: usize = 1 << 20;
/// Objects of a list that is not asked for in pages.
pub const OBJECT_LIST_MAX: u64 = 100_000;
/// Size from which such a list ends earlier, in bytes. What follows is asked for by its cursor.
pub const OBJECT_LIST_BYTES_MAX: usize = 32 << 20;
/// How long one SQLite query or batch may run, in ms.
pub const SQLITE_QUERY_MS_MAX: u64 = 25_000;
/// Largest result of a SQLite query or batch that is not streamed, in bytes: values, and the names of their columns for each row. Also the largest row of one that is.
pub const SQLITE_RESULT_BYTES_MAX: usize = 10 << 20;
/// Memory that SQLite may take for one query or batch beyond what its connection has, in bytes.
pub const SQLITE_HEAP_BYTES_MAX: usize = 64 << 20;
/// Largest text, blob or row in a SQLite database, in bytes.
pub const SQLITE_VALUE_BYTES_MAX: u32 = 2 << 20;
/// Longest SQL of one statement or migration, in bytes.
pub const SQLITE_SQL_BYTES_MAX: u32 = 256 << 10;
/// Parameters of one SQLite statement.
pub const SQLITE_PARAMS_MAX: u32 = 32_766;
/// Columns of a SQLite table or result.
pub const SQLITE_COLUMNS_MAX: u32 = 500;
/// Longest pattern of LIKE and GLOB, in bytes.
pub const SQLITE_LIKE_PATTERN_BYTES_MAX: u32 = 100;
/// Statements of one SQLite batch.
pub const SQLITE_BATCH_STATEMENTS_MAX: usize = 1_000;
/// How long an interactive transaction or a streamed result may be open, in ms.
pub const SQLITE_TRANSACTION_MS_MAX: u64 = 30_000;
/// How long an interactive transaction may be open without a statement that runs, in ms: other writers wait for it.
pub const SQLITE_TRANSACTION_IDLE_MS_MAX: u64 = 5_000;
/// Interactive transactions and streamed results of SQLite that one invocation holds at a time.
pub const SQLITE_HELD_MAX: usize = 16;
/// Size from which a piece of a streamed result ends, in bytes.
pub const SQLITE_CHUNK_BYTES: usize = 256 << 10;
/// Statements of one SQLite database that read at a time. One more writes.
pub const SQLITE_READERS_MAX: usize = 4;
/// Statements of all SQLite databases that run at a time.
pub const SQLITE_RUNNING_MAX: usize = 32;
/// The same of one account: the others have the rest.
pub const SQLITE_RUNNING_ACCOUNT_MAX: u32 = 8;
/// Calls of one SQLite database that run or wait at a time.
pub const SQLITE_WAITING_MAX: usize = 256;
/// SQLite databases that are held open. The ones that were used least recently make room.
pub const SQLITE_OPEN_MAX: usize = 1_000;
/// Backups of one SQLite database that are kept. The oldest make room.
pub const SQLITE_BACKUPS_KEPT: usize = 30;
/// How long all migrations of one call or deploy may run for one SQLite database, in ms. Each of them is bounded like a query as well.
pub const SQLITE_MIGRATE_MS_MAX: u64 = 300_000;
/// Migrations of one SQLite database.
pub const SQLITE_MIGRATIONS_MAX: usize = 10_000;
/// Longest name of a migration, in bytes.
pub const SQLITE_MIGRATION_NAME_BYTES_MAX: usize = 255;
/// Longest key of a State object, and of a value in it, in bytes of UTF-8.
pub const STATE_KEY_BYTES_MAX: usize = 512;
/// Key and value of State together, in bytes.
pub const STATE_ENTRY_BYTES_MAX: usize = 2 << 20;
/// Keys of one page of a State list, or objects of one page of a list of objects.
pub const STATE_PAGE_KEYS_MAX: usize = 1_000;
/// Keys or objects of a State list that is not asked for in pages.
pub const STATE_LIST_KEYS_MAX: usize = 100_000;
/// Size from which such a list ends earlier, in bytes. What follows is asked for by its cursor.
pub const STATE_LIST_BYTES_MAX: usize = 32 << 20;
/// Changes and conditions of one atomic write to a State object.
pub const STATE_BATCH_CHANGES_MAX: usize = 1_000;
/// Keys and values that one atomic write to a State object, or one call of its handler, changes together, in bytes.
pub const STATE_BATCH_BYTES_MAX: usize = 32 << 20;
/// Keys that one call of a State object's handler changes.
pub const STATE_SESSION_CHANGES_MAX: usize = 32_768;
/// How long a call waits for its turn on a State object, in ms.
pub const STATE_WAIT_MS_MAX: u64 = 10_000;
/// Calls that wait for their turn on one State object at a time.
pub const STATE_WAITING_MAX: usize = 1_024;
/// How long a State alarm waits before its first retry, in ms. Each further wait is twice as long.
pub const STATE_ALARM_RETRY_MS: u64 = 2_000;
/// Retries of a State alarm. After them it is cleared.
pub const STATE_ALARM_RETRIES_MAX: u32 = 6;
/// State alarms that are delivered at a time.
pub const DELIVERIES_ALARM_MAX: usize = 256;
/// State alarms of one account that are delivered at a time.
pub const DELIVERIES_ALARM_ACCOUNT_MAX: usize = DELIVERIES_ALARM_MAX / 4;
/// State alarms of one service that are delivered at a time.
pub const DELIVERIES_ALARM_SERVICE_MAX: usize = 64;
/// The latest time of a State alarm, in ms since the UNIX epoch: the end of the year 9999.
pub const STATE_ALARM_UNIX_MS_MAX: u64 = 253_402_300_799_999;
/// Largest body of a queue message, in bytes: 128 KB less 100 bytes that the host keeps for itself.
pub const QUEUE_BODY_BYTES_MAX: usize = 127_900;
/// Messages of one batch that is sent to a queue.
pub const QUEUE_SEND_MESSAGES_MAX: usize = 100;
/// Bodies of one batch that is sent to a queue together, in bytes.
pub const QUEUE_SEND_BYTES_MAX: usize = 256_000;
/// Messages that are sent to one queue in a second.
pub const QUEUE_MESSAGES_PER_SECOND_MAX: u64 = 5_000;
/// Messages that wait in one queue, in bytes: their bodies, and 100 for each. Dead letters are taken beyond it.
pub const QUEUE_BACKLOG_BYTES_MAX: u64 = 25_000_000_000;
/// What a message that waits counts beside its body, in bytes.
pub const QUEUE_METADATA_BYTES: u64 = 100;
/// How long a message waits before its first delivery, or before it is tried again, at most, in s.
pub const QUEUE_DELAY_SECONDS_MAX: u32 = 86_400;
/// Messages of a batch that is delivered, when the queue does not say.
pub const QUEUE_BATCH_MESSAGES: u32 = 10;
/// Messages of a batch that is delivered or pulled, and messages that one request settles.
pub const QUEUE_BATCH_MESSAGES_MAX: u32 = 100;
/// How long a batch waits to fill, in s, when the queue does not say.
pub const QUEUE_BATCH_WAIT_SECONDS: u32 = 5;
/// How long a batch waits to fill, at most, in s.
pub const QUEUE_BATCH_WAIT_SECONDS_MAX: u32 = 60;
/// Deliveries of a message after the first, when the queue does not say.
pub const QUEUE_RETRIES: u32 = 3;
/// Deliveries of a message after the first, at most.
pub const QUEUE_RETRIES_MAX: u32 = 100;
/// How long a queue keeps a message, in s, when it does not say.
pub const QUEUE_RETENTION_SECONDS: u32 = 345_600;
/// How long a queue keeps a message at least, in s.
pub const QUEUE_RETENTION_SECONDS_MIN: u32 = 60;
/// How long a queue keeps a message at most, in s.
pub const QUEUE_RETENTION_SECONDS_MAX: u32 = 1_209_600;
/// Messages of a batch that is pulled, when the request does not say.
pub const QUEUE_PULL_MESSAGES: u32 = 5;
/// How long a message that was pulled is hidden from others, in s, when neither request nor queue say.
pub const QUEUE_VISIBILITY_SECONDS: u32 = 30;
/// How long a message that was pulled is hidden from others at most, in s.
pub const QUEUE_VISIBILITY_SECONDS_MAX: u32 = 43_200;
/// How long a message whose delivery has failed waits before it is tried again, in s. Each further failure doubles it.
pub const QUEUE_RETRY_SECONDS: u32 = 1;
/// How long a message whose delivery has failed waits at most, in s.
pub const QUEUE_RETRY_SECONDS_MAX: u32 = 900;
/// Largest body of an API request that sends a batch to a queue, in bytes: its bodies with every byte escaped, and room for the rest.
pub const API_QUEUE_BODY_BYTES_MAX: u64 = 2 << 20;
/// Batches of one queue that are delivered at a time.
pub const QUEUE_CONCURRENCY_MAX: u32 = 250;
/// Bytes that one metered queue operation writes, reads or deletes; a larger message is as many operations as it has such parts.
pub const QUEUE_OPERATION_BYTES: u64 = 64_000;
/// Messages of one page of a list of a queue.
pub const QUEUE_PAGE_MESSAGES_MAX: usize = 1_000;
/// Bodies of one page of a list of a queue, in bytes. A page that would have more ends before, and has at least one message.
pub const QUEUE_PAGE_BYTES_MAX: usize = 4 << 20;
/// Messages of a list of a queue that is not asked for in pages.
pub const QUEUE_LIST_MESSAGES_MAX: usize = 100_000;
/// Bodies from which such a list ends earlier, in bytes. What follows is asked for by its cursor.
pub const QUEUE_LIST_BYTES_MAX: usize = 32 << 20;
/// Cron triggers of one service. They do not count among its bound resources.
pub const CRON_TRIGGERS_MAX: usize = 1_000;
/// Longest cron expression, in bytes.
pub const CRON_EXPRESSION_BYTES_MAX: usize = 256;
/// Times that a cron tick is tried again after it failed. The first time is after a minute, and each wait is twice the one before.
pub const CRON_RETRIES_MAX: u32 = 3;
/// How long a cron tick waits before it is tried again for the first time, in s.
pub const CRON_RETRY_SECONDS: u64 = 60;
/// Runs of one cron trigger that its history keeps.
pub const CRON_RUNS_KEPT: u64 = 100;
/// Next times of a cron trigger that are shown.
pub const CRON_NEXT_SHOWN: usize = 5;
/// How long a cron tick that the host itself has refused waits at most, in s. The first time it is 1 s, and each wait is twice the one before.
pub const CRON_HOLD_SECONDS_MAX: u64 = 60;
/// Cron ticks of one account that are delivered at a time. More wait.
pub const CRON_ACCOUNT_CONCURRENCY: usize = 128;
/// Cron ticks of one account that are delivered or wait for their turn in memory. More are held.
pub const CRON_ACCOUNT_TICKS_MAX: usize = 2_048;
/// Cron ticks of a host that are delivered or wait for their turn in memory. More wait in the store.
pub const CRON_TICKS_MAX: usize = 16_384;
}
