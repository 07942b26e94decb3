//! SQL, as [`crate::sqlite`] asks for it: of the host in a component, of the test in a native program.

#[cfg(target_arch = "wasm32")]
pub(crate) use component::{Rows, Transaction, batch, begin, query, read_rows};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{Rows, Transaction, batch, begin, query, read_rows};

#[cfg(target_arch = "wasm32")]
mod component {
    use crate::DataError;
    use crate::bindings::tovuk::sqlite::database as wit;
    use crate::sqlite::{Answer, Counts, Params, Statement, Value};

    impl From<Value> for wit::Value {
        fn from(value: Value) -> Self {
            match value {
                Value::Null => Self::Null,
                Value::Integer(number) => Self::Integer(number),
                Value::Real(number) => Self::Real(number),
                Value::Text(text) => Self::Text(text),
                Value::Blob(bytes) => Self::Blob(bytes),
            }
        }
    }

    impl From<wit::Value> for Value {
        fn from(value: wit::Value) -> Self {
            match value {
                wit::Value::Null => Self::Null,
                wit::Value::Integer(number) => Self::Integer(number),
                wit::Value::Real(number) => Self::Real(number),
                wit::Value::Text(text) => Self::Text(text),
                wit::Value::Blob(bytes) => Self::Blob(bytes),
            }
        }
    }

    impl From<Statement> for wit::Statement {
        fn from(statement: Statement) -> Self {
            let params = match statement.params {
                Params::Positional(values) => wit::Params::Positional(values.into_iter().map(Into::into).collect()),
                Params::Named(values) => wit::Params::Named(values.into_iter().map(|(name, value)| (name, value.into())).collect()),
            };
            Self { sql: statement.sql, params }
        }
    }

    impl From<wit::Outcome> for Answer {
        fn from(outcome: wit::Outcome) -> Self {
            let wit::Counts { rows_read, rows_written, vm_steps, fullscan_steps } = outcome.counts;
            Self {
                columns: outcome.columns,
                values: values(outcome.values),
                counts: Counts { rows_read, rows_written, vm_steps, fullscan_steps },
                last_insert_rowid: outcome.last_insert_rowid,
                storage_bytes: outcome.storage_bytes,
                advice: outcome.advice,
            }
        }
    }

    fn values(values: Vec<wit::Value>) -> Vec<Value> {
        values.into_iter().map(Into::into).collect()
    }

    pub(crate) fn query(database: &str, statement: Statement) -> Result<Answer, DataError> {
        Ok(wit::query(database, &statement.into())?.into())
    }

    pub(crate) fn batch(database: &str, statements: Vec<Statement>) -> Result<Vec<Answer>, DataError> {
        let statements: Vec<_> = statements.into_iter().map(Into::into).collect();
        Ok(wit::batch(database, &statements)?.into_iter().map(Into::into).collect())
    }

    #[derive(Debug)]
    pub(crate) struct Transaction(wit::Transaction);

    pub(crate) fn begin(database: &str) -> Result<Transaction, DataError> {
        Ok(Transaction(wit::begin(database)?))
    }

    impl Transaction {
        pub(crate) fn query(&self, statement: Statement) -> Result<Answer, DataError> {
            Ok(self.0.query(&statement.into())?.into())
        }

        pub(crate) fn commit(self) -> Result<(), DataError> {
            Ok(wit::Transaction::commit(self.0)?)
        }

        pub(crate) fn rollback(self) -> Result<(), DataError> {
            Ok(wit::Transaction::rollback(self.0)?)
        }
    }

    #[derive(Debug)]
    pub(crate) struct Rows(wit::Rows);

    pub(crate) fn read_rows(database: &str, statement: Statement) -> Result<Rows, DataError> {
        Ok(Rows(wit::read_rows(database, &statement.into())?))
    }

    impl Rows {
        pub(crate) fn columns(&self) -> Vec<String> {
            self.0.columns()
        }

        pub(crate) fn next(&mut self) -> Result<Option<Vec<Value>>, DataError> {
            Ok(self.0.next()?.map(values))
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use crate::sqlite::{Answer, Statement, Value};
    use crate::{DataError, testing};

    /// What SQL answers outside of `TestEnv::run`, where there is nobody to run it.
    fn no_host() -> DataError {
        DataError::new("no_host", "a native program has no databases: run the handler with `tovuk::testing::TestEnv`, or the worker with `tovuk dev`")
    }

    pub(crate) fn query(database: &str, statement: Statement) -> Result<Answer, DataError> {
        testing::current().ok_or_else(no_host)?.run_sql(database, &statement)
    }

    pub(crate) fn batch(database: &str, statements: Vec<Statement>) -> Result<Vec<Answer>, DataError> {
        statements.into_iter().map(|statement| query(database, statement)).collect()
    }

    #[derive(Debug)]
    pub(crate) struct Transaction(String);

    pub(crate) fn begin(database: &str) -> Result<Transaction, DataError> {
        Ok(Transaction(database.to_owned()))
    }

    impl Transaction {
        pub(crate) fn query(&self, statement: Statement) -> Result<Answer, DataError> {
            query(&self.0, statement)
        }

        pub(crate) fn commit(self) -> Result<(), DataError> {
            Ok(())
        }

        pub(crate) fn rollback(self) -> Result<(), DataError> {
            Ok(())
        }
    }

    #[derive(Debug)]
    pub(crate) struct Rows(Option<Answer>, Vec<String>);

    pub(crate) fn read_rows(database: &str, statement: Statement) -> Result<Rows, DataError> {
        let answer = query(database, statement)?;
        let columns = answer.columns.clone();
        Ok(Rows(Some(answer), columns))
    }

    impl Rows {
        pub(crate) fn columns(&self) -> Vec<String> {
            self.1.clone()
        }

        pub(crate) fn next(&mut self) -> Result<Option<Vec<Value>>, DataError> {
            Ok(self.0.take().map(|answer| answer.values))
        }
    }
}
