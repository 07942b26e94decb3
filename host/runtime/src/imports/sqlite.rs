//! `tovuk:sqlite/database`: a worker's SQL. The store checks what a statement may do and use up; here values cross, and what a guest holds open is
//! counted. What it hands over counts as host memory until the store has done with it. A guest that ends drops its transactions, which rolls them back, and its streams.

use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tovuk_kernel::codes;
use tovuk_kernel::limits::SQLITE_HELD_MAX;
use tovuk_kernel::resource::Kind;
use tovuk_resources::sqlite::{self, Allowance, Payer, Sqlites};
use wasmtime::component::{Linker, Resource};

use super::Whole;
use super::data::error;
use crate::data_bindings::tovuk::data::types::Error;
use crate::data_bindings::tovuk::sqlite::database::{self, Counts, Outcome, Params, Statement, Value};
use crate::instance::Data;
use crate::invocation::Invocation;
use crate::memory::Reservation;

/// A transaction that a guest holds.
pub struct Transaction {
    inner: sqlite::Transaction,
    _held: Arc<()>,
}

/// A streamed result that a guest holds.
pub struct Rows {
    inner: sqlite::Rows,
    _held: Arc<()>,
}

/// An invocation pays for what SQLite's threads do for it.
impl Payer for Invocation {
    fn cpu_left_ns(&self) -> u64 {
        self.deployment.limits.cpu_ms.saturating_mul(1_000_000).saturating_sub(self.cpu_ns.load(Ordering::Relaxed))
    }

    fn pay_cpu_ns(&self, ns: u64) {
        self.cpu_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

/// An invocation with the host memory that statements of it have, until the store has done with them: also when the guest has gone meanwhile.
struct Given {
    invocation: Arc<Invocation>,
    _memory: Reservation,
}

impl Payer for Given {
    fn cpu_left_ns(&self) -> u64 {
        self.invocation.cpu_left_ns()
    }

    fn pay_cpu_ns(&self, ns: u64) {
        self.invocation.pay_cpu_ns(ns);
    }
}

/// A database that a guest has named.
struct Database {
    store: Sqlites,
    number: u64,
    allowance: Allowance,
}

impl Data {
    /// Whoever pays for statements, with the memory that they have.
    fn given(&self, statements: &[Statement]) -> Result<Arc<Given>, Error> {
        let memory = self.invocation.runtime.memory().reserve();
        if !memory.grow(statements.iter().fold(0, |sum: u64, statement| sum.saturating_add(bytes(statement)))) {
            return Err(error(&codes::HOST_BUSY, "the host has no memory left for these statements; try again shortly".to_owned()));
        }
        Ok(Arc::new(Given { invocation: self.invocation.clone(), _memory: memory }))
    }

    fn database(&self, name: &str, payer: Arc<dyn Payer>) -> Result<Database, Error> {
        let number = self.resource(Kind::Sqlite, name)?.cast_unsigned();
        let owner = self.grants().owner;
        let store = self.stores()?.sqlite.for_service(owner.account, owner.service).paid_by(payer).billed_to(self.invocation.deployment.bill.clone());
        Ok(Database { store, number, allowance: Allowance::of(owner.plan) })
    }

    /// Counts one more thing that is held open.
    fn hold(&self) -> Result<Arc<()>, Error> {
        // One of those that share it is this instance.
        if Arc::strong_count(&self.sqlite_held) > SQLITE_HELD_MAX {
            let text = format!("this invocation holds {SQLITE_HELD_MAX} transactions and streams: end some of them first");
            return Err(error(&codes::SQLITE_BUSY, text));
        }
        Ok(self.sqlite_held.clone())
    }
}

fn told(failed: sqlite::Error) -> Error {
    error(failed.code(), failed.to_string())
}

/// A handle that the guest does not have: it has been used up, or the guest invents them.
fn no_handle(failed: wasmtime::component::ResourceTableError) -> Error {
    error(&codes::SQLITE_TRANSACTION_ENDED, format!("there is no such transaction or stream: {failed}"))
}

fn value(value: Value) -> sqlite::Value {
    match value {
        Value::Null => sqlite::Value::Null,
        Value::Integer(number) => sqlite::Value::Integer(number),
        Value::Real(number) => sqlite::Value::Real(number),
        Value::Text(text) => sqlite::Value::Text(text),
        Value::Blob(bytes) => sqlite::Value::Blob(bytes),
    }
}

fn shown(value: sqlite::Value) -> Value {
    match value {
        sqlite::Value::Null => Value::Null,
        sqlite::Value::Integer(number) => Value::Integer(number),
        sqlite::Value::Real(number) => Value::Real(number),
        sqlite::Value::Text(text) => Value::Text(text),
        sqlite::Value::Blob(bytes) => Value::Blob(bytes),
    }
}

/// The memory that a statement has with its parameters, in bytes.
fn bytes(statement: &Statement) -> u64 {
    let of = |value: &Value| {
        let beyond = match value {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            Value::Null | Value::Integer(_) | Value::Real(_) => 0,
        };
        size_of::<Value>().saturating_add(beyond)
    };
    let params = match &statement.params {
        Params::Positional(values) => values.iter().map(of).fold(0, usize::saturating_add),
        Params::Named(values) => values.iter().map(|(name, value)| of(value).saturating_add(name.len())).fold(0, usize::saturating_add),
    };
    statement.sql.len().saturating_add(params) as u64
}

fn statement(given: Statement) -> sqlite::Statement {
    let params = match given.params {
        Params::Positional(values) => sqlite::Params::Positional(values.into_iter().map(value).collect()),
        Params::Named(values) => sqlite::Params::Named(values.into_iter().map(|(name, given)| (name, value(given))).collect::<BTreeMap<_, _>>()),
    };
    sqlite::Statement { sql: given.sql, params }
}

fn flat(rows: sqlite::Table) -> Vec<Value> {
    rows.into_values().into_iter().map(shown).collect()
}

fn counts(counts: sqlite::Counts) -> Counts {
    let sqlite::Counts { rows_read, rows_written, vm_steps, fullscan_steps } = counts;
    Counts { rows_read, rows_written, vm_steps, fullscan_steps }
}

/// What each of the statements answered.
fn outcomes(outcome: sqlite::Outcome) -> Vec<Outcome> {
    let sqlite::Outcome { results, storage_bytes, next_actions, .. } = outcome;
    let shape = |answer: sqlite::Answer| Outcome {
        columns: answer.columns.to_vec(),
        values: flat(answer.rows),
        counts: counts(answer.counts),
        last_insert_rowid: answer.last_insert_rowid,
        storage_bytes,
        advice: next_actions.clone(),
    };
    results.into_iter().map(shape).collect()
}

/// What statements did, for the trace.
fn rows(outcomes: &[Outcome]) -> String {
    let sum = |of: fn(&Counts) -> u64| outcomes.iter().fold(0, |sum: u64, outcome| sum.saturating_add(of(&outcome.counts)));
    format!("rows read {}, written {}", sum(|counts| counts.rows_read), sum(|counts| counts.rows_written))
}

fn only(outcome: sqlite::Outcome) -> Result<Outcome, Error> {
    outcomes(outcome).pop().ok_or_else(|| error(&codes::INTERNAL_ERROR, "the statement has no answer".to_owned()))
}

impl database::Host for Data {
    async fn query(&mut self, database: String, given: Statement) -> Result<Outcome, Error> {
        self.span("sqlite.query", &database)
            .telling(|outcome| rows(std::slice::from_ref(outcome)), async move {
                let Database { store, number, allowance } = self.database(&database, self.given(slice::from_ref(&given))?)?;
                only(store.query(number, allowance, statement(given)).await.map_err(told)?)
            })
            .await
    }

    async fn batch(&mut self, database: String, statements: Vec<Statement>) -> Result<Vec<Outcome>, Error> {
        self.span("sqlite.batch", &database)
            .telling(|outcomes: &Vec<Outcome>| rows(outcomes), async move {
                let Database { store, number, allowance } = self.database(&database, self.given(&statements)?)?;
                let statements = statements.into_iter().map(statement).collect();
                store.batch(number, allowance, statements).await.map(outcomes).map_err(told)
            })
            .await
    }

    async fn begin(&mut self, database: String) -> Result<Resource<Transaction>, Error> {
        self.span("sqlite.begin", &database)
            .of(async move {
                let Database { store, number, allowance } = self.database(&database, self.invocation.clone())?;
                let held = self.hold()?;
                let inner = store.begin(number, allowance).await.map_err(told)?;
                self.table.push(Transaction { inner, _held: held }).map_err(no_handle)
            })
            .await
    }

    async fn read_rows(&mut self, database: String, given: Statement) -> Result<Resource<Rows>, Error> {
        self.span("sqlite.read-rows", &database)
            .of(async move {
                let Database { store, number, allowance } = self.database(&database, self.given(slice::from_ref(&given))?)?;
                let held = self.hold()?;
                let inner = store.stream(number, allowance, statement(given)).await.map_err(told)?;
                self.table.push(Rows { inner, _held: held }).map_err(no_handle)
            })
            .await
    }
}

impl database::HostTransaction for Data {
    async fn query(&mut self, transaction: Resource<Transaction>, given: Statement) -> Result<Outcome, Error> {
        self.span("sqlite.query", "in a transaction")
            .telling(|outcome| rows(std::slice::from_ref(outcome)), async move {
                let payer = self.given(slice::from_ref(&given))?;
                let transaction = self.table.get(&transaction).map_err(no_handle)?;
                only(transaction.inner.query_paid_by(payer, statement(given)).await.map_err(told)?)
            })
            .await
    }

    async fn commit(&mut self, transaction: Resource<Transaction>) -> Result<(), Error> {
        self.span("sqlite.commit", "")
            .of(async move {
                let transaction = self.table.delete(transaction).map_err(no_handle)?;
                transaction.inner.commit().await.map(drop).map_err(told)
            })
            .await
    }

    async fn rollback(&mut self, transaction: Resource<Transaction>) -> Result<(), Error> {
        let transaction = self.table.delete(transaction).map_err(no_handle)?;
        transaction.inner.rollback().await.map_err(told)
    }

    async fn drop(&mut self, transaction: Resource<Transaction>) -> wasmtime::Result<()> {
        self.table.delete(transaction)?;
        Ok(())
    }
}

impl database::HostRows for Data {
    async fn columns(&mut self, rows: Resource<Rows>) -> Vec<String> {
        self.table.get(&rows).map(|rows| rows.inner.columns().to_vec()).unwrap_or_default()
    }

    async fn next(&mut self, rows: Resource<Rows>) -> Result<Option<Vec<Value>>, Error> {
        let rows = self.table.get_mut(&rows).map_err(no_handle)?;
        Ok(rows.inner.next().await.map_err(told)?.map(flat))
    }

    async fn counts(&mut self, rows: Resource<Rows>) -> Counts {
        counts(self.table.get(&rows).map(|rows| rows.inner.counts()).unwrap_or_default())
    }

    async fn drop(&mut self, rows: Resource<Rows>) -> wasmtime::Result<()> {
        self.table.delete(rows)?;
        Ok(())
    }
}

pub(super) fn add_to_linker(linker: &mut Linker<Data>) -> wasmtime::Result<()> {
    database::add_to_linker::<Data, Whole>(linker, |data| data)
}
