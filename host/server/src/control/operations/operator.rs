//! What the operator of the host can do: accounts and nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::Plan;
use tovuk_kernel::names::check_handle;
use tovuk_kernel::operation::{Access, Argument, Command, Form, Method, Operation, Request};

use super::account::{Account, AccountResponse, display_name_of};
use super::note;
use crate::control::handler::Handler;
use crate::control::store::{accounts, services};
use crate::control::{Caller, Control, Refusal, Scope};
use crate::deploy::Removed;

/// A node.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Node {
    /// Its name.
    pub id: String,
    /// `ready` or `draining`.
    pub status: &'static str,
    /// Whether it takes no new deploys.
    pub draining: bool,
    /// The version that it runs.
    pub version: &'static str,
    /// Services that it serves.
    pub services: u64,
    /// Builds that wait or run.
    pub builds: u64,
}

/// The nodes of the host.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NodesResponse {
    /// The nodes: one, this process.
    pub nodes: Vec<Node>,
}

async fn nodes(control: &Control) -> Result<NodesResponse, Refusal> {
    let services = control.read(|conn| Ok(services::all(conn)?.len() as u64)).await?;
    let draining = control.is_draining();
    let node = Node {
        id: control.config().node.clone(),
        status: if draining { "draining" } else { "ready" },
        draining,
        version: env!("CARGO_PKG_VERSION"),
        services,
        builds: control.builds().open(),
    };
    Ok(NodesResponse { nodes: vec![node] })
}

/// Lists the nodes.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Nodes {}

impl Request for Nodes {
    const OPERATION: Operation = Operation::new("nodes.list", Method::Get, "/v1/operator/nodes", "List the nodes of the host")
        .access(Access::Operator)
        .commands(&[Command::new("nodes list").default().examples(&["tovuk nodes list"])]);
    type Response = NodesResponse;
}

impl Handler for Nodes {
    async fn run(self, control: Control, _caller: Caller) -> Result<NodesResponse, Refusal> {
        nodes(&control).await
    }
}

/// Takes a node out of service, or back.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Drain {
    /// Its name.
    pub node: String,
    /// `true` to take no new deploys, `false` to take them again.
    pub draining: bool,
}

impl Request for Drain {
    const OPERATION: Operation =
        Operation::new("nodes.drain", Method::Post, "/v1/operator/nodes/{node}/drain", "Take a node out of service, or back")
            .described("A draining node answers requests and takes no new deploys. The commands are `nodes drain` and `nodes enable`.")
            .access(Access::Operator)
            .errors(&[&codes::NODE_NOT_FOUND])
            .commands(&[
                Command::new("nodes drain")
                    .arguments(&[Argument::positional("node", "Its name"), Argument::constant("draining", true)])
                    .examples(&["tovuk nodes drain node-1"]),
                Command::new("nodes enable")
                    .arguments(&[Argument::positional("node", "Its name"), Argument::constant("draining", false)])
                    .examples(&["tovuk nodes enable node-1"]),
            ]);
    type Response = NodesResponse;
}

impl Handler for Drain {
    async fn run(self, control: Control, _caller: Caller) -> Result<NodesResponse, Refusal> {
        if self.node != control.config().node {
            return Err(Refusal::new(&codes::NODE_NOT_FOUND, format!("there is no node `{}`", self.node)));
        }
        control.set_draining(self.draining);
        nodes(&control).await
    }
}

/// Makes an account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateAccount {
    /// Its handle: lower-case letters, digits and `-`.
    pub handle: String,
    /// What people call it; the handle when absent.
    pub display_name: Option<String>,
    /// Its plan; `free` when absent.
    pub plan: Option<Plan>,
}

/// An account with its first token.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CreatedAccount {
    /// The account.
    pub account: Account,
    /// Its first token. It is not stored and cannot be shown again.
    pub token: String,
}

impl Request for CreateAccount {
    const OPERATION: Operation =
        Operation::new("operator.account.create", Method::Post, "/v1/operator/accounts", "Make an account with a first token")
            .access(Access::Operator)
            .status(201)
            .errors(&[&codes::INVALID_NAME, &codes::HANDLE_TAKEN])
            .commands(&[Command::new("operator account create")
                .arguments(&[
                    Argument::positional("handle", "Its handle"),
                    Argument::flag("displayName", "display-name", "What people call it"),
                    Argument::flag("plan", "plan", "free or pro"),
                ])
                .examples(&["tovuk operator account create acme --plan pro"])]);
    type Response = CreatedAccount;
}

impl Handler for CreateAccount {
    async fn run(self, control: Control, caller: Caller) -> Result<CreatedAccount, Refusal> {
        check_handle(&self.handle)?;
        let display_name = display_name_of(self.display_name, &self.handle)?;
        let now = control.now_ms();
        let tokens = control.tokens().clone();
        let (account, text) = control
            .write(move |conn| {
                let account = accounts::create(conn, &self.handle, &display_name, self.plan.unwrap_or_default(), now)?
                    .ok_or_else(|| Refusal::new(&codes::HANDLE_TAKEN, format!("the handle `{}` belongs to another account", self.handle)))?;
                let (_, text) = tokens.create(conn, account.id, "first", Scope::Account, now, None)?;
                note(conn, &caller, Self::OPERATION.name, None, &self.handle, now)?;
                Ok((account, text))
            })
            .await?;
        Ok(CreatedAccount { account: account.into(), token: text })
    }
}

/// Lists the accounts.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListAccounts {}

/// The accounts of the host.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Accounts {
    /// The accounts.
    pub accounts: Vec<Account>,
}

impl Request for ListAccounts {
    const OPERATION: Operation = Operation::new("operator.account.list", Method::Get, "/v1/operator/accounts", "List the accounts of the host")
        .access(Access::Operator)
        .commands(&[Command::new("operator account list").examples(&["tovuk operator account list"])]);
    type Response = Accounts;
}

impl Handler for ListAccounts {
    async fn run(self, control: Control, _caller: Caller) -> Result<Accounts, Refusal> {
        let accounts = control.read(|conn| Ok(accounts::list(conn)?)).await?;
        Ok(Accounts { accounts: accounts.into_iter().map(Account::from).collect() })
    }
}

fn unknown(account: &str) -> Refusal {
    Refusal::new(&codes::ACCOUNT_NOT_FOUND, format!("there is no account `{account}`"))
}

/// Changes the plan of an account.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SetPlan {
    /// Its handle or id.
    pub account: String,
    /// The plan.
    pub plan: Plan,
}

impl Request for SetPlan {
    const OPERATION: Operation =
        Operation::new("operator.account.set-plan", Method::Put, "/v1/operator/accounts/{account}/plan", "Change an account's plan")
            .described("Services that are live take the new plan's limits at once.")
            .access(Access::Operator)
            .errors(&[&codes::ACCOUNT_NOT_FOUND])
            .commands(&[Command::new("operator account set-plan")
                .arguments(&[Argument::positional("account", "Its handle or id"), Argument::positional("plan", "free or pro")])
                .examples(&["tovuk operator account set-plan acme pro"])]);
    type Response = AccountResponse;
}

impl Handler for SetPlan {
    async fn run(self, control: Control, caller: Caller) -> Result<AccountResponse, Refusal> {
        let now = control.now_ms();
        let air = control.air().await;
        let (account, services) = control
            .write(move |conn| {
                let account = accounts::find(conn, &self.account)?.ok_or_else(|| unknown(&self.account))?;
                accounts::set_plan(conn, account.id, self.plan)?;
                note(conn, &caller, Self::OPERATION.name, None, &format!("{} {}", account.handle, self.plan.as_str()), now)?;
                let services = services::list(conn, account.id)?;
                Ok((accounts::Account { plan: self.plan, ..account }, services))
            })
            .await?;
        crate::deploy::restart_all(&control, &air, &services).await;
        Ok(AccountResponse { account: account.into(), token: None })
    }
}

/// Closes an account, or opens it.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Suspend {
    /// Its handle or id.
    pub account: String,
    /// `true`, when absent, to close it: its tokens are refused and its services answer as if they did not exist. `false` to open it.
    pub suspended: Option<bool>,
}

impl Request for Suspend {
    const OPERATION: Operation =
        Operation::new("operator.account.suspend", Method::Put, "/v1/operator/accounts/{account}/suspended", "Close an account, or open it again")
            .described("Nothing of it is deleted. `--resume` opens it.")
            .access(Access::Operator)
            .errors(&[&codes::ACCOUNT_NOT_FOUND])
            .commands(&[Command::new("operator account suspend")
                .arguments(&[
                    Argument::positional("account", "Its handle or id"),
                    Argument::flag("suspended", "resume", "Open it again").form(Form::False),
                ])
                .examples(&["tovuk operator account suspend acme", "tovuk operator account suspend acme --resume"])]);
    type Response = AccountResponse;
}

impl Handler for Suspend {
    async fn run(self, control: Control, caller: Caller) -> Result<AccountResponse, Refusal> {
        let suspended = self.suspended.unwrap_or(true);
        let now = control.now_ms();
        let air = control.air().await;
        let (account, services) = control
            .write(move |conn| {
                let account = accounts::find(conn, &self.account)?.ok_or_else(|| unknown(&self.account))?;
                accounts::set_suspended(conn, account.id, suspended)?;
                note(conn, &caller, Self::OPERATION.name, None, &account.handle, now)?;
                let services = services::list(conn, account.id)?;
                Ok((accounts::Account { suspended, ..account }, services))
            })
            .await?;
        control.tokens().set_suspended(account.id, suspended);
        match suspended {
            true => services.iter().for_each(|service| control.live().hide(service)),
            false => crate::deploy::restart_all(&control, &air, &services).await,
        }
        Ok(AccountResponse { account: account.into(), token: None })
    }
}

/// Deletes an account with all it owns.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct DeleteAccount {
    /// Its handle or id.
    pub account: String,
    /// The handle once more, so that no slip deletes an account.
    pub confirm: String,
}

impl Request for DeleteAccount {
    const OPERATION: Operation = Operation::new(
        "operator.account.delete",
        Method::Delete,
        "/v1/operator/accounts/{account}",
        "Delete an account with all its services and data",
    )
    .access(Access::Operator)
    .errors(&[&codes::ACCOUNT_NOT_FOUND])
    .commands(&[Command::new("operator account delete")
        .arguments(&[Argument::positional("account", "Its handle or id"), Argument::flag("confirm", "confirm", "Its handle, once more").required()])
        .examples(&["tovuk operator account delete acme --confirm acme"])]);
    type Response = Accounts;
}

impl Handler for DeleteAccount {
    async fn run(self, control: Control, caller: Caller) -> Result<Accounts, Refusal> {
        let now = control.now_ms();
        let air = control.air().await;
        let (account, removed, rest) = control
            .write(move |conn| {
                let account = accounts::find(conn, &self.account)?.ok_or_else(|| unknown(&self.account))?;
                if self.confirm != account.handle {
                    let text = format!("`confirm` must be the account's handle, `{}`", account.handle);
                    return Err(Refusal::new(&codes::INVALID_REQUEST, text));
                }
                if account.id == caller.account_number() {
                    return Err(Refusal::new(&codes::INVALID_REQUEST, "the account of the token in use cannot be deleted with it"));
                }
                let services = services::list(conn, account.id)?;
                let removed = services.into_iter().map(|service| Removed::of(conn, service)).collect::<Result<Vec<_>, _>>()?;
                accounts::delete(conn, account.id)?;
                note(conn, &caller, Self::OPERATION.name, None, &account.handle, now)?;
                Ok((account, removed, accounts::list(conn)?))
            })
            .await?;
        control.tokens().remove_account(account.id);
        crate::deploy::removed(&control, air, removed).await;
        control.meters().delete_caps(account.id, None).await?;
        Ok(Accounts { accounts: rest.into_iter().map(Account::from).collect() })
    }
}
