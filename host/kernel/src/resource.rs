//! The kinds of data that a service has by name: how they are called in ids, in environment variables and in words.

use crate::ids;
use crate::names::env_suffix;

/// A kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A SQLite database.
    Sqlite,
    /// A KV namespace.
    Kv,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Kv];

    /// What its ids begin with, before `_`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Kv => "kv",
        }
    }

    /// The kind whose ids begin so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What people call one.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite database",
            Self::Kv => "KV namespace",
        }
    }

    /// The id with this number, for example `sqlite_1`.
    pub fn id(self, number: i64) -> String {
        format!("{}_{number}", self.as_str())
    }

    /// The number in an id of this kind.
    pub fn number(self, id: &str) -> Option<i64> {
        ids::number(id, self.as_str())
    }

    /// The environment variable that holds the id of the one of this name, for example `TOVUK_SQLITE_DB`.
    pub fn variable(self, name: &str) -> String {
        format!("TOVUK_{}_{}", self.as_str().to_ascii_uppercase(), env_suffix(name))
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn ids_and_variables_are_those_of_the_wire() {
        assert_eq!((Kind::Sqlite.id(1).as_str(), Kind::Sqlite.variable("DB").as_str()), ("sqlite_1", "TOVUK_SQLITE_DB"));
        assert_eq!(Kind::Kv.variable("failed-jobs"), "TOVUK_KV_FAILED_JOBS");
        assert!(Kind::ALL.into_iter().all(|kind| Kind::named(kind.as_str()) == Some(kind) && kind.number(&kind.id(7)) == Some(7)));
        assert_eq!(Kind::Kv.number("sqlite_1"), None);
    }
}
