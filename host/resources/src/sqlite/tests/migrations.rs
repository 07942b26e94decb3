//! Migrations are applied once each, in order, and what was applied stays as it was.

use std::time::{Duration, Instant};

use super::*;

fn migration(name: &str, sql: &str) -> Migration {
    Migration { name: name.to_owned(), sql: sql.to_owned() }
}

fn first() -> Migration {
    migration("0001_notes.sql", "-- notes\ncreate table notes (id integer primary key, body text);\ninsert into notes (body) values ('a'), ('b');\n")
}

fn second() -> Migration {
    migration("0002_author.sql", "alter table notes add column author text; /* filled */ update notes set author = 'x; y';;")
}

#[tokio::test]
async fn each_is_applied_once() {
    let fixture = Fixture::new().await;
    let migrate = |list: Vec<Migration>| fixture.store.migrate(NUMBER, free(), list);
    let done = migrate(vec![first()]).await.unwrap();
    assert_eq!((done.applied, done.counts.rows_written), (vec!["0001_notes.sql".to_owned()], 2));
    let done = migrate(vec![first(), second()]).await.unwrap();
    assert_eq!(done.applied, ["0002_author.sql"]);
    assert_eq!(migrate(vec![first(), second()]).await.unwrap().applied, Vec::<String>::new());
    // The list of an earlier deploy.
    assert_eq!(migrate(vec![first()]).await.unwrap().applied, Vec::<String>::new());
    assert_eq!(fixture.value("select group_concat(author) from notes").await, text("x; y,x; y"));
    assert_eq!(fixture.count("_tovuk_migrations").await, 2);
}

#[tokio::test]
async fn what_was_applied_is_not_changed_and_nothing_comes_before_it() {
    let fixture = Fixture::new().await;
    let migrate = |list: Vec<Migration>| fixture.store.migrate(NUMBER, free(), list);
    migrate(vec![first(), second()]).await.unwrap();
    let mut changed = first();
    changed.sql.push_str("insert into notes (body) values ('c');");
    for list in [
        vec![changed, second()],
        vec![migration("0000_early.sql", "select 1"), first(), second()],
        vec![first(), first()],
        vec![migration("", "select 1")],
        vec![migration(&"x".repeat(256), "select 1")],
        vec![first(), second(), migration("0003_long.sql", &format!("select '{}'", "x".repeat(256 << 10)))],
    ] {
        let error = migrate(list).await.unwrap_err();
        assert!(matches!(error, Error::Migration(_)), "{error}");
        assert_eq!(error.code().code, "sqlite_migration_refused");
    }
    assert_eq!(fixture.count("notes").await, 2);
}

#[tokio::test]
async fn one_that_fails_leaves_nothing_and_those_before_it_stay() {
    let fixture = Fixture::new().await;
    let broken = migration("0002_broken.sql", "create table other (x); insert into notes (id) values (1);");
    let error = fixture.store.migrate(NUMBER, free(), vec![first(), broken, second()]).await.unwrap_err();
    assert_eq!(error.to_string(), "migration 0002_broken.sql: UNIQUE constraint failed: notes.id");
    assert_eq!(error.code().code, "sqlite_constraint");
    assert!(matches!(fixture.run("select * from other").await, Err(Error::Query(_))));
    assert_eq!(fixture.store.migrate(NUMBER, free(), vec![first(), second()]).await.unwrap().applied, ["0002_author.sql"]);
}

#[tokio::test]
async fn a_table_that_others_refer_to_can_be_rebuilt() {
    let fixture = Fixture::new().await;
    let rebuild = migration(
        "0002_rebuild.sql",
        "PRAGMA foreign_keys=OFF;
         create table new_notes (id integer primary key, body text not null);
         insert into new_notes select id, body from notes;
         drop table notes;
         alter table new_notes rename to notes;
         PRAGMA foreign_keys=ON;",
    );
    let references = migration("0001b.sql", "create table tags (note integer references notes (id), tag text); insert into tags values (1, 'x');");
    fixture.store.migrate(NUMBER, free(), vec![first(), references, rebuild]).await.unwrap();
    assert_eq!(fixture.value("select body from tags join notes on notes.id = tags.note").await, text("a"));
    assert!(matches!(fixture.run("insert into tags values (99, 'y')").await, Err(Error::Constraint(_))));
    // A script that leaves references to nothing is refused.
    for switch in ["defer_foreign_keys = on", "foreign_keys = off"] {
        let dangling = migration("0003.sql", &format!("pragma {switch}; delete from notes where id = 1;"));
        let error = fixture.store.migrate(NUMBER, free(), vec![dangling]).await.unwrap_err();
        assert_eq!(error.code().code, "sqlite_constraint", "{error}");
    }
    assert_eq!(fixture.value("pragma foreign_keys").await, Value::Integer(1));
    assert_eq!(fixture.count("notes").await, 2);
}

#[tokio::test]
async fn a_script_is_within_budgets() {
    let fixture = Fixture::new().await;
    let endless = migration("1", "create table t as with recursive n(i) as (select 1 union all select i + 1 from n) select i from n");
    let error = fixture.store.migrate(NUMBER, Allowance { vm_steps: 100_000, ..free() }, vec![endless]).await.unwrap_err();
    assert_eq!(error.code().code, "sqlite_budget_exceeded");
}

/// A list whose second migration does not end by itself.
fn endless() -> Vec<Migration> {
    let endless = "create table t as with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";
    vec![first(), migration("0002_endless.sql", endless), migration("0003_after.sql", "create table after (x)")]
}

fn patient() -> Allowance {
    Allowance { vm_steps: u64::MAX, ..free() }
}

impl Fixture {
    /// Begins to apply a list, and returns once its first migration was applied.
    async fn migrating(&self) -> tokio::task::JoinHandle<Result<Migrated, Error>> {
        let store = self.store.clone();
        let task = tokio::spawn(async move { store.migrate(NUMBER, patient(), endless()).await });
        while !matches!(self.run("select 1 from _tovuk_migrations").await, Ok(outcome) if !outcome.results[0].rows.is_empty()) {
            tokio::task::yield_now().await;
        }
        task
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_end_when_their_caller_goes_away() {
    let fixture = Fixture::new().await;
    fixture.migrating().await.abort();
    let started = Instant::now();
    fixture.run("insert into notes (body) values ('c')").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!((fixture.count("notes").await, fixture.count("_tovuk_migrations").await), (3, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_end_when_their_database_is_deleted() {
    let fixture = Fixture::new().await;
    let migrating = fixture.migrating().await;
    let started = Instant::now();
    fixture.store.delete(NUMBER).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(matches!(migrating.await.unwrap(), Err(Error::NotFound)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_end_with_the_host() {
    let fixture = Fixture::new().await;
    let migrating = fixture.migrating().await;
    let started = Instant::now();
    fixture.store.close().await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let error = migrating.await.unwrap().unwrap_err();
    assert_eq!((error.code().code, matches!(error, Error::Closing)), ("host_draining", true), "{error}");
    assert!(matches!(fixture.store.migrate(NUMBER, free(), vec![first(), second()]).await, Err(Error::Closing)));
}

#[tokio::test]
async fn all_of_them_have_one_time_budget() {
    let fixture = Fixture::new().await;
    let allowance = Allowance { migrate_ms: 300, ..patient() };
    let error = fixture.store.migrate(NUMBER, allowance, endless()).await.unwrap_err();
    assert_eq!(error.code().code, "sqlite_budget_exceeded");
    assert!(
        error.to_string().starts_with("migration 0002_endless.sql: ") && error.to_string().contains("ran for more than 300 ms together"),
        "{error}"
    );
    // Also where no statement is long enough to be looked at while it runs.
    let short = migration("0002_short.sql", &"select 1;".repeat(20_000));
    let error = fixture.store.migrate(NUMBER, Allowance { migrate_ms: 10, ..free() }, vec![first(), short]).await.unwrap_err();
    assert!(error.to_string().contains("ran for more than 10 ms together"), "{error}");
    assert_eq!((fixture.count("notes").await, fixture.count("_tovuk_migrations").await), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_have_a_thread_between_two_of_them() {
    let fixture = Fixture::new().await;
    let store = fixture.store.for_service(1, 1);
    let list: Vec<_> = (0..2_000).map(|at| migration(&format!("{at:04}"), "select 1")).collect();
    let numbers: Vec<_> = (100..100 + limits::SQLITE_RUNNING_ACCOUNT_MAX as u64).collect();
    let mut migrating = Vec::new();
    for number in numbers {
        store.create(number).await.unwrap();
        let (store, list) = (store.clone(), list.clone());
        migrating.push(tokio::spawn(async move { store.migrate(number, free(), list).await }));
    }
    for _ in 0..20 {
        store.query(NUMBER, free(), sql_only("select 1")).await.unwrap();
    }
    assert!(migrating.iter().all(|task| !task.is_finished()));
    migrating.iter().for_each(tokio::task::JoinHandle::abort);
}
