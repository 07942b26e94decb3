//! State on both sides: the host's imports in a component, `testing` in a native program.

#[cfg(target_arch = "wasm32")]
pub(crate) use component::{alarm, compare_and_set, delete, delete_alarm, fetch, fetch_all, get, increment, keys, objects, put, set_alarm, write};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{alarm, compare_and_set, delete, delete_alarm, fetch, fetch_all, get, increment, keys, objects, put, set_alarm, write};

#[cfg(target_arch = "wasm32")]
mod component {
    use crate::bindings::tovuk::state::{calls, store};
    use crate::state::{Alarm, Change, Key, KeyPage, Object, ObjectEntry, ObjectPage, Swapped};
    use crate::{CallError, DataError, Request, Response};

    pub(crate) fn get(of: &Object, key: &str) -> Result<Option<Vec<u8>>, DataError> {
        Ok(store::get(of.class(), of.key(), key)?)
    }

    pub(crate) fn put(of: &Object, key: &str, value: Vec<u8>) -> Result<(), DataError> {
        Ok(store::put(of.class(), of.key(), key, &value)?)
    }

    pub(crate) fn delete(of: &Object, key: &str) -> Result<bool, DataError> {
        Ok(store::delete(of.class(), of.key(), key)?)
    }

    pub(crate) fn compare_and_set(of: &Object, key: &str, expected: Option<&[u8]>, value: Option<Vec<u8>>) -> Result<Swapped, DataError> {
        let store::Swapped { swapped, found } = store::compare_and_set(of.class(), of.key(), key, expected, value.as_deref())?;
        Ok(Swapped { swapped, found })
    }

    pub(crate) fn increment(of: &Object, key: &str, by: i64) -> Result<i64, DataError> {
        Ok(store::increment(of.class(), of.key(), key, by)?)
    }

    pub(crate) fn write(of: &Object, changes: Vec<Change>) -> Result<Option<String>, DataError> {
        let change = |change| match change {
            Change::Put(key, value) => store::Change::Put((key, value)),
            Change::Delete(key) => store::Change::Delete(key),
            Change::Expect(key, value) => store::Change::Expect((key, value)),
        };
        Ok(store::write(of.class(), of.key(), &changes.into_iter().map(change).collect::<Vec<_>>())?)
    }

    fn options(prefix: &str, limit: u32, cursor: Option<&str>) -> store::ListOptions {
        store::ListOptions { prefix: prefix.to_owned(), limit: Some(limit), cursor: cursor.map(str::to_owned) }
    }

    pub(crate) fn keys(of: &Object, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<KeyPage, DataError> {
        let page = store::list(of.class(), of.key(), &options(prefix, limit, cursor))?;
        let keys = page.keys.into_iter().map(|key| Key { name: key.name, value_bytes: key.value_bytes });
        Ok(KeyPage { keys: keys.collect(), cursor: page.cursor })
    }

    pub(crate) fn objects(class: &str, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<ObjectPage, DataError> {
        let page = store::objects(class, &options(prefix, limit, cursor))?;
        let entry = |object: store::Object| ObjectEntry { name: object.name, values: object.values, bytes: object.bytes, alarm_ms: object.alarm_ms };
        Ok(ObjectPage { objects: page.objects.into_iter().map(entry).collect(), cursor: page.cursor })
    }

    pub(crate) fn alarm(of: &Object) -> Result<Option<Alarm>, DataError> {
        let alarm = |alarm: store::Alarm| Alarm { scheduled_ms: alarm.scheduled_ms, next_ms: alarm.next_ms, retry_count: alarm.retry_count };
        Ok(store::get_alarm(of.class(), of.key())?.map(alarm))
    }

    pub(crate) fn set_alarm(of: &Object, after_seconds: Option<u32>, at_ms: u64) -> Result<u64, DataError> {
        let schedule = after_seconds.map_or(store::Schedule::AtMs(at_ms), store::Schedule::InSeconds);
        Ok(store::set_alarm(of.class(), of.key(), schedule)?)
    }

    pub(crate) fn delete_alarm(of: &Object) -> Result<bool, DataError> {
        Ok(store::delete_alarm(of.class(), of.key())?)
    }

    pub(crate) fn fetch(of: &Object, request: Request) -> Result<Response, CallError> {
        calls::fetch(of.class(), of.key(), &request.into()).map(Response::from).map_err(CallError::from)
    }

    pub(crate) fn fetch_all(requests: Vec<(Object, Request)>) -> Vec<Result<Response, CallError>> {
        let call =
            |(of, request): (Object, Request)| calls::Call { class: of.class().to_owned(), object: of.key().to_owned(), request: request.into() };
        let calls: Vec<_> = requests.into_iter().map(call).collect();
        calls::fetch_all(&calls).into_iter().map(|answer| answer.map(Response::from).map_err(CallError::from)).collect()
    }
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use crate::state::{Alarm, Change, KeyPage, Object, ObjectPage, Swapped};
    use crate::testing::StateObject;
    use crate::{CallError, DataError, Request, Response, testing};

    fn no_host() -> DataError {
        DataError::new("storage_failed", "a native program has no host that keeps data: run the handler with `tovuk::testing::TestEnv`")
    }

    /// Asks the object of the class that the test has made.
    fn on<T>(of: &Object, ask: impl FnOnce(StateObject<'_>) -> Result<T, DataError>) -> Result<T, DataError> {
        testing::current().ok_or_else(no_host)?.with_state(of, ask)
    }

    pub(crate) fn get(of: &Object, key: &str) -> Result<Option<Vec<u8>>, DataError> {
        on(of, |object| object.get(key))
    }

    pub(crate) fn put(of: &Object, key: &str, value: Vec<u8>) -> Result<(), DataError> {
        on(of, |mut object| object.write(vec![Change::Put(key.to_owned(), value)]).map(drop))
    }

    pub(crate) fn delete(of: &Object, key: &str) -> Result<bool, DataError> {
        on(of, |mut object| object.delete(key))
    }

    pub(crate) fn compare_and_set(of: &Object, key: &str, expected: Option<&[u8]>, value: Option<Vec<u8>>) -> Result<Swapped, DataError> {
        on(of, |mut object| object.compare_and_set(key, expected, value))
    }

    pub(crate) fn increment(of: &Object, key: &str, by: i64) -> Result<i64, DataError> {
        on(of, |mut object| object.increment(key, by))
    }

    pub(crate) fn write(of: &Object, changes: Vec<Change>) -> Result<Option<String>, DataError> {
        on(of, |mut object| object.write(changes))
    }

    pub(crate) fn keys(of: &Object, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<KeyPage, DataError> {
        on(of, |object| object.keys(prefix, limit, cursor))
    }

    pub(crate) fn objects(class: &str, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<ObjectPage, DataError> {
        testing::current().ok_or_else(no_host)?.state_objects(class, prefix, limit, cursor)
    }

    pub(crate) fn alarm(of: &Object) -> Result<Option<Alarm>, DataError> {
        on(of, |object| Ok(object.alarm()))
    }

    pub(crate) fn set_alarm(of: &Object, after_seconds: Option<u32>, at_ms: u64) -> Result<u64, DataError> {
        on(of, |mut object| object.set_alarm(after_seconds, at_ms))
    }

    pub(crate) fn delete_alarm(of: &Object) -> Result<bool, DataError> {
        on(of, |mut object| Ok(object.delete_alarm()))
    }

    pub(crate) fn fetch(of: &Object, request: Request) -> Result<Response, CallError> {
        testing::current().ok_or_else(|| CallError::State(no_host()))?.call_object(of, request)
    }

    pub(crate) fn fetch_all(requests: Vec<(Object, Request)>) -> Vec<Result<Response, CallError>> {
        requests.into_iter().map(|(of, request)| fetch(&of, request)).collect()
    }
}
