//! Listing keys in byte order, page by page. A cursor is the last key of the page before, so a list can be gone on with at any time: keys that were
//! written meanwhile are in it if they come after the cursor.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use tovuk_kernel::limits::{KV_KEY_BYTES_MAX, KV_LIST_KEYS_MAX, KV_PAGE_KEYS_MAX};
use tovuk_kernel::meters::Meter;

use super::error::shown;
use super::types::check_key;
use super::{Error, Kv, List, Namespace, Page, store};
use crate::database::rusqlite::Connection;

impl Kv {
    /// One page of the keys of a namespace.
    pub async fn list(&self, namespace: Namespace, list: List) -> Result<Page, Error> {
        let keys_max = list.limit.unwrap_or(KV_PAGE_KEYS_MAX);
        if !(1..=KV_PAGE_KEYS_MAX).contains(&keys_max) {
            return Err(Error::Limit);
        }
        if list.prefix.len() > KV_KEY_BYTES_MAX {
            return Err(Error::Prefix { bytes: list.prefix.len() });
        }
        let start = match &list.cursor {
            None => list.prefix.clone().into_bytes(),
            // The least that comes after the key.
            Some(cursor) => after(cursor, &list.prefix)?.bytes().chain([0]).collect(),
        };
        let charge = self.bill.reserve(Meter::KvLists, 1).await?;
        let Some(database) = self.store.shards.existing(namespace.0) else {
            charge.settle(1);
            return Ok(Page { keys: Vec::new(), has_more: false, next_cursor: None });
        };
        let now_ms = self.store.clock.now_unix_ms();
        let read = move |connection: &Connection| {
            let listed = store::list(connection, namespace, &start, &list.prefix, keys_max, now_ms)?;
            charge.settle(1);
            Ok::<_, Error>(listed)
        };
        let (keys, last) = database.read(read).await?;
        Ok(Page { keys, has_more: last.is_some(), next_cursor: last.map(|key| BASE64_URL_SAFE_NO_PAD.encode(key)) })
    }

    /// The whole list in pages, for a door that was asked for no limit. It ends after 100,000 keys, or with the page after which it does.
    pub fn pages(&self, namespace: Namespace, prefix: String, cursor: Option<String>) -> Pages {
        Pages { kv: self.clone(), namespace, list: Some(List { prefix, limit: None, cursor }), keys_left: KV_LIST_KEYS_MAX }
    }
}

/// A list that is read page by page. The last page says by `has_more` and `next_cursor` whether the list went on.
pub struct Pages {
    kv: Kv,
    namespace: Namespace,
    /// What is asked for next.
    list: Option<List>,
    keys_left: usize,
}

impl Pages {
    /// The next page; none after the last, or after an error.
    pub async fn next(&mut self) -> Option<Result<Page, Error>> {
        let mut list = self.list.take()?;
        list.limit = Some(self.keys_left.min(KV_PAGE_KEYS_MAX));
        let page = match self.kv.list(self.namespace, list.clone()).await {
            Ok(page) => page,
            Err(error) => return Some(Err(error)),
        };
        self.keys_left = self.keys_left.saturating_sub(page.keys.len());
        if page.has_more && self.keys_left > 0 {
            list.cursor.clone_from(&page.next_cursor);
            self.list = Some(list);
        }
        Some(Ok(page))
    }
}

/// The key in a cursor.
fn after(cursor: &str, prefix: &str) -> Result<String, Error> {
    let key = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|key| String::from_utf8(key).ok());
    key.filter(|key| check_key(key).is_ok() && key.starts_with(prefix)).ok_or_else(|| Error::Cursor(shown(cursor)))
}
