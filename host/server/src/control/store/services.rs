//! Services.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tovuk_kernel::ids::{AccountId, ServiceId, number};
use tovuk_kernel::names::allocate_slug;
use tovuk_kernel::project::{Capabilities, Kind};

/// A service.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its number.
    pub id: i64,
    /// Its owner's number.
    pub account_id: i64,
    /// Its name, unique in its account.
    pub name: String,
    /// The first label of its public host name, unique on the host.
    pub slug: String,
    /// What it is.
    pub kind: Kind,
    /// The capability flags of its last deploy.
    pub capabilities: Capabilities,
    /// The deploy that serves.
    pub live_deploy_id: Option<i64>,
    /// When it was made.
    pub created_ms: i64,
}

impl Service {
    /// Its id as the API writes it.
    pub fn service_id(&self) -> ServiceId {
        ServiceId::from(format!("service_{}", self.id))
    }

    /// Its owner's id as the API writes it.
    pub fn account(&self) -> AccountId {
        AccountId::from(format!("account_{}", self.account_id))
    }
}

fn service(row: &Row<'_>) -> rusqlite::Result<Service> {
    Ok(Service {
        id: row.get("id")?,
        account_id: row.get("account_id")?,
        name: row.get("name")?,
        slug: row.get("slug")?,
        kind: Kind::named(&row.get::<_, String>("kind")?).unwrap_or(Kind::RustWorker),
        capabilities: serde_json::from_str(&row.get::<_, String>("capabilities")?).unwrap_or_default(),
        live_deploy_id: row.get("live_deploy_id")?,
        created_ms: row.get("created_ms")?,
    })
}

/// The account's service of this id or name.
pub fn find(conn: &Connection, account_id: i64, id_or_name: &str) -> rusqlite::Result<Option<Service>> {
    match number(id_or_name, "service") {
        Some(id) => {
            conn.prepare_cached("select * from services where account_id = ?1 and id = ?2")?.query_row(params![account_id, id], service).optional()
        }
        None => conn
            .prepare_cached("select * from services where account_id = ?1 and name = ?2")?
            .query_row(params![account_id, id_or_name], service)
            .optional(),
    }
}

/// The service of this number, whoever owns it.
pub fn get(conn: &Connection, id: i64) -> rusqlite::Result<Option<Service>> {
    conn.prepare_cached("select * from services where id = ?1")?.query_row([id], service).optional()
}

/// The account's services.
pub fn list(conn: &Connection, account_id: i64) -> rusqlite::Result<Vec<Service>> {
    conn.prepare_cached("select * from services where account_id = ?1 order by id")?.query_map([account_id], service)?.collect()
}

/// From now on no number up to this one is given to a service.
pub fn skip_numbers(conn: &Connection, last: i64) -> rusqlite::Result<()> {
    let skipped = conn.execute("update sqlite_sequence set seq = max(seq, ?1) where name = 'services'", [last])?;
    if skipped == 0 && last > 0 {
        conn.execute("insert into sqlite_sequence (name, seq) values ('services', ?1)", [last])?;
    }
    Ok(())
}

/// Every service of the host.
pub fn all(conn: &Connection) -> rusqlite::Result<Vec<Service>> {
    conn.prepare("select * from services order by id")?.query_map([], service)?.collect()
}

/// How many services the account has.
pub fn count(conn: &Connection, account_id: i64) -> rusqlite::Result<u64> {
    conn.prepare_cached("select count(*) from services where account_id = ?1")?.query_row([account_id], |row| row.get(0)).map(i64::cast_unsigned)
}

/// Makes a service with the first free slug. The name must be free in its account.
pub fn create(conn: &Connection, account_id: i64, name: &str, kind: Kind, capabilities: &Capabilities, now_ms: i64) -> rusqlite::Result<Service> {
    // Slugs that begin alike, in one read: `allocate_slug` asks for one after the other.
    let taken: Vec<String> = conn
        .prepare_cached("select slug from services where slug = ?1 or slug like ?1 || '-%'")?
        .query_map([name], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let slug = allocate_slug(name, |slug| taken.iter().any(|other| other == slug));
    let sql = "insert into services (account_id, name, slug, kind, capabilities, created_ms) values (?1, ?2, ?3, ?4, ?5, ?6) returning *";
    conn.prepare_cached(sql)?.query_row(params![account_id, name, slug, kind.as_str(), json(capabilities), now_ms], service)
}

/// Says what the service is now.
pub fn describe(conn: &Connection, id: i64, kind: Kind, capabilities: &Capabilities) -> rusqlite::Result<()> {
    let sql = "update services set kind = ?2, capabilities = ?3 where id = ?1";
    conn.prepare_cached(sql)?.execute(params![id, kind.as_str(), json(capabilities)]).map(drop)
}

/// Gives every service of an account its name as its slug, for a host that has no other account.
pub fn name_slugs(conn: &Connection, account_id: i64) -> rusqlite::Result<()> {
    // In two steps, because a name can be the slug that another service leaves; no name has a `_`.
    let sql = "update services set slug = '_' || id where account_id = ?1 and slug <> name";
    if conn.execute(sql, [account_id])? > 0 {
        conn.execute("update services set slug = name where account_id = ?1 and slug <> name", [account_id])?;
    }
    Ok(())
}

fn json(capabilities: &Capabilities) -> String {
    // Seventeen flags with fixed names always serialise.
    serde_json::to_string(capabilities).unwrap_or_default()
}

/// Removes a service with everything of it.
pub fn delete(conn: &Connection, id: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("delete from services where id = ?1")?.execute([id]).map(drop)
}
