//! Logins by device code that are open.

use rusqlite::{Connection, OptionalExtension, params};

/// A login.
#[derive(Debug)]
pub struct Login {
    /// When it ends.
    pub expires_ms: i64,
    /// The sealed token and the account's handle, once it was approved.
    pub completed: Option<(Vec<u8>, String)>,
}

/// Adds one that waits.
pub fn add(conn: &Connection, device_digest: &[u8; 32], user_code: &str, client: &str, expires_ms: i64) -> rusqlite::Result<()> {
    let sql = "insert into logins (device_digest, user_code, client, expires_ms) values (?1, ?2, ?3, ?4)";
    conn.prepare_cached(sql)?.execute(params![device_digest, user_code, client, expires_ms]).map(drop)
}

/// Forgets those that have ended.
pub fn expire(conn: &Connection, now_ms: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("delete from logins where expires_ms <= ?1")?.execute([now_ms]).map(drop)
}

/// How many are open, and how many of them this client has begun.
pub fn count(conn: &Connection, client: &str) -> rusqlite::Result<(u64, u64)> {
    conn.prepare_cached("select count(*), count(*) filter (where client = ?1) from logins")?
        .query_row([client], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned())))
}

/// The login of this device.
pub fn get(conn: &Connection, device_digest: &[u8; 32]) -> rusqlite::Result<Option<Login>> {
    conn.prepare_cached("select expires_ms, sealed_token, handle from logins where device_digest = ?1")?
        .query_row([device_digest], |row| {
            let sealed: Option<Vec<u8>> = row.get(1)?;
            let handle: Option<String> = row.get(2)?;
            Ok(Login { expires_ms: row.get(0)?, completed: sealed.zip(handle) })
        })
        .optional()
}

/// The device whose login waits with this code.
pub fn waiting(conn: &Connection, user_code: &str, now_ms: i64) -> rusqlite::Result<Option<[u8; 32]>> {
    conn.prepare_cached("select device_digest from logins where user_code = ?1 and sealed_token is null and expires_ms > ?2")?
        .query_row(params![user_code, now_ms], |row| row.get(0))
        .optional()
}

/// Gives a login its token.
pub fn complete(conn: &Connection, device_digest: &[u8; 32], sealed_token: &[u8], handle: &str) -> rusqlite::Result<()> {
    let sql = "update logins set sealed_token = ?2, handle = ?3 where device_digest = ?1";
    conn.prepare_cached(sql)?.execute(params![device_digest, sealed_token, handle]).map(drop)
}
