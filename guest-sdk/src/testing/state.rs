//! State in memory, for tests: the same answers and refusals as the host's, without its disk and its queues of callers.

use std::collections::{BTreeMap, BTreeSet};

use crate::DataError;
use crate::state::{Alarm, Change, Key, KeyPage, Object, ObjectEntry, ObjectPage, Swapped};

/// One object.
#[derive(Clone, Debug, Default)]
pub(super) struct Stored {
    values: BTreeMap<String, Vec<u8>>,
    alarm: Option<u64>,
}

/// The classes that a test has made, by name.
#[derive(Debug, Default)]
pub(super) struct Classes {
    classes: BTreeMap<String, BTreeMap<String, Stored>>,
    /// Objects that a call of their handler has.
    held: BTreeSet<(String, String)>,
}

fn error<T>(code: &str, text: impl Into<String>) -> Result<T, DataError> {
    Err(DataError::new(code, text))
}

fn check_key(key: &str) -> Result<(), DataError> {
    if (1..=512).contains(&key.len()) && !matches!(key, "." | "..") {
        return Ok(());
    }
    error("state_key_invalid", format!("the key `{key}` has {} bytes; a key has 1 to 512 bytes and is neither `.` nor `..`", key.len()))
}

fn check_entry(key: &str, value: &[u8]) -> Result<(), DataError> {
    check_key(key)?;
    if key.len() + value.len() <= 2 << 20 {
        return Ok(());
    }
    error("state_value_too_large", format!("`{key}` and its value have {} bytes; together they may have 2097152", key.len() + value.len()))
}

fn check_limit(limit: u32) -> Result<usize, DataError> {
    if (1..=1_000).contains(&limit) { Ok(usize::try_from(limit).unwrap_or(1_000)) } else { error("invalid_request", "`limit` must be 1 to 1000") }
}

/// One page of what is left of a list. A cursor is the last key of the page before.
fn page<'a, V, T>(
    entries: impl Iterator<Item = (&'a String, V)>,
    limit: usize,
    cursor: Option<&str>,
    shown: impl Fn((&'a String, V)) -> T,
    name: impl Fn(&T) -> String,
) -> (Vec<T>, Option<String>) {
    let mut rest = entries.filter(|(key, _)| cursor.is_none_or(|cursor| key.as_str() > cursor));
    let items: Vec<T> = rest.by_ref().take(limit).map(shown).collect();
    let cursor = rest.next().and_then(|_| items.last()).map(name);
    (items, cursor)
}

impl Classes {
    pub fn make(&mut self, name: &str) {
        self.classes.entry(name.to_owned()).or_default();
    }

    fn class(&mut self, name: &str) -> Result<&mut BTreeMap<String, Stored>, DataError> {
        let missing =
            || DataError::new("resource_not_found", format!("the test has no State class `{name}`: add `.state(\"{name}\")` to its TestEnv"));
        self.classes.get_mut(name).ok_or_else(missing)
    }

    /// Does something to an object, which is forgotten if it has nothing afterwards.
    pub fn on<T>(&mut self, of: &Object, now_ms: u64, ask: impl FnOnce(StateObject<'_>) -> Result<T, DataError>) -> Result<T, DataError> {
        check_key(of.key())?;
        let objects = self.class(of.class())?;
        let stored = objects.entry(of.key().to_owned()).or_default();
        let result = ask(StateObject { stored, now_ms });
        if stored.values.is_empty() && stored.alarm.is_none() {
            objects.remove(of.key());
        }
        result
    }

    /// Begins a call of an object; what it was before.
    pub fn hold(&mut self, of: &Object) -> Result<Stored, DataError> {
        check_key(of.key())?;
        let before = self.class(of.class())?.get(of.key()).cloned().unwrap_or_default();
        if self.held.insert((of.class().to_owned(), of.key().to_owned())) {
            return Ok(before);
        }
        error("state_deadlock", "the call would wait for an object that a call which it is part of has")
    }

    /// Ends a call of an object, and undoes it if it is given what was before.
    pub fn release(&mut self, of: &Object, undo: Option<Stored>) {
        self.held.remove(&(of.class().to_owned(), of.key().to_owned()));
        let (Some(before), Some(objects)) = (undo, self.classes.get_mut(of.class())) else { return };
        if before.values.is_empty() && before.alarm.is_none() {
            objects.remove(of.key());
        } else {
            objects.insert(of.key().to_owned(), before);
        }
    }

    pub fn objects(&mut self, class: &str, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<ObjectPage, DataError> {
        let limit = check_limit(limit)?;
        let entry = |(name, stored): (&String, &Stored)| ObjectEntry {
            name: name.clone(),
            values: stored.values.len() as u64,
            bytes: stored.values.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum(),
            alarm_ms: stored.alarm,
        };
        let entries = self.class(class)?.iter().filter(|(key, _)| key.starts_with(prefix));
        let (objects, cursor) = page(entries, limit, cursor, entry, |object| object.name.clone());
        Ok(ObjectPage { objects, cursor })
    }
}

/// An object at one moment.
pub(crate) struct StateObject<'a> {
    stored: &'a mut Stored,
    now_ms: u64,
}

impl StateObject<'_> {
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, DataError> {
        check_key(key)?;
        Ok(self.stored.values.get(key).cloned())
    }

    pub fn delete(&mut self, key: &str) -> Result<bool, DataError> {
        check_key(key)?;
        Ok(self.stored.values.remove(key).is_some())
    }

    pub fn compare_and_set(&mut self, key: &str, expected: Option<&[u8]>, value: Option<Vec<u8>>) -> Result<Swapped, DataError> {
        check_entry(key, value.as_deref().unwrap_or_default())?;
        let found = self.stored.values.get(key).cloned();
        let swapped = found.as_deref() == expected;
        match value {
            _ if !swapped => {}
            Some(value) => drop(self.stored.values.insert(key.to_owned(), value)),
            None => drop(self.stored.values.remove(key)),
        }
        Ok(Swapped { swapped, found })
    }

    pub fn increment(&mut self, key: &str, by: i64) -> Result<i64, DataError> {
        check_key(key)?;
        let text = self.stored.values.get(key).map_or(Ok("0"), |value| std::str::from_utf8(value));
        let Some(sum) = text.ok().and_then(|text| text.parse::<i64>().ok()).and_then(|value| value.checked_add(by)) else {
            return error("state_not_integer", format!("the value of `{key}` is not a decimal integer of 64 bits, or the sum would not be"));
        };
        self.stored.values.insert(key.to_owned(), sum.to_string().into_bytes());
        Ok(sum)
    }

    pub fn write(&mut self, changes: Vec<Change>) -> Result<Option<String>, DataError> {
        if changes.len() > 1_000 {
            return error("state_batch_too_large", format!("the write has {} changes and conditions; it may have 1000", changes.len()));
        }
        for change in &changes {
            match change {
                Change::Put(key, value) | Change::Expect(key, Some(value)) => check_entry(key, value)?,
                Change::Delete(key) | Change::Expect(key, None) => check_key(key)?,
            }
        }
        for change in &changes {
            if let Change::Expect(key, value) = change
                && self.stored.values.get(key) != value.as_ref()
            {
                return Ok(Some(key.clone()));
            }
        }
        for change in changes {
            match change {
                Change::Put(key, value) => drop(self.stored.values.insert(key, value)),
                Change::Delete(key) => drop(self.stored.values.remove(&key)),
                Change::Expect(..) => {}
            }
        }
        Ok(None)
    }

    pub fn keys(&self, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<KeyPage, DataError> {
        let limit = check_limit(limit)?;
        let entries = self.stored.values.iter().filter(|(key, _)| key.starts_with(prefix));
        let entry = |(name, value): (&String, &Vec<u8>)| Key { name: name.clone(), value_bytes: value.len() as u64 };
        let (keys, cursor) = page(entries, limit, cursor, entry, |key| key.name.clone());
        Ok(KeyPage { keys, cursor })
    }

    pub fn alarm(&self) -> Option<Alarm> {
        self.stored.alarm.map(|at| Alarm { scheduled_ms: at, next_ms: at, retry_count: 0 })
    }

    pub fn set_alarm(&mut self, after_seconds: Option<u32>, at_ms: u64) -> Result<u64, DataError> {
        let at = after_seconds.map_or(at_ms, |seconds| self.now_ms.saturating_add(u64::from(seconds) * 1_000));
        if at > 253_402_300_799_999 {
            return error("state_alarm_invalid", "the alarm lies after the end of the year 9999");
        }
        self.stored.alarm = Some(at);
        Ok(at)
    }

    pub fn delete_alarm(&mut self) -> bool {
        self.stored.alarm.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use crate::state::{Change, Object, Ringing};
    use crate::testing::TestEnv;
    use crate::{CallError, DataError, Error, Request, Response, Result, state};

    fn code<T: std::fmt::Debug>(result: Result<T, DataError>) -> String {
        result.unwrap_err().code().to_owned()
    }

    fn room(room: Object, req: Request) -> Result<Response> {
        let count = room.increment("calls", 1)?;
        match req.path() {
            "/fail" => Err(Error::bad_request("no")),
            "/self" => Ok(room.fetch(Request::get("/"))?),
            _ => Ok(Response::text(format!("{} {} {count}", room.class(), room.key()))),
        }
    }

    fn ring(room: Object, alarm: Ringing) -> Result<(), DataError> {
        assert!(!alarm.is_retry());
        room.put("rung", "yes")?;
        if room.get("fail")?.is_some() { Err(DataError::new("storage_failed", "on purpose")) } else { Ok(()) }
    }

    #[test]
    fn a_call_that_returns_an_error_is_undone_and_one_that_calls_itself_is_refused() {
        let env = TestEnv::new().state("Room").state_handler(room);
        env.within(|| {
            let object = state("Room").object("a");
            assert_eq!(object.fetch(Request::get("/")).unwrap().body(), b"Room a 1");
            assert_eq!(object.fetch(Request::get("/fail")).unwrap().status(), 400);
            assert_eq!(object.fetch(Request::get("/self")).unwrap().status(), 508);
            assert_eq!(object.get_text("calls").unwrap().as_deref(), Some("1"));
            let answers = state::fetch_all([(object, Request::get("/")), (state("Room").object("b"), Request::get("/"))]);
            let texts: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().body_text().unwrap().to_owned()).collect();
            assert_eq!(texts, ["Room a 2", "Room b 1"]);
        });
        TestEnv::new().state("Room").within(|| {
            let error = state("Room").object("a").fetch(Request::get("/")).unwrap_err();
            assert!(matches!(&error, CallError::State(error) if error.code() == "state_handler_missing"), "{error}");
        });
    }

    #[test]
    fn an_alarm_is_taken_when_it_rings_and_stays_when_that_fails() {
        let env = TestEnv::new().state("Room");
        let (set, fail) = env.within(|| {
            let object = state("Room").object("a");
            let first = object.set_alarm(Duration::from_millis(500)).unwrap();
            assert_eq!(object.alarm().unwrap().unwrap().scheduled_ms, first);
            object.put("fail", "").unwrap();
            (first, object)
        });
        assert!(env.ring(ring, "Room", "a").is_err());
        env.within(|| {
            assert_eq!((fail.alarm().unwrap().unwrap().scheduled_ms, fail.get("rung").unwrap()), (set, None));
            fail.delete("fail").unwrap();
        });
        env.ring(ring, "Room", "a").unwrap();
        env.within(|| assert_eq!((fail.alarm().unwrap(), fail.get_text("rung").unwrap().as_deref()), (None, Some("yes"))));
        assert!(env.ring(ring, "Room", "a").is_err());
    }

    #[test]
    fn lists_are_in_order_and_empty_objects_are_none() {
        TestEnv::new().state("Room").within(|| {
            for name in ["b", "a", "c"] {
                state("Room").object(name).put_json("k", &[1]).unwrap();
            }
            state("Room").object("c").delete("k").unwrap();
            assert_eq!(state("Room").objects("").map(|object| object.unwrap().name).collect::<Vec<_>>(), ["a", "b"]);
            let page = state("Room").page("", 1, None).unwrap();
            assert_eq!(state("Room").page("", 1, page.cursor.as_deref()).unwrap().objects[0].name, "b");
            let object = state("Room").object("a");
            object.write([Change::put("x", "1"), Change::put("y", "2")]).unwrap();
            assert_eq!(object.keys("").map(|key| key.unwrap().name).collect::<Vec<_>>(), ["k", "x", "y"]);
            assert_eq!(object.get_json::<Vec<u8>>("k").unwrap(), Some(vec![1]));
        });
    }

    #[test]
    fn refusals_are_those_of_the_host() {
        TestEnv::new().state("Room").within(|| {
            let object = state("Room").object("a");
            assert_eq!(code(state("Other").object("a").get("k")), "resource_not_found");
            assert_eq!(code(state("Room").object("..").get("k")), "state_key_invalid");
            assert_eq!(code(object.put("", "x")), "state_key_invalid");
            assert_eq!(code(object.put("k", vec![0; 2 << 20])), "state_value_too_large");
            assert_eq!(code(object.put("k", vec![0; 30 << 20])), "state_value_too_large");
            assert_eq!(code(object.write((0..1_001).map(|_| Change::delete("k")))), "state_batch_too_large");
            assert_eq!(code(object.write((0..15).map(|_| Change::put("k", vec![0; 2_000_000])))), "state_batch_too_large");
            assert_eq!(code(object.page("", 0, None)), "invalid_request");
            assert_eq!(code(object.set_alarm_at(253_402_300_800_000)), "state_alarm_invalid");
            assert_eq!(code(object.set_alarm(Duration::from_secs(1 << 33))), "state_alarm_invalid");
            object.put("k", [0xff]).unwrap();
            assert_eq!(code(object.get_text("k")), "invalid_value");
            assert_eq!(code(object.increment("k", 1)), "state_not_integer");
        });
        assert!(state("Room").object("a").get("k").unwrap_err().message().contains("TestEnv"));
    }
}
