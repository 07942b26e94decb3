//! Webhooks of accounts.

use rusqlite::{Connection, OptionalExtension, params};

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where it is called.
    pub url: String,
    /// How often the account has set one.
    pub version: i64,
}

/// The webhook of an account.
pub fn get(conn: &Connection, account: i64) -> rusqlite::Result<Option<Webhook>> {
    let row = |row: &rusqlite::Row<'_>| Ok(Webhook { url: row.get("url")?, version: row.get("version")? });
    let found = conn.prepare_cached("select url, version from webhooks where account_id = ?1")?.query_row([account], row).optional()?;
    Ok(found.filter(|webhook| !webhook.url.is_empty()))
}

/// Sets it.
pub fn set(conn: &Connection, account: i64, url: &str) -> rusqlite::Result<Webhook> {
    let sql = "insert into webhooks (account_id, url, version) values (?1, ?2, 1)
        on conflict (account_id) do update set url = excluded.url, version = version + 1 returning version";
    let version = conn.prepare_cached(sql)?.query_row(params![account, url], |row| row.get(0))?;
    Ok(Webhook { url: url.to_owned(), version })
}

/// Removes it. Whether there was one. Its number of settings stays, so that no secret comes back.
pub fn delete(conn: &Connection, account: i64) -> rusqlite::Result<bool> {
    Ok(conn.prepare_cached("update webhooks set url = '' where account_id = ?1 and url <> ''")?.execute([account])? > 0)
}
