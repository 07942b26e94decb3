//! Accounts and their tokens.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tovuk_kernel::limits::Plan;

use crate::control::caller::Scope;

/// An account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its number.
    pub id: i64,
    /// Its handle, unique on the host.
    pub handle: String,
    /// What people call it.
    pub display_name: String,
    /// What it has subscribed to.
    pub plan: Plan,
    /// Whether the operator has closed it.
    pub suspended: bool,
    /// When it was made.
    pub created_ms: i64,
}

/// A token, without its secret.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its number.
    pub id: i64,
    /// Whose it is.
    pub account_id: i64,
    /// What its owner calls it.
    pub name: String,
    /// How far it reaches.
    pub scope: Scope,
    /// When it was made.
    pub created_ms: i64,
    /// When it ends by itself.
    pub expires_ms: Option<i64>,
}

fn account(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get("id")?,
        handle: row.get("handle")?,
        display_name: row.get("display_name")?,
        plan: Plan::named(&row.get::<_, String>("plan")?).unwrap_or_default(),
        suspended: row.get("suspended")?,
        created_ms: row.get("created_ms")?,
    })
}

fn token(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        id: row.get("id")?,
        account_id: row.get("account_id")?,
        name: row.get("name")?,
        // A scope that this version does not know reaches the least.
        scope: Scope::named(&row.get::<_, String>("scope")?).unwrap_or(Scope::Read),
        created_ms: row.get("created_ms")?,
        expires_ms: row.get("expires_ms")?,
    })
}

/// Makes an account; `None` when its handle is taken.
pub fn create(conn: &Connection, handle: &str, display_name: &str, plan: Plan, now_ms: i64) -> rusqlite::Result<Option<Account>> {
    let sql = "insert into accounts (handle, display_name, plan, created_ms) values (?1, ?2, ?3, ?4) on conflict (handle) do nothing returning *";
    conn.prepare_cached(sql)?.query_row(params![handle, display_name, plan.as_str(), now_ms], account).optional()
}

/// The account of this number.
pub fn get(conn: &Connection, id: i64) -> rusqlite::Result<Option<Account>> {
    conn.prepare_cached("select * from accounts where id = ?1")?.query_row([id], account).optional()
}

/// The account of this handle or number.
pub fn find(conn: &Connection, name: &str) -> rusqlite::Result<Option<Account>> {
    match tovuk_kernel::ids::number(name, "account") {
        Some(id) => get(conn, id),
        None => conn.prepare_cached("select * from accounts where handle = ?1")?.query_row([name], account).optional(),
    }
}

/// Every account.
pub fn list(conn: &Connection) -> rusqlite::Result<Vec<Account>> {
    conn.prepare_cached("select * from accounts order by id")?.query_map([], account)?.collect()
}

/// Changes handle and name; false when the handle is taken.
pub fn rename(conn: &Connection, id: i64, handle: &str, display_name: &str) -> rusqlite::Result<bool> {
    let sql =
        "update accounts set handle = ?2, display_name = ?3 where id = ?1 and not exists (select 1 from accounts where handle = ?2 and id <> ?1)";
    Ok(conn.execute(sql, params![id, handle, display_name])? == 1)
}

/// Changes the plan.
pub fn set_plan(conn: &Connection, id: i64, plan: Plan) -> rusqlite::Result<()> {
    conn.execute("update accounts set plan = ?2 where id = ?1", params![id, plan.as_str()]).map(drop)
}

/// Closes or opens it.
pub fn set_suspended(conn: &Connection, id: i64, suspended: bool) -> rusqlite::Result<()> {
    conn.execute("update accounts set suspended = ?2 where id = ?1", params![id, suspended]).map(drop)
}

/// Removes it with all it owns.
pub fn delete(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.execute("delete from accounts where id = ?1", [id]).map(drop)
}

/// Stores a token by its digest.
pub fn add_token(
    conn: &Connection,
    account_id: i64,
    name: &str,
    scope: Scope,
    digest: &[u8],
    now_ms: i64,
    expires_ms: Option<i64>,
) -> rusqlite::Result<Token> {
    let sql = "insert into tokens (account_id, name, scope, digest, created_ms, expires_ms) values (?1, ?2, ?3, ?4, ?5, ?6) returning *";
    conn.prepare_cached(sql)?.query_row(params![account_id, name, scope.as_str(), digest, now_ms, expires_ms], token)
}

/// The tokens of an account.
pub fn tokens(conn: &Connection, account_id: i64) -> rusqlite::Result<Vec<Token>> {
    conn.prepare_cached("select * from tokens where account_id = ?1 order by id")?.query_map([account_id], token)?.collect()
}

/// Every token with its digest.
pub fn all_tokens(conn: &Connection) -> rusqlite::Result<Vec<(Vec<u8>, Token)>> {
    conn.prepare("select * from tokens")?.query_map([], |row| Ok((row.get("digest")?, token(row)?)))?.collect()
}

/// Removes a token of an account; its digest, when there was one.
pub fn revoke_token(conn: &Connection, account_id: i64, id: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "delete from tokens where account_id = ?1 and id = ?2 returning digest";
    conn.prepare_cached(sql)?.query_row(params![account_id, id], |row| row.get(0)).optional()
}

/// Removes tokens that have ended; their digests.
pub fn expire_tokens(conn: &Connection, now_ms: i64) -> rusqlite::Result<Vec<Vec<u8>>> {
    conn.prepare_cached("delete from tokens where expires_ms <= ?1 returning digest")?.query_map([now_ms], |row| row.get(0))?.collect()
}
