//! Secrets, as the vault has sealed them.

use rusqlite::{Connection, params};

/// A secret without its value.
#[derive(Clone, Debug)]
pub struct Secret {
    /// The variable.
    pub name: String,
    /// When it was first set.
    pub created_ms: i64,
    /// When it was last set.
    pub updated_ms: i64,
}

/// The secrets of a service.
pub fn list(conn: &Connection, service_id: i64) -> rusqlite::Result<Vec<Secret>> {
    conn.prepare_cached("select name, created_ms, updated_ms from env where service_id = ?1 order by name")?
        .query_map([service_id], |row| Ok(Secret { name: row.get(0)?, created_ms: row.get(1)?, updated_ms: row.get(2)? }))?
        .collect()
}

/// The secrets of a service with their sealed values.
pub fn sealed(conn: &Connection, service_id: i64) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    conn.prepare_cached("select name, sealed from env where service_id = ?1 order by name")?
        .query_map([service_id], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Sets a secret.
pub fn put(conn: &Connection, service_id: i64, name: &str, sealed: &[u8], now_ms: i64) -> rusqlite::Result<()> {
    let sql = "insert into env (service_id, name, sealed, created_ms, updated_ms) values (?1, ?2, ?3, ?4, ?4)
        on conflict (service_id, name) do update set sealed = ?3, updated_ms = ?4";
    conn.prepare_cached(sql)?.execute(params![service_id, name, sealed, now_ms]).map(drop)
}

/// Removes a secret; false when there was none.
pub fn delete(conn: &Connection, service_id: i64, name: &str) -> rusqlite::Result<bool> {
    Ok(conn.prepare_cached("delete from env where service_id = ?1 and name = ?2")?.execute(params![service_id, name])? == 1)
}
