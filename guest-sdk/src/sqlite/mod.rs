//! SQLite databases of the worker's service.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use tovuk::{Request, Response, Result, sqlite::params};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Note {
//!     id: i64,
//!     body: String,
//! }
//!
//! #[tovuk::handler]
//! fn handle(req: Request) -> Result<Response> {
//!     let db = tovuk::sqlite::database("DB");
//!     if req.method() == "POST" {
//!         db.execute("insert into notes (body) values (?)", params![req.text()?])?;
//!     }
//!     let notes: Vec<Note> = db.query("select id, body from notes order by id desc limit ?", params![20])?.rows()?;
//!     Response::json(&notes)
//! }
//! # use tovuk::{sqlite::Answer, testing::TestEnv};
//! # let env = TestEnv::new().sqlite("DB", |_| Ok(Answer::of(["id", "body"], [params![1, "hello"]])));
//! # assert_eq!(env.run(handle, Request::get("/")).body(), br#"[{"id":1,"body":"hello"}]"#);
//! ```
//!
//! Write values as parameters, never into the text: the host keeps statements prepared by their text, for all invocations of a worker, and nothing
//! that somebody sends can become SQL.
//!
//! What was written is on disk when a call returns, and of what fails nothing is left. One statement, or one [`batch`](Database::batch), costs one call;
//! a [`transaction`](Database::transaction) costs one for each statement, keeps other writers waiting meanwhile, and is for what has to look before it
//! writes.
//!
//! Natively, in `cargo test`, `tovuk::testing::TestEnv::sqlite` answers.

mod answer;
mod decode;
mod value;

use std::marker::PhantomData;

pub use crate::params;
pub use answer::{Answer, Counts};
pub use value::{IntoParams, Params, Value};

use crate::DataError;
use crate::host::sqlite as host;

/// The database of this name, for example `DB`, or of this id. Whether there is one is seen when it is asked.
pub fn database(name: &str) -> Database<'_> {
    Database { name }
}

/// One statement with its parameters, for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// The SQL: exactly one statement.
    pub sql: String,
    /// Its parameters.
    pub params: Params,
}

impl Statement {
    /// A statement with its parameters.
    pub fn new(sql: impl Into<String>, params: impl IntoParams) -> Self {
        Self { sql: sql.into(), params: params.into_params() }
    }
}

/// A database.
#[derive(Clone, Copy, Debug)]
pub struct Database<'a> {
    name: &'a str,
}

impl Database<'_> {
    /// Runs one statement, and gives its rows.
    ///
    /// # Errors
    /// Those of the host: for example `sqlite_query_failed`, `sqlite_constraint`, `sqlite_forbidden`, `sqlite_budget_exceeded`.
    pub fn query(&self, sql: &str, params: impl IntoParams) -> Result<Answer, DataError> {
        host::query(self.name, Statement::new(sql, params))
    }

    /// Runs one statement, and gives how many rows it has written, those of triggers included.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn execute(&self, sql: &str, params: impl IntoParams) -> Result<u64, DataError> {
        Ok(self.query(sql, params)?.counts().rows_written)
    }

    /// Runs up to 1,000 statements in one transaction, all or none, with one call.
    ///
    /// ```no_run
    /// # use tovuk::{DataError, sqlite::{Statement, params}};
    /// # fn run() -> Result<(), DataError> {
    /// let db = tovuk::sqlite::database("DB");
    /// db.batch([
    ///     Statement::new("update accounts set cents = cents - ? where name = ?", params![100, "ada"]),
    ///     Statement::new("update accounts set cents = cents + ? where name = ?", params![100, "grace"]),
    /// ])?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`query`](Self::query); the message says which statement it was.
    pub fn batch(&self, statements: impl IntoIterator<Item = Statement>) -> Result<Vec<Answer>, DataError> {
        host::batch(self.name, statements.into_iter().collect())
    }

    /// Runs `work` in a transaction: it is committed when that returns `Ok`, and rolled back otherwise.
    ///
    /// Other writers of the database wait meanwhile. It ends by itself when it has had no call for 5 s, and after 30 s; calls fail with
    /// `sqlite_transaction_ended` then.
    ///
    /// ```no_run
    /// # use tovuk::{Error, Result, sqlite::params};
    /// # fn run() -> Result<()> {
    /// let db = tovuk::sqlite::database("DB");
    /// let left: i64 = db.transaction(|tx| {
    ///     let left: i64 = tx.query("select count from stock where item = ?", params!["pen"])?.one()?;
    ///     if left == 0 {
    ///         return Err(Error::new(409, "sold out"));
    ///     }
    ///     tx.execute("update stock set count = count - 1 where item = ?", params!["pen"])?;
    ///     Ok(left - 1)
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `work`, and of beginning and committing.
    pub fn transaction<T, E: From<DataError>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let transaction = Transaction { inner: host::begin(self.name)?, database: PhantomData };
        match work(&transaction) {
            Ok(value) => {
                transaction.inner.commit()?;
                Ok(value)
            }
            Err(error) => {
                // It may have ended already, which has rolled it back too.
                let _ = transaction.inner.rollback();
                Err(error)
            }
        }
    }

    /// Reads a result of any size piece by piece, all of one state of the database: an iterator over [`Answer`]s, each with some of the rows. It is open
    /// for 30 s at the most.
    ///
    /// ```no_run
    /// # use tovuk::DataError;
    /// # fn run() -> Result<(), DataError> {
    /// let db = tovuk::sqlite::database("DB");
    /// let mut sum = 0.0;
    /// for page in db.stream("select price from sales", ())? {
    ///     for price in page?.rows::<f64>()? {
    ///         sum += price;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`query`](Self::query); the statement must not write.
    pub fn stream(&self, sql: &str, params: impl IntoParams) -> Result<Stream, DataError> {
        let inner = host::read_rows(self.name, Statement::new(sql, params))?;
        Ok(Stream { columns: inner.columns(), inner: Some(inner) })
    }
}

/// A transaction, as [`Database::transaction`] gives it.
#[derive(Debug)]
pub struct Transaction<'a> {
    inner: host::Transaction,
    database: PhantomData<&'a ()>,
}

impl Transaction<'_> {
    /// Runs one statement, and gives its rows. After an error of the statement alone (a mistake in it, a constraint) the transaction goes on without
    /// it.
    ///
    /// # Errors
    /// As [`Database::query`], and `sqlite_transaction_ended`.
    pub fn query(&self, sql: &str, params: impl IntoParams) -> Result<Answer, DataError> {
        self.inner.query(Statement::new(sql, params))
    }

    /// Runs one statement, and gives how many rows it has written, those of triggers included.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn execute(&self, sql: &str, params: impl IntoParams) -> Result<u64, DataError> {
        Ok(self.query(sql, params)?.counts().rows_written)
    }
}

/// The rows of a statement, piece by piece.
#[derive(Debug)]
pub struct Stream {
    columns: Vec<String>,
    inner: Option<host::Rows>,
}

impl Stream {
    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }
}

impl Iterator for Stream {
    type Item = Result<Answer, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.inner.as_mut()?.next() {
            Ok(Some(values)) => Some(Ok(Answer::page(self.columns.clone(), values))),
            Ok(None) => {
                self.inner = None;
                None
            }
            Err(error) => {
                self.inner = None;
                Some(Err(error))
            }
        }
    }
}
