//! Login by device code: a client without a token shows a code, and somebody who has one approves it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{API_PUBLIC_BODY_BYTES_MAX, LOGIN_EXPIRY_SECONDS, LOGIN_INTERVAL_SECONDS, LOGINS_OPEN_CLIENT_MAX, LOGINS_OPEN_MAX};
use tovuk_kernel::operation::{Access, Argument, Command, Method, Operation, Request};

use super::{Done, note};
use crate::control::caller::Credential;
use crate::control::handler::Handler;
use crate::control::store::{accounts, logins};
use crate::control::vault::{new_token, random, token_digest};
use crate::control::{Caller, Control, Refusal, Scope};
use crate::listen::client_of;

/// Begins a login.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Start {}

/// A login that waits for somebody to approve it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LoginStarted")]
pub struct Started {
    /// The page where it is approved.
    pub login_url: String,
    /// What the client asks with. A secret.
    pub device_code: String,
    /// What the person compares.
    pub user_code: String,
    /// How long it is open.
    pub expires_in_seconds: u64,
    /// How often to ask.
    pub interval_seconds: u64,
}

impl Request for Start {
    const OPERATION: Operation = Operation::new("login.start", Method::Post, "/v1/login/device", "Begin a login by device code")
        .access(Access::Public)
        .body_bytes_max(API_PUBLIC_BODY_BYTES_MAX)
        .errors(&[&codes::TOO_MANY_REQUESTS]);
    type Response = Started;
}

/// Letters that are not mistaken for one another.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

fn user_code() -> Result<String, Refusal> {
    // Rejecting what lies beyond the last whole multiple keeps all letters equally likely.
    let mut code = String::new();
    while code.len() < 9 {
        for byte in random::<16>().map_err(Refusal::internal)?.into_iter().filter(|byte| *byte < 240) {
            match code.len() {
                9 => break,
                4 => code.push('-'),
                _ => {}
            }
            code.extend(LETTERS.get(usize::from(byte) % LETTERS.len()).map(|letter| char::from(*letter)));
        }
    }
    Ok(code)
}

impl Handler for Start {
    async fn run(self, control: Control, caller: Caller) -> Result<Started, Refusal> {
        let client = match caller.credential {
            Credential::Anonymous(Some(address)) => client_of(address).to_string(),
            _ => String::new(),
        };
        let (device_code, user_code) = (new_token("").map_err(Refusal::internal)?, user_code()?);
        let now = control.now_ms();
        let (digest, code) = (token_digest(&device_code), user_code.clone());
        control
            .write(move |conn| {
                logins::expire(conn, now)?;
                let (all, own) = logins::count(conn, &client)?;
                if all >= LOGINS_OPEN_MAX || own >= LOGINS_OPEN_CLIENT_MAX {
                    let text =
                        format!("{all} logins are open, {own} of them begun by this client; they end {LOGIN_EXPIRY_SECONDS} s after they began");
                    return Err(Refusal::new(&codes::TOO_MANY_REQUESTS, text));
                }
                let expires_ms = now + i64::try_from(LOGIN_EXPIRY_SECONDS).unwrap_or(0) * 1_000;
                Ok(logins::add(conn, &digest, &code, &client, expires_ms)?)
            })
            .await?;
        Ok(Started {
            login_url: format!("{}/login?code={user_code}", control.urls().api),
            device_code,
            user_code,
            expires_in_seconds: LOGIN_EXPIRY_SECONDS,
            interval_seconds: LOGIN_INTERVAL_SECONDS,
        })
    }
}

/// Asks whether a login is complete.
#[derive(Deserialize, JsonSchema)]
pub struct Poll {
    /// What `login.start` answered with.
    pub device_code: String,
}

/// Where a login stands.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LoginPolled")]
pub struct Polled {
    /// `pending`, `complete` or `expired`.
    pub status: &'static str,
    /// The token, once it is complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The handle of the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// The same, under the name that clients of the hosted service read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// How often to ask.
    pub interval_seconds: u64,
}

impl Request for Poll {
    const OPERATION: Operation = Operation::new("login.poll", Method::Get, "/v1/login/device/{device_code}", "Ask whether a login is complete")
        .described("Answers with the token as often as it is asked until the login ends, so that a lost answer loses nothing.")
        .access(Access::Public);
    type Response = Polled;
}

impl Handler for Poll {
    async fn run(self, control: Control, _caller: Caller) -> Result<Polled, Refusal> {
        let (now, digest) = (control.now_ms(), token_digest(&self.device_code));
        let login = control.read(move |conn| Ok(logins::get(conn, &digest)?.filter(|login| login.expires_ms > now))).await?;
        let pending = |status| Polled { status, token: None, handle: None, email: None, interval_seconds: LOGIN_INTERVAL_SECONDS };
        let Some(login) = login else { return Ok(pending("expired")) };
        let Some((sealed, handle)) = login.completed else { return Ok(pending("pending")) };
        let token = control.vault().open(&context(&digest), &sealed).and_then(|token| String::from_utf8(token).ok());
        let token = token.ok_or_else(|| Refusal::internal("the token of a login does not open"))?;
        Ok(Polled {
            status: "complete",
            token: Some(token),
            email: Some(handle.clone()),
            handle: Some(handle),
            interval_seconds: LOGIN_INTERVAL_SECONDS,
        })
    }
}

fn context(digest: &[u8; 32]) -> String {
    format!("login {}", hex::encode(digest))
}

/// Approves a login for the caller's account.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approve {
    /// What the client shows.
    pub user_code: String,
    /// How far the client's token is to reach; `account` when absent.
    pub scope: Option<Scope>,
}

impl Request for Approve {
    const OPERATION: Operation = Operation::new("login.approve", Method::Post, "/v1/login/approve", "Approve a login that another client has begun")
        .errors(&[&codes::LOGIN_NOT_FOUND, &codes::TOKEN_LIMIT])
        .commands(&[Command::new("login approve")
            .arguments(&[
                Argument::positional("userCode", "The code that the other client shows"),
                Argument::flag("scope", "scope", "account, read or operator"),
            ])
            .examples(&["tovuk login approve BCDF-GHJK"])]);
    type Response = Done;
}

impl Handler for Approve {
    async fn run(self, control: Control, caller: Caller) -> Result<Done, Refusal> {
        let scope = self.scope.unwrap_or(Scope::Account);
        if scope == Scope::Operator && !caller.is_operator() {
            return Err(Refusal::new(&codes::TOKEN_SCOPE, "only an operator's token can approve one that reaches as far"));
        }
        let (now, vault, tokens) = (control.now_ms(), control.vault().clone(), control.tokens().clone());
        control
            .write(move |conn| {
                let code = self.user_code.trim().to_ascii_uppercase();
                let unknown = || Refusal::new(&codes::LOGIN_NOT_FOUND, format!("no login waits with the code `{code}`"));
                let device = logins::waiting(conn, &code, now)?.ok_or_else(unknown)?;
                let account = caller.account_number();
                super::tokens::check_room(conn, account)?;
                let (token, text) = tokens.create(conn, account, "login", scope, now, None)?;
                let sealed = vault.seal(&context(&device), text.as_bytes()).map_err(Refusal::internal)?;
                let handle = accounts::get(conn, account)?.map(|account| account.handle).unwrap_or_default();
                logins::complete(conn, &device, &sealed, &handle)?;
                note(conn, &caller, Self::OPERATION.name, None, &format!("token_{}", token.id), now)
            })
            .await?;
        Ok(Done { ok: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_two_groups_of_four_letters() {
        for _ in 0..200 {
            let code = user_code().unwrap_or_default();
            let (first, second) = code.split_once('-').unwrap_or_default();
            assert!([first, second].iter().all(|group| group.len() == 4 && group.bytes().all(|letter| LETTERS.contains(&letter))), "{code}");
        }
    }
}
