//! What operations on State take and answer.

use super::{Class, Object};
use crate::DataError;
use crate::paged::Paged;

/// What a write may have besides its bytes for each change, about.
const CHANGE_BYTES: usize = 64;

/// One change, or one condition, of [`Object::write`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stores a value under a key.
    Put(String, Vec<u8>),
    /// Removes a key.
    Delete(String),
    /// Lets the write happen only if this is stored under the key before it, or nothing if no value is given.
    Expect(String, Option<Vec<u8>>),
}

impl Change {
    /// Stores a value under a key.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Put(key.into(), value.into())
    }

    /// Removes a key.
    pub fn delete(key: impl Into<String>) -> Self {
        Self::Delete(key.into())
    }

    /// Lets the write happen only if this is stored under the key before it.
    pub fn expect(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::Expect(key.into(), Some(value.into()))
    }

    /// Lets the write happen only if nothing is stored under the key before it.
    pub fn expect_none(key: impl Into<String>) -> Self {
        Self::Expect(key.into(), None)
    }

    /// About what it takes to carry it into the host.
    pub(super) fn bytes(&self) -> usize {
        let bytes = match self {
            Self::Put(key, value) | Self::Expect(key, Some(value)) => key.len() + value.len(),
            Self::Delete(key) | Self::Expect(key, None) => key.len(),
        };
        bytes + CHANGE_BYTES
    }
}

/// What became of a compare-and-set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swapped {
    /// Whether the new value stands.
    pub swapped: bool,
    /// What was found.
    pub found: Option<Vec<u8>>,
}

/// An alarm that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// When it was scheduled for, in milliseconds of Unix time.
    pub scheduled_ms: u64,
    /// When it is delivered next, in milliseconds of Unix time: later where a delivery has failed.
    pub next_ms: u64,
    /// Deliveries of it that have failed.
    pub retry_count: u32,
}

/// An alarm that rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ringing {
    /// When it was scheduled for, in milliseconds of Unix time.
    pub scheduled_ms: u64,
    /// Deliveries of it that have failed.
    pub retry_count: u32,
}

impl Ringing {
    /// Whether it has rung before and that has failed.
    pub fn is_retry(&self) -> bool {
        self.retry_count > 0
    }
}

/// What a list says of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key.
    pub name: String,
    /// How many bytes its value has.
    pub value_bytes: u64,
}

/// A page of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<Key>,
    /// Where to go on; `None` on the last page.
    pub cursor: Option<String>,
}

/// What a list says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEntry {
    /// Its key.
    pub name: String,
    /// How many values it has.
    pub values: u64,
    /// Their bytes, with their keys.
    pub bytes: u64,
    /// When its alarm is scheduled for, in milliseconds of Unix time.
    pub alarm_ms: Option<u64>,
}

/// A page of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectPage {
    /// The objects.
    pub objects: Vec<ObjectEntry>,
    /// Where to go on; `None` on the last page.
    pub cursor: Option<String>,
}

/// The keys of an object, one after the other. It ends after an error.
#[derive(Clone, Debug)]
pub struct Keys<'a> {
    object: &'a Object,
    rest: Paged<Key>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(object: &'a Object, prefix: String) -> Self {
        Self { object, rest: Paged::new(prefix) }
    }
}

impl Iterator for Keys<'_> {
    type Item = Result<Key, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let object = self.object;
        self.rest.next(|prefix, cursor| object.page(prefix, 1_000, cursor).map(|page| (page.keys, page.cursor)))
    }
}

/// The objects of a class, one after the other. It ends after an error.
#[derive(Clone, Debug)]
pub struct Objects<'a> {
    class: Class<'a>,
    rest: Paged<ObjectEntry>,
}

impl<'a> Objects<'a> {
    pub(super) fn new(class: Class<'a>, prefix: String) -> Self {
        Self { class, rest: Paged::new(prefix) }
    }
}

impl Iterator for Objects<'_> {
    type Item = Result<ObjectEntry, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let class = self.class;
        self.rest.next(|prefix, cursor| class.page(prefix, 1_000, cursor).map(|page| (page.objects, page.cursor)))
    }
}
