//! Custom domains. A claim that is not verified reserves nothing.

use rusqlite::{Connection, OptionalExtension, Row, params};

/// A custom domain.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Its number.
    pub id: i64,
    /// The service.
    pub service_id: i64,
    /// The host name, in lower case.
    pub hostname: String,
    /// Since when its record is known to be there.
    pub verified_ms: Option<i64>,
    /// When it was last looked up.
    pub checked_ms: Option<i64>,
    /// What was wrong then.
    pub problem: Option<String>,
}

fn domain(row: &Row<'_>) -> rusqlite::Result<Domain> {
    Ok(Domain {
        id: row.get("id")?,
        service_id: row.get("service_id")?,
        hostname: row.get("hostname")?,
        verified_ms: row.get("verified_ms")?,
        checked_ms: row.get("checked_ms")?,
        problem: row.get("problem")?,
    })
}

/// The domains of a service.
pub fn list(conn: &Connection, service_id: i64) -> rusqlite::Result<Vec<Domain>> {
    conn.prepare_cached("select * from domains where service_id = ?1 order by hostname")?.query_map([service_id], domain)?.collect()
}

/// The service's domain of this name.
pub fn find(conn: &Connection, service_id: i64, hostname: &str) -> rusqlite::Result<Option<Domain>> {
    conn.prepare_cached("select * from domains where service_id = ?1 and hostname = ?2")?.query_row(params![service_id, hostname], domain).optional()
}

/// The service that this name is verified for.
pub fn owner(conn: &Connection, hostname: &str) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("select service_id from domains where hostname = ?1 and verified_ms is not null")?
        .query_row([hostname], |row| row.get(0))
        .optional()
}

/// Claims a name; the claim that is there, if there is one.
pub fn claim(conn: &Connection, service_id: i64, hostname: &str, now_ms: i64) -> rusqlite::Result<()> {
    let sql = "insert into domains (service_id, hostname, created_ms) values (?1, ?2, ?3) on conflict (service_id, hostname) do nothing";
    conn.prepare_cached(sql)?.execute(params![service_id, hostname, now_ms]).map(drop)
}

/// Writes down that the record of a name is there.
pub fn verified(conn: &Connection, id: i64, now_ms: i64) -> rusqlite::Result<()> {
    let sql = "update domains set checked_ms = ?2, problem = null, verified_ms = coalesce(verified_ms, ?2) where id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, now_ms]).map(drop)
}

/// Writes down that the record of a name is not there. Of a name that was verified nothing changes.
pub fn not_verified(conn: &Connection, id: i64, problem: &str, now_ms: i64) -> rusqlite::Result<()> {
    let sql = "update domains set checked_ms = ?2, problem = ?3 where id = ?1 and verified_ms is null";
    conn.prepare_cached(sql)?.execute(params![id, now_ms, problem]).map(drop)
}

/// Writes down that a look at a verified name has shown nothing new, or, with a problem, that its record was not there.
pub fn looked(conn: &Connection, id: i64, problem: Option<&str>, now_ms: i64) -> rusqlite::Result<()> {
    let sql = "update domains set checked_ms = ?2, problem = coalesce(?3, problem) where id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, now_ms, problem]).map(drop)
}

/// Takes a verified name whose record was not there before away from its service, which keeps its claim; false when it has been verified meanwhile.
pub fn lost(conn: &Connection, id: i64, problem: &str, now_ms: i64) -> rusqlite::Result<bool> {
    let sql =
        "update domains set checked_ms = ?2, problem = ?3, verified_ms = null where id = ?1 and verified_ms is not null and problem is not null";
    Ok(conn.prepare_cached(sql)?.execute(params![id, now_ms, problem])? == 1)
}

/// Gives a name up, and answers with what it was; nothing when it was not claimed.
pub fn delete(conn: &Connection, service_id: i64, hostname: &str) -> rusqlite::Result<Option<Domain>> {
    conn.prepare_cached("delete from domains where service_id = ?1 and hostname = ?2 returning *")?
        .query_row(params![service_id, hostname], domain)
        .optional()
}

/// The verified names of a service.
pub fn verified_names(conn: &Connection, service_id: i64) -> rusqlite::Result<Vec<String>> {
    conn.prepare_cached("select hostname from domains where service_id = ?1 and verified_ms is not null order by hostname")?
        .query_map([service_id], |row| row.get(0))?
        .collect()
}

/// The verified names that were last looked up before this.
pub fn due(conn: &Connection, before_ms: i64, limit: u32) -> rusqlite::Result<Vec<Domain>> {
    conn.prepare_cached("select * from domains where verified_ms is not null and checked_ms < ?1 order by checked_ms limit ?2")?
        .query_map(params![before_ms, limit], domain)?
        .collect()
}
