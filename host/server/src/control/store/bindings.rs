//! Service bindings.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tovuk_kernel::names::env_suffix;

/// A binding.
#[derive(Clone, Debug)]
pub struct Binding {
    /// What the worker calls it by.
    pub name: String,
    /// The number of the service that it leads to.
    pub target_id: i64,
    /// That service's name.
    pub target_name: String,
    /// The variable that receives the target's private URL.
    pub url_env: Option<String>,
    /// When it was made.
    pub created_ms: i64,
}

fn binding(row: &Row<'_>) -> rusqlite::Result<Binding> {
    Ok(Binding {
        name: row.get("name")?,
        target_id: row.get("target_id")?,
        target_name: row.get("target_name")?,
        url_env: row.get("url_env")?,
        created_ms: row.get("created_ms")?,
    })
}

/// The bindings of a service.
pub fn list(conn: &Connection, service_id: i64) -> rusqlite::Result<Vec<Binding>> {
    let sql = "select b.*, t.name as target_name from bindings b join services t on t.id = b.target_id where b.service_id = ?1 order by b.name";
    conn.prepare_cached(sql)?.query_map([service_id], binding)?.collect()
}

/// How many bindings a service has.
pub fn count(conn: &Connection, service_id: i64) -> rusqlite::Result<u64> {
    conn.prepare_cached("select count(*) from bindings where service_id = ?1")?.query_row([service_id], |row| row.get(0)).map(i64::cast_unsigned)
}

/// The name of a binding that has this name, or that would share its environment variable.
pub fn clash(conn: &Connection, service_id: i64, name: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("select name from bindings where service_id = ?1 and suffix = ?2")?
        .query_row(params![service_id, env_suffix(name)], |row| row.get(0))
        .optional()
}

/// Makes a binding, or gives the one of that name another target.
pub fn put(conn: &Connection, service_id: i64, name: &str, target_id: i64, url_env: Option<&str>, now_ms: i64) -> rusqlite::Result<()> {
    let sql = "insert into bindings (service_id, name, suffix, target_id, url_env, created_ms) values (?1, ?2, ?3, ?4, ?5, ?6)
        on conflict (service_id, name) do update set target_id = ?4, url_env = ?5";
    conn.prepare_cached(sql)?.execute(params![service_id, name, env_suffix(name), target_id, url_env, now_ms]).map(drop)
}

/// Removes a binding; false when there was none.
pub fn delete(conn: &Connection, service_id: i64, name: &str) -> rusqlite::Result<bool> {
    Ok(conn.prepare_cached("delete from bindings where service_id = ?1 and name = ?2")?.execute(params![service_id, name])? == 1)
}

/// The bindings of other services that lead to this one: the service's name and the binding's.
pub fn callers(conn: &Connection, target_id: i64) -> rusqlite::Result<Vec<(String, String)>> {
    let sql =
        "select s.name, b.name from bindings b join services s on s.id = b.service_id where b.target_id = ?1 and b.service_id <> ?1 order by 1, 2";
    conn.prepare_cached(sql)?.query_map([target_id], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}
