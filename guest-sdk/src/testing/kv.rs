//! KV in memory, for tests: the same answers and refusals as the host's, without its disk.

use std::collections::BTreeMap;

use crate::DataError;
use crate::kv::{Entry, Item, Key, Page};

/// The namespaces that a test has made, by name.
#[derive(Debug, Default)]
pub(super) struct Namespaces(BTreeMap<String, BTreeMap<String, Entry>>);

fn error<T>(code: &str, text: impl Into<String>) -> Result<T, DataError> {
    Err(DataError::new(code, text))
}

fn check_key(key: &str) -> Result<(), DataError> {
    if (1..=512).contains(&key.len()) && !matches!(key, "." | "..") {
        return Ok(());
    }
    error("kv_key_invalid", format!("the key `{key}` has {} bytes; a key has 1 to 512 bytes and is neither `.` nor `..`", key.len()))
}

/// The entry that an item becomes.
fn checked(item: &Item, now: u64) -> Result<Entry, DataError> {
    check_key(&item.key)?;
    if item.value.len() > 25 << 20 {
        return error("kv_value_too_large", format!("the value of `{}` has {} bytes; a value has at most 26214400", item.key, item.value.len()));
    }
    if item.metadata.as_ref().is_some_and(|metadata| metadata.len() > 1_024) {
        return error("kv_metadata_invalid", format!("the metadata of `{}` has more than 1024 bytes", item.key));
    }
    let expiration = item.ttl.map(|ttl| now.saturating_add(ttl)).or(item.expiration);
    if expiration.is_some_and(|expiration| expiration < now + 30) {
        return error("kv_expiration_too_soon", format!("`{}` expires too soon; an expiration lies at least 30 s ahead", item.key));
    }
    Ok(Entry { value: item.value.clone(), metadata: item.metadata.clone(), expiration })
}

impl Namespaces {
    pub fn make(&mut self, name: &str) {
        self.0.entry(name.to_owned()).or_default();
    }

    /// A namespace, in which nothing has expired.
    pub fn find(&mut self, name: &str, now: u64) -> Result<Namespace<'_>, DataError> {
        match self.0.get_mut(name) {
            Some(entries) => {
                entries.retain(|_, entry| entry.expiration.is_none_or(|expiration| now < expiration));
                Ok(Namespace { entries, now })
            }
            None => error("resource_not_found", format!("the test has no KV namespace `{name}`: add `.kv(\"{name}\")` to its TestEnv")),
        }
    }
}

/// A namespace at one moment.
pub(crate) struct Namespace<'a> {
    entries: &'a mut BTreeMap<String, Entry>,
    now: u64,
}

impl Namespace<'_> {
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, DataError> {
        if keys.len() > 100 {
            return error("kv_bulk_too_large", format!("the request has {} keys; it may have 100", keys.len()));
        }
        keys.iter().try_for_each(|key| check_key(key))?;
        Ok(keys.iter().map(|key| self.entries.get(key).cloned()).collect())
    }

    pub fn put_many(&mut self, items: Vec<Item>) -> Result<(), DataError> {
        if items.len() > 10_000 {
            return error("kv_bulk_too_large", format!("the request has {} keys; it may have 10000", items.len()));
        }
        let entries = items.iter().map(|item| checked(item, self.now)).collect::<Result<Vec<_>, _>>()?;
        self.entries.extend(items.into_iter().map(|item| item.key).zip(entries));
        Ok(())
    }

    pub fn delete_many(&mut self, keys: &[String]) -> Result<u32, DataError> {
        if keys.len() > 10_000 {
            return error("kv_bulk_too_large", format!("the request has {} keys; it may have 10000", keys.len()));
        }
        keys.iter().try_for_each(|key| check_key(key))?;
        Ok(keys.iter().filter(|key| self.entries.remove(*key).is_some()).map(|_| 1).sum())
    }

    pub fn increment(&mut self, key: &str, delta: i64) -> Result<i64, DataError> {
        check_key(key)?;
        let old = self.entries.get(key).cloned().unwrap_or(Entry { value: b"0".to_vec(), metadata: None, expiration: None });
        let sum = old.text().ok().and_then(|text| text.parse::<i64>().ok()).and_then(|number| number.checked_add(delta));
        let Some(sum) = sum else {
            return error("invalid_request", format!("the value of `{key}` is no decimal number, or the sum has more than 64 bits"));
        };
        self.entries.insert(key.to_owned(), Entry { value: sum.to_string().into_bytes(), ..old });
        Ok(sum)
    }

    /// A cursor is the last key of the page before.
    pub fn list(&self, prefix: &str, limit: u32, cursor: Option<&str>) -> Result<Page, DataError> {
        if !(1..=1_000).contains(&limit) {
            return error("invalid_request", "`limit` must be 1 to 1000");
        }
        let mut rest = self.entries.iter().filter(|(key, _)| key.starts_with(prefix) && cursor.is_none_or(|cursor| key.as_str() > cursor));
        let shown = |(name, entry): (&String, &Entry)| Key { name: name.clone(), metadata: entry.metadata.clone(), expiration: entry.expiration };
        let keys: Vec<Key> = rest.by_ref().take(usize::try_from(limit).unwrap_or(usize::MAX)).map(shown).collect();
        let cursor = rest.next().and_then(|_| keys.last()).map(|key| key.name.clone());
        Ok(Page { keys, cursor })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use crate::kv::Item;
    use crate::testing::TestEnv;
    use crate::{DataError, kv};

    fn code<T: std::fmt::Debug>(result: Result<T, DataError>) -> String {
        result.unwrap_err().code().to_owned()
    }

    #[test]
    fn what_is_written_is_read_until_it_expires() {
        let env = TestEnv::new().kv("CACHE");
        env.within(|| {
            let cache = kv("CACHE");
            cache.put("text", "hello").unwrap();
            let item = Item::json("json", &[1, 2]).unwrap().with_metadata(&"m").unwrap().with_ttl(Duration::from_millis(59_500));
            cache.put_many([item, Item::new("n", "7")]).unwrap();
            assert_eq!(cache.get_text("text").unwrap().as_deref(), Some("hello"));
            assert_eq!(cache.get_json::<Vec<u8>>("json").unwrap(), Some(vec![1, 2]));
            assert_eq!(cache.get("json").unwrap().unwrap().metadata::<String>().unwrap().as_deref(), Some("m"));
            assert_eq!(cache.increment("n", 3).unwrap(), 10);
            let names: Vec<_> = cache.keys("").map(|key| key.unwrap().name).collect();
            assert_eq!(names, ["json", "n", "text"]);
            let page = cache.page("", 2, None).unwrap();
            assert_eq!(cache.page("", 2, page.cursor.as_deref()).unwrap().keys[0].name, "text");
        });
        env.advance(Duration::from_secs(61));
        env.within(|| {
            let found = kv("CACHE").get_many(["json", "text"]).unwrap();
            assert_eq!((found[0].as_ref(), found[1].as_ref().unwrap().text().unwrap()), (None, "hello"));
            assert_eq!(kv("CACHE").delete_many(["json", "text", "n"]).unwrap(), 2);
            assert!(!kv("CACHE").delete("text").unwrap());
        });
    }

    #[test]
    fn refusals_are_those_of_the_host() {
        let env = TestEnv::new().kv("CACHE");
        env.within(|| {
            let cache = kv("CACHE");
            assert_eq!(code(kv("OTHER").get("k")), "resource_not_found");
            assert_eq!(code(cache.put("..", "x")), "kv_key_invalid");
            assert_eq!(code(cache.get("")), "kv_key_invalid");
            assert_eq!(code(cache.put("k", vec![0; (25 << 20) + 1])), "kv_value_too_large");
            assert_eq!(code(cache.put("k", vec![0; 30 << 20])), "kv_value_too_large");
            assert_eq!(code(cache.put_item(Item::new("k", "x").with_ttl(Duration::from_secs(29)))), "kv_expiration_too_soon");
            assert_eq!(code(cache.put_many((0..3).map(|_| Item::new("k", vec![0; 10 << 20])))), "kv_bulk_too_large");
            assert_eq!(code(cache.get_many((0..101).map(|number| number.to_string()))), "kv_bulk_too_large");
            assert_eq!(code(cache.page("", 0, None)), "invalid_request");
            cache.put("k", [0xff]).unwrap();
            assert_eq!(code(cache.get_text("k")), "invalid_value");
            assert_eq!(code(cache.increment("k", 1)), "invalid_request");
        });
        assert!(kv("CACHE").get("k").unwrap_err().message().contains("TestEnv"));
    }
}
