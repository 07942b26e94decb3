//! State: objects that hold values, do one thing at a time, and have an alarm. Thin over `tovuk:state`; every limit is the host's, who says which one
//! was met.

mod handler;
mod types;

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{CallError, DataError, Request, Response, host};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use self::handler::Undone;
pub use self::handler::{AlarmHandler, Handler, IntoDone, run, run_alarm};
pub use self::types::{Alarm, Change, Key, KeyPage, Keys, ObjectEntry, ObjectPage, Objects, Ringing, Swapped};

/// More than this cannot be carried into the host by one call: it would end the worker instead of failing.
const CALL_BYTES_MAX: usize = 28 << 20;

/// The State class of this worker's service with this name, for example `Room`, or with this id.
///
/// ```
/// use tovuk::{DataError, testing::TestEnv};
///
/// fn visit(room: &str) -> Result<i64, DataError> {
///     let room = tovuk::state("Room").object(room);
///     room.put("topic", "rust")?;
///     room.increment("visits", 1)
/// }
/// # TestEnv::new().state("Room").within(|| {
/// assert_eq!(visit("room-1")?, 1);
/// assert_eq!(visit("room-1")?, 2);
/// # Ok::<(), DataError>(())
/// # })?;
/// # Ok::<(), DataError>(())
/// ```
pub fn state(class: &str) -> Class<'_> {
    Class { class }
}

/// A class: objects of one sort, by key.
#[derive(Clone, Copy, Debug)]
pub struct Class<'a> {
    class: &'a str,
}

impl<'a> Class<'a> {
    /// The object with this key: 1 to 512 bytes, neither `.` nor `..`. It need not be made: it is there as long as it has a value or an alarm.
    pub fn object(&self, key: impl Into<String>) -> Object {
        Object::new(self.class, key)
    }

    /// The objects whose keys begin with `prefix`, in the order of their bytes: those that have a value or an alarm. Asks the host for a thousand at a
    /// time, when they are needed.
    pub fn objects(&self, prefix: impl Into<String>) -> Objects<'a> {
        Objects::new(*self, prefix.into())
    }

    /// One page of objects: at most `limit`, 1 to 1,000, going on after the page that gave `cursor`.
    ///
    /// # Errors
    /// As [`Object::get`], and `invalid_request` for the limit, `invalid_cursor`.
    pub fn page(&self, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<ObjectPage, DataError> {
        host::state::objects(self.class, prefix, limit, cursor)
    }
}

/// An object: values by key, and one alarm. Operations on one object run one after the other, those on others beside them; what was written is on disk
/// when an operation returns.
///
/// Within a call of its handler, an object is the call's own: its operations see what the call has written, and stand when it ends well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    class: String,
    key: String,
}

impl Object {
    pub(crate) fn new(class: impl Into<String>, key: impl Into<String>) -> Self {
        Self { class: class.into(), key: key.into() }
    }

    /// The name of its class.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value of a key; `None` when there is none.
    ///
    /// # Errors
    /// `state_key_invalid`; `resource_not_found` when the service has no such class; `state_object_busy` when others had the object for 10 s;
    /// `state_deadlock` when the operation would wait for itself; `storage_failed`. So with all operations.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, DataError> {
        host::state::get(self, key)
    }

    /// The value of a key as text.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_value` when it is no text.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, DataError> {
        self.get(key)?.map(String::from_utf8).transpose().map_err(invalid)
    }

    /// The value of a key, read as JSON.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_value` when it is not the JSON of a `T`.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, DataError> {
        self.get(key)?.map(|value| serde_json::from_slice(&value)).transpose().map_err(invalid)
    }

    /// Stores a value. With its key it may have 2 MiB.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `state_value_too_large`, `state_storage_full`.
    pub fn put(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<(), DataError> {
        let value = value.into();
        check(key.len() + value.len(), "state_value_too_large")?;
        host::state::put(self, key, value)
    }

    /// Stores a value as JSON.
    ///
    /// # Errors
    /// As [`put`](Self::put), and `invalid_value` when it cannot be written as JSON.
    pub fn put_json<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), DataError> {
        self.put(key, serde_json::to_vec(value).map_err(invalid)?)
    }

    /// Removes a key; false when there was none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete(&self, key: &str) -> Result<bool, DataError> {
        host::state::delete(self, key)
    }

    /// Stores a value, or removes it if none is given, if what is there is what is expected: a value, or none.
    ///
    /// ```
    /// # use tovuk::{DataError, testing::TestEnv};
    /// fn lock(room: &str, who: &str) -> Result<bool, DataError> {
    ///     let room = tovuk::state("Room").object(room);
    ///     Ok(room.compare_and_set("lock", None, Some(who.into()))?.swapped)
    /// }
    /// # TestEnv::new().state("Room").within(|| {
    /// assert!(lock("room-1", "ada")?);
    /// assert!(!lock("room-1", "grace")?);
    /// # Ok::<(), DataError>(())
    /// # })?;
    /// # Ok::<(), DataError>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn compare_and_set(&self, key: &str, expected: Option<&[u8]>, value: Option<Vec<u8>>) -> Result<Swapped, DataError> {
        let bytes = key.len() + expected.map_or(0, <[u8]>::len) + value.as_ref().map_or(0, Vec::len);
        check(bytes, "state_value_too_large")?;
        host::state::compare_and_set(self, key, expected, value)
    }

    /// Adds to a number that is stored as decimal text, and says what it is then; a key that is not there counts as 0.
    ///
    /// # Errors
    /// As [`put`](Self::put), and `state_not_integer`.
    pub fn increment(&self, key: &str, by: i64) -> Result<i64, DataError> {
        host::state::increment(self, key, by)
    }

    /// Up to 1,000 changes and conditions with 26 MiB together, all or none; the key whose condition is not met, if one is not.
    ///
    /// ```
    /// # use tovuk::{DataError, testing::TestEnv};
    /// use tovuk::state::Change;
    ///
    /// # TestEnv::new().state("Account").within(|| {
    /// let account = tovuk::state("Account").object("ada");
    /// let refused = account.write([Change::expect_none("opened"), Change::put("opened", "2026-05-31"), Change::put("balance", "0")])?;
    /// assert_eq!(refused, None);
    /// assert_eq!(account.write([Change::expect("balance", "5"), Change::delete("balance")])?.as_deref(), Some("balance"));
    /// # Ok::<(), DataError>(())
    /// # })?;
    /// # Ok::<(), DataError>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put), and `state_batch_too_large`.
    pub fn write(&self, changes: impl IntoIterator<Item = Change>) -> Result<Option<String>, DataError> {
        let changes: Vec<Change> = changes.into_iter().collect();
        check(changes.iter().map(Change::bytes).sum(), "state_batch_too_large")?;
        host::state::write(self, changes)
    }

    /// The keys that begin with `prefix`, in the order of their bytes. Asks the host for a thousand at a time, when they are needed.
    pub fn keys(&self, prefix: impl Into<String>) -> Keys<'_> {
        Keys::new(self, prefix.into())
    }

    /// One page of keys: at most `limit`, 1 to 1,000, going on after the page that gave `cursor`.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `invalid_request` for the limit, `invalid_cursor`.
    pub fn page(&self, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<KeyPage, DataError> {
        host::state::keys(self, prefix, limit, cursor)
    }

    /// The alarm, if one is set. One that is being delivered is none.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn alarm(&self) -> Result<Option<Alarm>, DataError> {
        host::state::alarm(self)
    }

    /// Has the alarm ring after this time, in whole seconds, rounded up; when that is, in milliseconds of Unix time. It takes the place of the alarm that
    /// is set.
    ///
    /// # Errors
    /// As [`get`](Self::get), and `state_alarm_invalid`.
    pub fn set_alarm(&self, after: Duration) -> Result<u64, DataError> {
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0));
        let too_late = |_| DataError::new("state_alarm_invalid", "an alarm cannot be set for more than 4294967295 s ahead; set it for a time");
        host::state::set_alarm(self, Some(u32::try_from(seconds).map_err(too_late)?), 0)
    }

    /// Has the alarm ring at this time, in milliseconds of Unix time. What has passed means now.
    ///
    /// # Errors
    /// As [`set_alarm`](Self::set_alarm).
    pub fn set_alarm_at(&self, unix_ms: u64) -> Result<u64, DataError> {
        host::state::set_alarm(self, None, unix_ms)
    }

    /// Removes the alarm; false when none was set. One that is being delivered is not tried again.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn delete_alarm(&self) -> Result<bool, DataError> {
        host::state::delete_alarm(self)
    }

    /// Calls the handler that the service's worker has for its objects, [`#[tovuk::state]`](macro@crate::state), with this one, and waits for the response
    /// and for what the handler has written to be on disk. The request's URI is a path with its query. The call counts as one invocation of the chain and
    /// as one subrequest.
    ///
    /// # Errors
    /// [`CallError::State`] when the call could not have the object: `state_deadlock`, `state_object_busy`; when the live version of the service has no
    /// handler; or when what was written could not be kept. The others as for [`Service::fetch`](crate::Service::fetch).
    pub fn fetch(&self, request: Request) -> Result<Response, CallError> {
        host::state::fetch(self, request)
    }
}

/// Makes calls of several objects at once and waits for all. The results stand in the order of the calls.
pub fn fetch_all(calls: impl IntoIterator<Item = (Object, Request)>) -> Vec<Result<Response, CallError>> {
    host::state::fetch_all(calls.into_iter().collect())
}

fn invalid(error: impl std::fmt::Display) -> DataError {
    DataError::new("invalid_value", error.to_string())
}

/// Refuses what would end the worker.
fn check(bytes: usize, code: &str) -> Result<(), DataError> {
    if bytes <= CALL_BYTES_MAX {
        return Ok(());
    }
    Err(DataError::new(code, format!("keys and values have {bytes} bytes, which is more than one call can carry")))
}
