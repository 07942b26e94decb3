//! Migrations are applied once each, in order, and what was applied stays as it was.

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
