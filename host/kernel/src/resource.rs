//! The kinds of data that a service has by name: how they are called in ids, in environment variables and in words.

use std::collections::{BTreeMap, HashMap};

use crate::ids;
use crate::limits::Plan;
use crate::names::env_suffix;

/// A kind of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A SQLite database.
    Sqlite,
    /// A KV namespace.
    Kv,
    /// A queue.
    Queue,
    /// A cron trigger.
    Cron,
    /// A State namespace: the objects of one class.
    State,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sqlite, Self::Kv, Self::Queue, Self::Cron, Self::State];

    /// Its name, as in commands.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Kv => "kv",
            Self::Queue => "queue",
            Self::Cron => "cron",
            Self::State => "state",
        }
    }

    /// What its ids begin with, before `_`.
    fn prefix(self) -> &'static str {
        match self {
            Self::State => "state_namespace",
            Self::Sqlite | Self::Kv | Self::Queue | Self::Cron => self.as_str(),
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What people call one.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite database",
            Self::Kv => "KV namespace",
            Self::Queue => "queue",
            Self::Cron => "cron trigger",
            Self::State => "State class",
        }
    }

    /// The id with this number, for example `sqlite_1`.
    pub fn id(self, number: i64) -> String {
        format!("{}_{number}", self.prefix())
    }

    /// The number in an id of this kind.
    pub fn number(self, id: &str) -> Option<i64> {
        ids::number(id, self.prefix())
    }

    /// The environment variable that holds the id of the one of this name, for example `TOVUK_SQLITE_DB`.
    pub fn variable(self, name: &str) -> String {
        format!("TOVUK_{}_{}", self.as_str().to_ascii_uppercase(), env_suffix(name))
    }
}

/// Whose data it is, and under which limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The number of the account.
    pub account: i64,
    /// The number of the service. Its objects go by it.
    pub service: i64,
    /// The account's plan.
    pub plan: Plan,
}

/// What one version of a service may reach. It is fixed when the version is promoted.
#[derive(Clone, Debug)]
pub struct Grants {
    /// Whose data it is.
    pub owner: Owner,
    numbers: BTreeMap<Kind, HashMap<String, i64>>,
}

impl Grants {
    /// Nothing that has a name.
    pub fn new(owner: Owner) -> Self {
        Self { owner, numbers: BTreeMap::new() }
    }

    /// With the resource of this name and number. No name looks like an id, so both can stand for it.
    pub fn with(mut self, kind: Kind, name: &str, number: i64) -> Self {
        self.numbers.entry(kind).or_default().extend([(name.to_owned(), number), (kind.id(number), number)]);
        self
    }

    /// The number of the resource of this name or id.
    pub fn find(&self, kind: Kind, name_or_id: &str) -> Option<i64> {
        self.numbers.get(&kind)?.get(name_or_id).copied()
    }

    /// The name of the resource of this name or id.
    pub fn name<'a>(&'a self, kind: Kind, name_or_id: &'a str) -> &'a str {
        let Some(number) = kind.number(name_or_id) else { return name_or_id };
        let named = |(name, of): (&'a String, &i64)| (*of == number && kind.number(name).is_none()).then_some(name.as_str());
        self.numbers.get(&kind).and_then(|numbers| numbers.iter().find_map(named)).unwrap_or(name_or_id)
    }

    /// The number of the only resource of this kind, where there is one and no more.
    pub fn only(&self, kind: Kind) -> Option<i64> {
        let mut numbers = self.numbers.get(&kind)?.values().copied();
        let first = numbers.next()?;
        numbers.all(|number| number == first).then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::{Grants, Kind, Owner};
    use crate::limits::Plan;

    #[test]
    fn grants_go_by_name_and_by_id() {
        let grants = Grants::new(Owner { account: 1, service: 2, plan: Plan::Free }).with(Kind::Kv, "CACHE", 7);
        assert_eq!((grants.find(Kind::Kv, "CACHE"), grants.find(Kind::Kv, "kv_7")), (Some(7), Some(7)));
        assert_eq!((grants.name(Kind::Kv, "CACHE"), grants.name(Kind::Kv, "kv_7"), grants.name(Kind::Kv, "kv_8")), ("CACHE", "CACHE", "kv_8"));
        assert_eq!((grants.find(Kind::Kv, "cache"), grants.find(Kind::Sqlite, "CACHE"), grants.find(Kind::Kv, "7")), (None, None, None));
        assert_eq!((grants.only(Kind::Kv), grants.only(Kind::Sqlite)), (Some(7), None));
        assert_eq!(grants.with(Kind::Kv, "OTHER", 8).only(Kind::Kv), None);
    }

    #[test]
    fn ids_and_variables_are_those_of_the_wire() {
        assert_eq!((Kind::Sqlite.id(1).as_str(), Kind::Sqlite.variable("DB").as_str()), ("sqlite_1", "TOVUK_SQLITE_DB"));
        assert_eq!((Kind::State.id(1).as_str(), Kind::State.variable("Room").as_str()), ("state_namespace_1", "TOVUK_STATE_ROOM"));
        assert_eq!(Kind::Queue.variable("failed-jobs"), "TOVUK_QUEUE_FAILED_JOBS");
        assert!(Kind::ALL.into_iter().all(|kind| Kind::named(kind.as_str()) == Some(kind) && kind.number(&kind.id(7)) == Some(7)));
        assert_eq!(Kind::Kv.number("sqlite_1"), None);
    }
}
