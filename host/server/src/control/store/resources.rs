//! The kinds of data that services have by name: their numbers and names. The data itself is in the stores of the kinds, which know it by its number.

use rusqlite::{Connection, OptionalExtension, Row, params};
use tovuk_kernel::names::env_suffix;
use tovuk_kernel::resource::Kind;

/// What `removals` calls the objects of a service, which go by its number.
pub const OBJECTS: &str = "objects";

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its kind.
    pub kind: Kind,
    /// The number in its id.
    pub number: i64,
    /// What its service calls it.
    pub name: String,
    /// When it was made.
    pub created_ms: i64,
}

impl Resource {
    /// Its id.
    pub fn id(&self) -> String {
        self.kind.id(self.number)
    }
}

fn resource(kind: Kind) -> impl Fn(&Row<'_>) -> rusqlite::Result<Resource> {
    move |row| Ok(Resource { kind, number: row.get("number")?, name: row.get("name")?, created_ms: row.get("created_ms")? })
}

/// The resources of one kind that a service has, by name.
pub fn list(conn: &Connection, service_id: i64, kind: Kind) -> rusqlite::Result<Vec<Resource>> {
    let sql = "select number, name, created_ms from resources where service_id = ?1 and kind = ?2 order by name";
    conn.prepare_cached(sql)?.query_map(params![service_id, kind.as_str()], resource(kind))?.collect()
}

/// The service's resource of this name or id.
pub fn find(conn: &Connection, service_id: i64, kind: Kind, name_or_id: &str) -> rusqlite::Result<Option<Resource>> {
    let sql = "select number, name, created_ms from resources where service_id = ?1 and kind = ?2 and (name = ?3 or number = ?4)";
    conn.prepare_cached(sql)?.query_row(params![service_id, kind.as_str(), name_or_id, kind.number(name_or_id)], resource(kind)).optional()
}

/// How many resources a service has, of all kinds, without its bindings and its cron triggers, which have a limit of their own.
pub fn count(conn: &Connection, service_id: i64) -> rusqlite::Result<u64> {
    conn.prepare_cached("select count(*) from resources where service_id = ?1 and kind <> ?2")?
        .query_row(params![service_id, Kind::Cron.as_str()], |row| row.get(0))
        .map(i64::cast_unsigned)
}

/// How many it has of one kind.
pub fn count_of(conn: &Connection, service_id: i64, kind: Kind) -> rusqlite::Result<u64> {
    conn.prepare_cached("select count(*) from resources where service_id = ?1 and kind = ?2")?
        .query_row(params![service_id, kind.as_str()], |row| row.get(0))
        .map(i64::cast_unsigned)
}

/// The name of a resource that has this name, or that would share its environment variable.
pub fn clash(conn: &Connection, service_id: i64, kind: Kind, name: &str) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("select name from resources where service_id = ?1 and kind = ?2 and suffix = ?3")?
        .query_row(params![service_id, kind.as_str(), env_suffix(name)], |row| row.get(0))
        .optional()
}

/// A number that was not given out before, for ids that begin so.
pub fn next_number(conn: &Connection, prefix: &str) -> rusqlite::Result<i64> {
    let sql = "insert into resource_numbers (kind, last) values (?1, 1) on conflict (kind) do update set last = last + 1 returning last";
    conn.prepare_cached(sql)?.query_row([prefix], |row| row.get(0))
}

/// The account and the service that have a resource.
pub fn owner_of(conn: &Connection, kind: Kind, number: i64) -> rusqlite::Result<Option<(i64, i64)>> {
    let sql = "select s.account_id, s.id from resources r join services s on s.id = r.service_id where r.kind = ?1 and r.number = ?2";
    conn.prepare_cached(sql)?.query_row(params![kind.as_str(), number], |row| Ok((row.get(0)?, row.get(1)?))).optional()
}

/// The resource of this number, and the number of the service that has it.
pub fn by_number(conn: &Connection, kind: Kind, number: i64) -> rusqlite::Result<Option<(i64, Resource)>> {
    let sql = "select service_id, number, name, created_ms from resources where kind = ?1 and number = ?2";
    let row = |row: &Row<'_>| Ok((row.get("service_id")?, resource(kind)(row)?));
    conn.prepare_cached(sql)?.query_row(params![kind.as_str(), number], row).optional()
}

/// All resources of one kind, whoever has them: each with the number of its service.
pub fn all_of(conn: &Connection, kind: Kind) -> rusqlite::Result<Vec<(i64, Resource)>> {
    let sql = "select service_id, number, name, created_ms from resources where kind = ?1";
    let row = |row: &Row<'_>| Ok((row.get("service_id")?, resource(kind)(row)?));
    conn.prepare_cached(sql)?.query_map([kind.as_str()], row)?.collect()
}

/// Gives out no number up to this one any more, for ids that begin so.
pub fn skip_numbers(conn: &Connection, prefix: &str, last: i64) -> rusqlite::Result<()> {
    let sql = "insert into resource_numbers (kind, last) values (?1, ?2) on conflict (kind) do update set last = max(last, ?2)";
    conn.prepare_cached(sql)?.execute(params![prefix, last]).map(drop)
}

/// The numbers of all resources of one kind, whoever has them.
pub fn numbers(conn: &Connection, kind: Kind) -> rusqlite::Result<Vec<i64>> {
    conn.prepare_cached("select number from resources where kind = ?1")?.query_map([kind.as_str()], |row| row.get(0))?.collect()
}

/// The numbers of all resources of one kind, each with the account whose service has it.
pub fn owners(conn: &Connection, kind: Kind) -> rusqlite::Result<Vec<(i64, i64, i64)>> {
    let sql = "select r.number, s.account_id, s.id from resources r join services s on s.id = r.service_id where r.kind = ?1";
    conn.prepare_cached(sql)?.query_map([kind.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
}

/// Gives a service a resource.
pub fn create(conn: &Connection, service_id: i64, kind: Kind, name: &str, now_ms: i64) -> rusqlite::Result<Resource> {
    let number = next_number(conn, kind.as_str())?;
    let sql = "insert into resources (kind, number, service_id, name, suffix, created_ms) values (?1, ?2, ?3, ?4, ?5, ?6)";
    conn.prepare_cached(sql)?.execute(params![kind.as_str(), number, service_id, name, env_suffix(name), now_ms])?;
    Ok(Resource { kind, number, name: name.to_owned(), created_ms: now_ms })
}

/// Takes a resource away. Its data is among the [`removals`] from now on.
pub fn delete(conn: &Connection, kind: Kind, number: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("delete from resources where kind = ?1 and number = ?2")?.execute(params![kind.as_str(), number]).map(drop)
}

/// Data that has to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Removal {
    /// The name of its kind, or [`OBJECTS`].
    pub kind: String,
    /// Its number.
    pub number: i64,
    /// The number of the service that it belonged to.
    pub service: i64,
}

/// All of it.
pub fn removals(conn: &Connection) -> rusqlite::Result<Vec<Removal>> {
    let removal = |row: &Row<'_>| Ok(Removal { kind: row.get(0)?, number: row.get(1)?, service: row.get(2)? });
    conn.prepare_cached("select kind, number, service from removals")?.query_map([], removal)?.collect()
}

/// Writes down that data has been removed.
pub fn removed(conn: &Connection, removal: &Removal) -> rusqlite::Result<()> {
    conn.prepare_cached("delete from removals where kind = ?1 and number = ?2")?.execute(params![removal.kind, removal.number]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::store::MIGRATIONS;

    fn opened() -> rusqlite::Result<Connection> {
        let conn = Connection::open_in_memory()?;
        conn.pragma_update(None, "foreign_keys", true)?;
        MIGRATIONS.iter().try_for_each(|migration| conn.execute_batch(migration))?;
        conn.execute_batch(
            "insert into accounts (handle, display_name, plan, created_ms) values ('a', 'a', 'free', 0);
            insert into services (account_id, name, slug, kind, capabilities, created_ms) values (1, 'one', 'one', 'rust_worker', '{}', 0);
            insert into services (account_id, name, slug, kind, capabilities, created_ms) values (1, 'two', 'two', 'rust_worker', '{}', 0);",
        )?;
        Ok(conn)
    }

    #[test]
    fn a_number_is_given_out_once_and_what_is_deleted_is_to_be_removed() -> rusqlite::Result<()> {
        let conn = opened()?;
        let first = create(&conn, 1, Kind::Kv, "CACHE", 0)?;
        assert_eq!((first.id().as_str(), create(&conn, 1, Kind::Sqlite, "CACHE", 0)?.number), ("kv_1", 1));
        assert_eq!(clash(&conn, 1, Kind::Kv, "cache")?.as_deref(), Some("CACHE"));
        assert_eq!((find(&conn, 1, Kind::Kv, "kv_1")?, find(&conn, 2, Kind::Kv, "kv_1")?), (Some(first.clone()), None));
        assert_eq!(find(&conn, 1, Kind::Kv, "CACHE")?, Some(first));
        delete(&conn, Kind::Kv, 1)?;
        assert_eq!(create(&conn, 1, Kind::Kv, "CACHE", 0)?.number, 2);
        let removal = |(kind, number, service): (&str, i64, i64)| Removal { kind: kind.to_owned(), number, service };
        assert_eq!(removals(&conn)?, [removal(("kv", 1, 1))]);
        removed(&conn, &removal(("kv", 1, 1)))?;
        // Everything goes with its account.
        create(&conn, 2, Kind::Sqlite, "DB", 0)?;
        conn.execute("delete from accounts", [])?;
        let all = [("kv", 2, 1), ("objects", 1, 1), ("objects", 2, 2), ("sqlite", 1, 1), ("sqlite", 2, 2)];
        assert_eq!(removals(&conn)?, all.map(removal));
        Ok(())
    }
}
