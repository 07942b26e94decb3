//! What the store of tenants' databases promises.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod backups;
mod billing;
mod budgets;
mod confined;
mod full;
mod idle;
mod killed;
mod migrations;
mod queries;
mod transactions;
mod values;

use std::path::PathBuf;

use tempfile::TempDir;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::Plan;

use super::*;

const NUMBER: u64 = 7;

struct Fixture {
    folder: TempDir,
    store: Sqlites,
    clock: Clock,
}

impl Fixture {
    /// A store with one empty database.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Clock::advanceable();
        let store = Sqlites::open(folder.path(), clock.clone()).unwrap();
        store.create(NUMBER).await.unwrap();
        Self { folder, store, clock }
    }

    /// A store with a table `notes` of so many rows.
    async fn with_notes(rows: u64) -> Self {
        let fixture = Self::new().await;
        fixture.run("create table notes (id integer primary key, author text, body text)").await.unwrap();
        let fill = format!(
            "insert into notes with recursive n(i) as (select 1 union all select i + 1 from n where i < {rows})
             select i, 'author ' || (i % 100), 'body' from n"
        );
        fixture.run(&fill).await.unwrap();
        fixture
    }

    async fn run(&self, sql: &str) -> Result<Outcome, Error> {
        self.store.query(NUMBER, free(), sql_only(sql)).await
    }

    /// The first value of the first row.
    async fn value(&self, sql: &str) -> Value {
        self.run(sql).await.unwrap().results[0].rows[0][0].clone()
    }

    async fn count(&self, table: &str) -> i64 {
        match self.value(&format!("select count(*) from {table}")).await {
            Value::Integer(count) => count,
            other => panic!("{other:?}"),
        }
    }
}

fn free() -> Allowance {
    Allowance::of(Plan::Free)
}

fn sql_only(sql: &str) -> Statement {
    Statement::new(sql, [])
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}
