//! What has happened to an account, for its owner to read.

use rusqlite::{Connection, params};

/// One thing that has happened.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number, which also is its place in time.
    pub id: i64,
    /// When.
    pub at_ms: i64,
    /// The operation.
    pub action: String,
    /// The service it concerned.
    pub service_id: Option<i64>,
    /// What it concerned, in words.
    pub subject: String,
    /// The token that was used.
    pub token_id: Option<i64>,
}

/// Writes one down.
pub fn add(
    conn: &Connection,
    account_id: i64,
    action: &str,
    service_id: Option<i64>,
    subject: &str,
    token_id: Option<i64>,
    now_ms: i64,
) -> rusqlite::Result<()> {
    let sql = "insert into activity (account_id, at_ms, action, service_id, subject, token_id) values (?1, ?2, ?3, ?4, ?5, ?6)";
    conn.prepare_cached(sql)?.execute(params![account_id, now_ms, action, service_id, subject, token_id]).map(drop)
}

/// The newest before a place, the newest first.
pub fn page(conn: &Connection, account_id: i64, before: i64, limit: u32) -> rusqlite::Result<Vec<Entry>> {
    let sql = "select id, at_ms, action, service_id, subject, token_id from activity where account_id = ?1 and id < ?2 order by id desc limit ?3";
    conn.prepare_cached(sql)?
        .query_map(params![account_id, before, limit], |row| {
            Ok(Entry {
                id: row.get(0)?,
                at_ms: row.get(1)?,
                action: row.get(2)?,
                service_id: row.get(3)?,
                subject: row.get(4)?,
                token_id: row.get(5)?,
            })
        })?
        .collect()
}

/// Forgets what is older than this.
pub fn prune(conn: &Connection, before_ms: i64) -> rusqlite::Result<()> {
    conn.execute("delete from activity where at_ms < ?1", [before_ms]).map(drop)
}
