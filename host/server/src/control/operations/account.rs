//! The caller's account.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{DISPLAY_NAME_CHARS_MAX, Plan};
use tovuk_kernel::names::check_handle;
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, PAGE_ARGUMENTS, Request};

use super::{end_page, note, page, timestamp};
use crate::control::handler::Handler;
use crate::control::store::{accounts, activity};
use crate::control::{Caller, Control, Credential, Refusal, Scope};

/// An account.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Its id, for example `account_1`.
    pub id: String,
    /// Its handle, unique on the host.
    pub handle: String,
    /// What people call it.
    pub display_name: String,
    /// What it has subscribed to.
    pub plan: Plan,
    /// Whether the operator has closed it.
    pub suspended: bool,
    /// When it was made.
    pub created_at: String,
}

impl From<accounts::Account> for Account {
    fn from(account: accounts::Account) -> Self {
        Self {
            id: format!("account_{}", account.id),
            handle: account.handle,
            display_name: account.display_name,
            plan: account.plan,
            suspended: account.suspended,
            created_at: timestamp(account.created_ms),
        }
    }
}

/// The answer to `account.show` and `account.update`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AccountResponse {
    /// The account.
    pub account: Account,
    /// The token that was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<UsedToken>,
}

/// The token of a request.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UsedToken {
    /// Its id.
    pub id: String,
    /// How far it reaches.
    pub scope: Scope,
}

/// Shows the account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Show {}

impl Request for Show {
    const OPERATION: Operation = Operation::new("account.show", Method::Get, "/v1/account", "Show the account and the token in use")
        .errors(&[&codes::ACCOUNT_NOT_FOUND])
        .commands(&[Command::new("account show").default().aliases(&["whoami"]).examples(&["tovuk account show"])]);
    type Response = AccountResponse;
}

impl Handler for Show {
    async fn run(self, control: Control, caller: Caller) -> Result<AccountResponse, Refusal> {
        let number = caller.account_number();
        let account = control.read(move |conn| required(accounts::get(conn, number)?)).await?;
        let token = match caller.credential {
            Credential::Token { id, scope } => Some(UsedToken { id: format!("token_{id}"), scope }),
            _ => None,
        };
        Ok(AccountResponse { account: account.into(), token })
    }
}

fn required(account: Option<accounts::Account>) -> Result<accounts::Account, Refusal> {
    account.ok_or_else(|| Refusal::new(&codes::ACCOUNT_NOT_FOUND, "the account was deleted"))
}

/// Changes the account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Update {
    /// The new handle: lower-case letters, digits and `-`, at most 63.
    pub handle: String,
    /// What people call the account; the handle when absent.
    pub display_name: Option<String>,
}

impl Request for Update {
    const OPERATION: Operation = Operation::new("account.update", Method::Put, "/v1/account", "Change handle and display name")
        .errors(&[&codes::INVALID_NAME, &codes::HANDLE_TAKEN, &codes::ACCOUNT_NOT_FOUND])
        .commands(&[Command::new("account update")
            .arguments(&[
                Argument::either("handle", "handle", "The new handle"),
                Argument::either("displayName", "display-name", "What people call the account").form(Form::Words).optional(),
            ])
            .examples(&["tovuk account update ada Ada Lovelace"])]);
    type Response = AccountResponse;
}

/// The display name that was given, or the handle.
pub(super) fn display_name_of(given: Option<String>, handle: &str) -> Result<String, Refusal> {
    let name = given.filter(|name| !name.trim().is_empty()).unwrap_or_else(|| handle.to_owned());
    if name.chars().count() > DISPLAY_NAME_CHARS_MAX {
        return Err(Refusal::new(&codes::INVALID_NAME, format!("the display name may have {DISPLAY_NAME_CHARS_MAX} characters")));
    }
    Ok(name)
}

impl Handler for Update {
    async fn run(self, control: Control, caller: Caller) -> Result<AccountResponse, Refusal> {
        check_handle(&self.handle)?;
        let display_name = display_name_of(self.display_name, &self.handle)?;
        let now = control.now_ms();
        let account = control
            .write(move |conn| {
                if !accounts::rename(conn, caller.account_number(), &self.handle, &display_name)? {
                    return Err(Refusal::new(&codes::HANDLE_TAKEN, format!("the handle `{}` belongs to another account", self.handle)));
                }
                note(conn, &caller, Self::OPERATION.name, None, &self.handle, now)?;
                required(accounts::get(conn, caller.account_number())?)
            })
            .await?;
        Ok(AccountResponse { account: account.into(), token: None })
    }
}

/// Lists what has happened.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Activity {
    /// Most entries to return, 1 to 1,000.
    pub limit: Option<u32>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// One thing that has happened.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivityEntry {
    /// When.
    pub at: String,
    /// The operation, for example `env.set`.
    pub action: String,
    /// The service that it concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_id: Option<String>,
    /// What it concerned.
    pub subject: String,
    /// The token that was used; absent for what the host did by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
}

/// A page of what has happened, the newest first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ActivityPage {
    /// The entries.
    pub activity: Vec<ActivityEntry>,
    /// Whether there are older ones.
    pub has_more: bool,
    /// Where to go on.
    pub next_cursor: Option<String>,
}

impl Request for Activity {
    const OPERATION: Operation =
        Operation::new("account.activity", Method::Get, "/v1/account/activity", "List what has happened in the account, the newest first")
            .errors(&[&codes::INVALID_CURSOR])
            .commands(&[Command::new("account activity").arguments(&PAGE_ARGUMENTS).examples(&["tovuk account activity --limit 20"])]);
    type Response = ActivityPage;
}

impl Handler for Activity {
    async fn run(self, control: Control, caller: Caller) -> Result<ActivityPage, Refusal> {
        let (before, limit) = page(self.limit, self.cursor.as_deref())?;
        let mut entries = control.read(move |conn| Ok(activity::page(conn, caller.account_number(), before, limit + 1)?)).await?;
        let next_cursor = end_page(&mut entries, limit, |entry| entry.id);
        let activity = entries
            .into_iter()
            .map(|entry| ActivityEntry {
                at: timestamp(entry.at_ms),
                action: entry.action,
                service_id: entry.service_id.map(|id| format!("service_{id}")),
                subject: entry.subject,
                token_id: entry.token_id.map(|id| format!("token_{id}")),
            })
            .collect();
        Ok(ActivityPage { activity, has_more: next_cursor.is_some(), next_cursor })
    }
}
