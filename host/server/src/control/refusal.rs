//! Why an operation was not done, for whoever asked. The text names what is theirs and nothing else; what only the operator may know is logged where
//! it happens.

use serde_json::{Map, Value};
use tovuk_kernel::codes::{self, Code};
use tovuk_kernel::names::NameError;
use tovuk_resources::{cron, database, kv, meters, objects, queue, sqlite, state};

/// An operation that was refused or failed.
#[derive(Debug)]
pub struct Refusal {
    /// The row of the code table.
    pub code: &'static Code,
    /// What happened.
    pub message: String,
    /// The exact next command or edit, where there is a better one than the code's.
    pub instruction: Option<String>,
    /// Further keys of the body.
    pub details: Option<Box<Map<String, Value>>>,
    /// In how many seconds the same request can succeed, where that is known.
    pub retry_after_seconds: Option<u64>,
}

impl Refusal {
    /// A refusal with this code.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), instruction: None, details: None, retry_after_seconds: None }
    }

    /// With the exact next command or edit.
    pub fn instruct(mut self, instruction: impl Into<String>) -> Self {
        self.instruction = Some(instruction.into());
        self
    }

    /// With a further key.
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.get_or_insert_default().insert(key.to_owned(), value.into());
        self
    }

    /// A failure of the host. Its reason goes to the log, under the request's id.
    pub fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!("an operation failed: {reason}");
        Self::new(&codes::INTERNAL_ERROR, codes::INTERNAL_ERROR.message)
    }

    /// There is no such service in the account.
    pub fn no_service(name: &str) -> Self {
        Self::new(&codes::SERVICE_NOT_FOUND, format!("there is no service `{name}` in this account")).instruct("Run `tovuk service list`.")
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.code, self.message)
    }
}

impl From<sqlite::Error> for Refusal {
    fn from(error: sqlite::Error) -> Self {
        if let sqlite::Error::Usage(exceeded) = error {
            return exceeded.into();
        }
        if let sqlite::Error::Host(reason) = &error {
            tracing::error!("a database of a service failed: {reason}");
        }
        Self::new(error.code(), error.to_string())
    }
}

impl From<objects::Error> for Refusal {
    fn from(error: objects::Error) -> Self {
        if let objects::Error::Usage(exceeded) = error {
            return exceeded.into();
        }
        if error.is_for_caller() {
            return Self::new(error.code(), error.to_string());
        }
        tracing::error!("object storage failed: {error}");
        Self::new(error.code(), error.code().message)
    }
}

impl From<meters::Exceeded> for Refusal {
    fn from(exceeded: meters::Exceeded) -> Self {
        Self { retry_after_seconds: Some(exceeded.retry_after_seconds), ..Self::new(&codes::USAGE_CAP_EXCEEDED, exceeded.to_string()) }
    }
}

impl From<meters::Error> for Refusal {
    fn from(error: meters::Error) -> Self {
        match error {
            meters::Error::Exceeded(exceeded) => exceeded.into(),
            meters::Error::Database(error) => {
                tracing::error!("usage could not be counted: {error}");
                Self::new(&codes::STORAGE_FAILED, codes::STORAGE_FAILED.message)
            }
        }
    }
}

/// A store's own errors are the caller's to read; what its database says is the operator's.
macro_rules! of_stores {
    ($($kind:ident $what:literal $($usage:ident)?),+) => {$(
        impl From<$kind::Error> for Refusal {
            fn from(error: $kind::Error) -> Self {
                $(if let $kind::Error::$usage(exceeded) = error {
                    return exceeded.into();
                })?
                if let $kind::Error::Database(error) = &error {
                    tracing::error!(concat!($what, " failed: {}"), error);
                    return Self::new(&codes::STORAGE_FAILED, codes::STORAGE_FAILED.message);
                }
                Self::new(error.code(), error.to_string())
            }
        }
    )+};
}
of_stores!(kv "KV" Usage, queue "a queue" Usage, cron "a cron trigger", state "State" Usage);

impl From<database::Error> for Refusal {
    fn from(error: database::Error) -> Self {
        tracing::error!("the control database failed: {error}");
        Self::new(&codes::STORAGE_FAILED, codes::STORAGE_FAILED.message)
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::from(database::Error::from(error))
    }
}

impl From<crate::logs::Error> for Refusal {
    fn from(error: crate::logs::Error) -> Self {
        match error {
            crate::logs::Error::Database(error) => Self::from(error),
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

impl From<crate::traces::Error> for Refusal {
    fn from(error: crate::traces::Error) -> Self {
        match error {
            crate::traces::Error::Database(error) => Self::from(error),
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

impl From<NameError> for Refusal {
    fn from(error: NameError) -> Self {
        Self::new(&codes::INVALID_NAME, error.to_string())
    }
}
