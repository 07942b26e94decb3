//! Tokens of the account. The text of one is shown when it is made and never again.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::ids::number;
use tovuk_kernel::limits::{API_TOKENS_MAX, TOKEN_NAME_CHARS_MAX};
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};

use super::{note, timestamp};
use crate::control::handler::Handler;
use crate::control::store::accounts;
use crate::control::{Caller, Control, Refusal, Scope};

/// A token without its text.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Its id, for example `token_1`.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// How far it reaches.
    pub scope: Scope,
    /// When it was made.
    pub created_at: String,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl From<accounts::Token> for Token {
    fn from(token: accounts::Token) -> Self {
        Self {
            id: format!("token_{}", token.id),
            name: token.name,
            scope: token.scope,
            created_at: timestamp(token.created_ms),
            expires_at: token.expires_ms.map(timestamp),
        }
    }
}

/// Makes a token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    /// What to call it.
    pub name: String,
    /// How far it is to reach; `account` when absent. Nobody can make one that reaches further than their own.
    pub scope: Option<Scope>,
    /// After how many seconds it ends by itself; never when absent.
    pub expires_in_seconds: Option<u32>,
}

/// A token with its text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CreatedToken {
    /// The text. It is not stored and cannot be shown again.
    pub token: String,
    /// What is known of it.
    pub details: Token,
}

impl Request for Create {
    const OPERATION: Operation = Operation::new("token.create", Method::Post, "/v1/tokens", "Make a token; its text is shown once")
        .status(201)
        .errors(&[&codes::INVALID_NAME, &codes::TOKEN_LIMIT])
        .commands(&[Command::new("token create")
            .arguments(&[
                Argument::positional("name", "What to call it"),
                Argument::flag("scope", "scope", "account, read or operator"),
                Argument::flag("expiresInSeconds", "expires-in-seconds", "After how many seconds it ends by itself").form(Form::Integer),
            ])
            .examples(&["tovuk token create ci", "tovuk token create dashboard --scope read --expires-in-seconds 86400"])]);
    type Response = CreatedToken;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<CreatedToken, Refusal> {
        let name = self.name.trim().to_owned();
        if name.is_empty() || name.chars().count() > TOKEN_NAME_CHARS_MAX {
            return Err(Refusal::new(&codes::INVALID_NAME, format!("a token's name has 1 to {TOKEN_NAME_CHARS_MAX} characters")));
        }
        let scope = self.scope.unwrap_or(Scope::Account);
        if scope == Scope::Operator && !caller.is_operator() {
            return Err(Refusal::new(&codes::TOKEN_SCOPE, "only an operator's token can make another one"));
        }
        let now = control.now_ms();
        let expires_ms = self.expires_in_seconds.map(|seconds| now.saturating_add(i64::from(seconds) * 1_000));
        let tokens = control.tokens().clone();
        let (token, text) = control
            .write(move |conn| {
                let account = caller.account_number();
                check_room(conn, account)?;
                let (token, text) = tokens.create(conn, account, &name, scope, now, expires_ms)?;
                note(conn, &caller, Self::OPERATION.name, None, &name, now)?;
                Ok((token, text))
            })
            .await?;
        Ok(CreatedToken { token: text, details: token.into() })
    }
}

/// Refuses an account more tokens than it may have.
pub(super) fn check_room(conn: &Connection, account: i64) -> Result<(), Refusal> {
    if accounts::tokens(conn, account)?.len() as u64 >= API_TOKENS_MAX {
        return Err(Refusal::new(&codes::TOKEN_LIMIT, format!("the account has {API_TOKENS_MAX} tokens")));
    }
    Ok(())
}

/// Lists the tokens.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {}

/// The tokens of the account.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Tokens {
    /// The tokens.
    pub tokens: Vec<Token>,
}

impl Request for List {
    const OPERATION: Operation = Operation::new("token.list", Method::Get, "/v1/tokens", "List the account's tokens, without their text")
        .commands(&[Command::new("token list").default().examples(&["tovuk token list"])]);
    type Response = Tokens;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Tokens, Refusal> {
        let tokens = control.read(move |conn| Ok(accounts::tokens(conn, caller.account_number())?)).await?;
        Ok(Tokens { tokens: tokens.into_iter().map(Token::from).collect() })
    }
}

/// Revokes a token.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Revoke {
    /// Its id.
    pub token: String,
}

impl Request for Revoke {
    const OPERATION: Operation = Operation::new("token.revoke", Method::Delete, "/v1/tokens/{token}", "Revoke a token at once")
        .errors(&[&codes::TOKEN_NOT_FOUND])
        .commands(&[Command::new("token revoke")
            .aliases(&["token delete"])
            .arguments(&[Argument::positional("token", "Its id")])
            .examples(&["tovuk token revoke token_2"])]);
    type Response = Tokens;
}

impl Handler for Revoke {
    async fn run(self, control: Control, caller: Caller) -> Result<Tokens, Refusal> {
        let now = control.now_ms();
        let account = caller.account_number();
        let (digest, tokens) = control
            .write(move |conn| {
                let unknown = || Refusal::new(&codes::TOKEN_NOT_FOUND, format!("there is no token `{}` in this account", self.token));
                let id = number(&self.token, "token").ok_or_else(unknown)?;
                let digest = accounts::revoke_token(conn, account, id)?.ok_or_else(unknown)?;
                note(conn, &caller, Self::OPERATION.name, None, &self.token, now)?;
                Ok((digest, accounts::tokens(conn, account)?))
            })
            .await?;
        control.tokens().remove(&digest);
        Ok(Tokens { tokens: tokens.into_iter().map(Token::from).collect() })
    }
}
