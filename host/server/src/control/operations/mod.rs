//! What can be asked of the host, one file for each subject. Each operation is a request type with its `OPERATION`, and what is done with it.

pub mod absent;
pub mod account;
pub mod bindings;
pub mod builds;
pub mod caps;
pub mod catalog;
pub mod clock;
pub mod cron;
pub mod deploys;
pub mod domains;
pub mod env;
pub mod kv;
pub mod kv_bulk;
pub mod kv_values;
mod lists;
pub mod login;
pub mod logs;
pub mod operator;
pub mod products;
pub mod queue_messages;
pub mod queue_pull;
pub mod queue_settings;
pub mod queues;
pub mod resources;
pub mod rollback;
pub mod services;
pub mod snapshot;
pub mod sqlite;
pub mod sqlite_backups;
mod sqlite_params;
pub mod state;
pub mod state_alarms;
pub mod state_values;
pub mod storage;
mod storage_parts;
pub mod tokens;
pub mod traces;
pub mod usage;
pub mod webhooks;

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Serialize;
use tovuk_kernel::codes;
use tovuk_kernel::limits::{PAGE_DEFAULT, PAGE_MAX};

use super::caller::{Caller, Credential};
use super::handler::Registered;
use super::refusal::Refusal;
use super::store;

/// Every operation, in the order of the reference.
pub(super) fn all() -> Vec<Registered> {
    let mut operations = Vec::new();
    macro_rules! table {
        ($($operation:ty),* $(,)?) => { operations.extend([$(Registered::of::<$operation>()),*]) };
    }
    table![catalog::Status, catalog::Capabilities, login::Start, login::Poll, login::Approve];
    table![
        account::Show,
        account::Update,
        account::Activity,
        tokens::Create,
        tokens::List,
        tokens::Revoke,
        usage::Show,
        caps::Set,
        caps::Delete,
        caps::List,
        webhooks::Set,
        webhooks::Show,
        webhooks::Delete
    ];
    table![services::List, services::Create, services::Show, resources::ResourcesOf, services::Restart, services::Delete];
    table![deploys::Create, deploys::List, deploys::ListOfService, deploys::Show, deploys::Cancel, rollback::Rollback];
    table![builds::Show, logs::OfBuild, logs::OfDeploy, logs::OfService];
    operations.extend([Registered::streaming::<logs::FollowBuild>(), Registered::streaming::<logs::FollowDeploy>()]);
    operations.push(Registered::streaming::<logs::FollowService>());
    table![traces::List, traces::Show, traces::Top, traces::TopOfHost];
    table![env::List, env::Set, env::Delete, bindings::Create, bindings::Delete];
    table![domains::List, domains::Add, domains::Verify, domains::Delete];
    table![kv::Create, kv::Delete, kv::Keys, kv::Get, kv::Put, kv::DeleteKey, kv_bulk::BulkGet, kv_bulk::BulkPut, kv_bulk::BulkDelete];
    table![cron::Create, cron::Update, cron::Show, cron::History, cron::Run, cron::Delete];
    table![clock::Show, clock::Advance];
    table![storage::List, storage::UploadUrl, storage::Complete, storage::DownloadUrl, storage::Delete];
    table![storage_parts::Create, storage_parts::Complete, storage_parts::Abort];
    table![sqlite::Create, sqlite::Delete, sqlite::Query, sqlite::Migrate];
    table![sqlite_backups::List, sqlite_backups::Create, sqlite_backups::Restore, sqlite_backups::Delete];
    table![state::Create, state::Delete, state::Objects, state::Keys, state::DeleteObject];
    table![state_values::Get, state_values::Put, state_values::DeleteValue, state_alarms::Get, state_alarms::Set, state_alarms::Delete];
    table![queues::Create, queues::Update, queues::Delete, queue_messages::MetricsOf];
    table![queue_messages::List, queue_messages::Send, queue_messages::SendBatch, queue_pull::Pull, queue_pull::Settle];
    table![operator::Nodes, operator::Drain, operator::CreateAccount, operator::ListAccounts, operator::SetPlan, operator::Suspend];
    table![operator::DeleteAccount];
    operations.extend(absent::all());
    operations
}

/// What an operation with nothing else to say answers with.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Done {
    /// True.
    pub ok: bool,
}

/// A moment as the API writes it, for example `2026-05-31T00:00:00.123Z`.
pub(crate) fn timestamp(unix_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(unix_ms).map(|moment| format!("{moment:.3}")).unwrap_or_default()
}

/// Where a page of a list that is read backwards begins, and how long it may be.
pub(crate) fn page(limit: Option<u32>, cursor: Option<&str>) -> Result<(i64, u32), Refusal> {
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Refusal::new(&codes::INVALID_REQUEST, format!("`limit` must be 1 to {PAGE_MAX}")));
    }
    let before = match cursor {
        None => i64::MAX,
        Some(cursor) => {
            let number = cursor.strip_prefix("before_").and_then(|digits| digits.parse().ok());
            number.ok_or_else(|| Refusal::new(&codes::INVALID_CURSOR, format!("`{cursor}` is no cursor of this list")))?
        }
    };
    Ok((before, limit))
}

/// Cuts a list that was read with one entry more than its page holds; the cursor of the next page, if there is one.
pub(crate) fn end_page<T>(entries: &mut Vec<T>, limit: u32, number: impl Fn(&T) -> i64) -> Option<String> {
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    entries.last().filter(|_| more).map(|last| format!("before_{}", number(last)))
}

/// Writes into the account's activity what the caller has done.
pub(crate) fn note(conn: &Connection, caller: &Caller, action: &str, service: Option<i64>, subject: &str, now_ms: i64) -> Result<(), Refusal> {
    let token = match caller.credential {
        Credential::Token { id, .. } => Some(id),
        _ => None,
    };
    Ok(store::activity::add(conn, caller.account_number(), action, service, subject, token, now_ms)?)
}
