//! What hot keys hold, in memory. It is never the truth: whoever does not find a key here asks the database, and what is found here is what the
//! database would answer.
//!
//! Why every key stays linearizable. Keys are spread over stripes. A write, on the writer's thread and before its transaction is committed,
//! takes its key out of the cache and marks its stripe ([`Cache::writing`]); the mark is taken off when the write has been committed, or has
//! failed, and before its caller is answered ([`Writing`]). A reader that misses takes a [`Ticket`] before it asks the database. It may put
//! what it has read here only if its stripe bore no mark then, bears none now, and bore none between; that is looked at, and the value put
//! here, under the lock of the stripe.
//!
//! Hence what is here was read while no write of its key was under way and none has begun since: it is the committed state of the key, at
//! every moment until the next write takes it out, which is before that write is committed. So a hit takes effect when it happens, a
//! read of the database at the moment that it sees, a write when it is committed, and all three agree on one order. A hit after an answered
//! write cannot see what was before it, and what somebody has seen nobody un-sees. Absence is kept like a value.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Entry, Namespace};

/// Enough that the writes of one group rarely keep readers of other keys from filling the cache.
const STRIPES: usize = 4_096;
/// What an entry costs besides key, value and metadata, roughly, in bytes.
const OVERHEAD: usize = 256;
/// A larger entry is not kept: one such value would push out thousands of small ones.
const ENTRY_BYTES_MAX: usize = 256 << 10;

#[derive(Hash, PartialEq, Eq)]
struct CacheKey {
    namespace: Namespace,
    key: Box<str>,
}

/// The same without owning it. Both hash alike.
#[derive(Hash)]
struct Borrowed<'a> {
    namespace: Namespace,
    key: &'a str,
}

impl moka::Equivalent<CacheKey> for Borrowed<'_> {
    fn equivalent(&self, other: &CacheKey) -> bool {
        self.namespace == other.namespace && *self.key == *other.key
    }
}

#[derive(Clone, Copy, Default)]
struct Stripe {
    /// Writes that are under way.
    writing: u32,
    /// Writes that have ever begun.
    begun: u64,
}

/// The cache. An entry of `None` says that there is no such key.
pub(super) struct Cache {
    entries: moka::sync::Cache<CacheKey, Option<Arc<Entry>>>,
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
}

/// The permission to put what will be read from the database into the cache, if nobody writes meanwhile.
#[derive(Clone, Copy)]
pub(super) struct Ticket {
    stripe: usize,
    begun: u64,
}

/// Marks the stripes of a write that is under way. To be dropped once it is known whether the write was committed.
pub(super) struct Writing {
    cache: Arc<Cache>,
    stripes: Vec<usize>,
}

impl Cache {
    pub fn new(bytes_max: u64) -> Arc<Self> {
        let entries = moka::sync::Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|key: &CacheKey, entry: &Option<Arc<Entry>>| u32::try_from(weight(&key.key, entry.as_deref())).unwrap_or(u32::MAX))
            .build();
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Arc::new(Self { entries, stripes, hasher: RandomState::new() })
    }

    /// What the key holds, if that is known here. The entry may have expired.
    pub fn get(&self, namespace: Namespace, key: &str) -> Option<Option<Arc<Entry>>> {
        self.entries.get(&Borrowed { namespace, key })
    }

    /// To be asked for before the database is read. None while the key is being written.
    pub fn ticket(&self, namespace: Namespace, key: &str) -> Option<Ticket> {
        let stripe = self.stripe_of(namespace, key);
        let begun = self.with(stripe, |stripe| (stripe.writing == 0).then_some(stripe.begun))??;
        Some(Ticket { stripe, begun })
    }

    /// Keeps what was read with a ticket, unless the key may have been written since.
    pub fn fill(&self, ticket: Ticket, namespace: Namespace, key: &str, entry: Option<Arc<Entry>>) {
        if weight(key, entry.as_deref()) > ENTRY_BYTES_MAX {
            return;
        }
        self.with(ticket.stripe, |stripe| {
            if stripe.writing == 0 && stripe.begun == ticket.begun {
                self.entries.insert(CacheKey { namespace, key: key.into() }, entry);
            }
        });
    }

    /// Says that these keys are about to be written, and forgets them.
    pub fn writing<'a>(self: &Arc<Self>, keys: impl IntoIterator<Item = (Namespace, &'a str)>) -> Writing {
        let mut writing = Writing { cache: self.clone(), stripes: Vec::new() };
        for (namespace, key) in keys {
            let index = self.stripe_of(namespace, key);
            writing.stripes.push(index);
            self.with(index, |stripe| {
                stripe.begin();
                self.entries.invalidate(&Borrowed { namespace, key });
            });
        }
        writing
    }

    /// Says that a namespace is about to be dropped, and forgets its keys.
    pub fn dropping(self: &Arc<Self>, namespace: Namespace) -> Writing {
        let writing = Writing { cache: self.clone(), stripes: (0..self.stripes.len()).collect() };
        for index in 0..self.stripes.len() {
            self.with(index, Stripe::begin);
        }
        // With all stripes marked nothing can come in any more, so this finds all that there is.
        for (key, _) in self.entries.iter().filter(|(key, _)| key.namespace == namespace) {
            self.entries.invalidate(&*key);
        }
        writing
    }

    fn stripe_of(&self, namespace: Namespace, key: &str) -> usize {
        let hash = self.hasher.hash_one(Borrowed { namespace, key });
        usize::try_from(hash).unwrap_or_default() % STRIPES
    }

    /// Runs something under the lock of a stripe. There is one for every index that `stripe_of` gives.
    fn with<T>(&self, index: usize, run: impl FnOnce(&mut Stripe) -> T) -> Option<T> {
        let stripe = self.stripes.get(index)?;
        Some(run(&mut stripe.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Stripe {
    fn begin(&mut self) {
        self.writing += 1;
        self.begun += 1;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        for &index in &self.stripes {
            self.cache.with(index, |stripe| stripe.writing -= 1);
        }
    }
}

fn weight(key: &str, entry: Option<&Entry>) -> usize {
    let entry = entry.map_or(0, |entry| entry.value.len() + entry.metadata.as_ref().map_or(0, |metadata| metadata.len()));
    OVERHEAD + key.len() + entry
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: Namespace = Namespace(1);

    fn entry(text: &'static str) -> Option<Arc<Entry>> {
        Some(Arc::new(Entry { value: text.as_bytes().into(), metadata: None, expiration: None }))
    }

    fn cached(cache: &Cache, key: &str) -> Option<Option<Arc<Entry>>> {
        cache.get(NAMESPACE, key)
    }

    #[test]
    fn what_was_read_before_during_or_across_a_write_is_not_kept() {
        let cache = Cache::new(1 << 20);
        let before = cache.ticket(NAMESPACE, "a").unwrap();
        cache.fill(before, NAMESPACE, "a", entry("old"));
        assert_eq!(cached(&cache, "a"), Some(entry("old")));

        let writing = cache.writing([(NAMESPACE, "a")]);
        assert_eq!(cached(&cache, "a"), None, "it is forgotten before the commit");
        assert!(cache.ticket(NAMESPACE, "a").is_none());
        cache.fill(before, NAMESPACE, "a", entry("old"));
        assert_eq!(cached(&cache, "a"), None);
        drop(writing);
        cache.fill(before, NAMESPACE, "a", entry("old"));
        assert_eq!(cached(&cache, "a"), None);

        let after = cache.ticket(NAMESPACE, "a").unwrap();
        cache.fill(after, NAMESPACE, "a", None);
        assert_eq!(cached(&cache, "a"), Some(None), "absence is kept too");
    }

    #[test]
    fn a_key_with_two_writes_under_way_is_not_kept_until_both_have_ended() {
        let cache = Cache::new(1 << 20);
        let (first, second) = (cache.writing([(NAMESPACE, "a")]), cache.writing([(NAMESPACE, "a"), (NAMESPACE, "a")]));
        drop(first);
        assert!(cache.ticket(NAMESPACE, "a").is_none());
        drop(second);
        assert!(cache.ticket(NAMESPACE, "a").is_some());
    }

    #[test]
    fn dropping_a_namespace_forgets_its_keys_and_keeps_those_of_others() {
        let cache = Cache::new(1 << 20);
        let other = Namespace(2);
        for namespace in [NAMESPACE, other] {
            let ticket = cache.ticket(namespace, "a").unwrap();
            cache.fill(ticket, namespace, "a", entry("x"));
        }
        let ticket = cache.ticket(NAMESPACE, "b").unwrap();
        let dropping = cache.dropping(NAMESPACE);
        drop(dropping);
        cache.fill(ticket, NAMESPACE, "b", entry("late"));
        assert_eq!((cached(&cache, "a"), cached(&cache, "b")), (None, None));
        assert_eq!(cache.get(other, "a"), Some(entry("x")));
    }

    #[test]
    fn large_entries_are_not_kept_and_the_cache_stays_within_its_bytes() {
        let cache = Cache::new(1 << 20);
        let large = Some(Arc::new(Entry { value: vec![0; ENTRY_BYTES_MAX].into(), metadata: None, expiration: None }));
        let ticket = cache.ticket(NAMESPACE, "large").unwrap();
        cache.fill(ticket, NAMESPACE, "large", large);
        assert_eq!(cached(&cache, "large"), None);
        for number in 0..5_000 {
            let key = number.to_string();
            let ticket = cache.ticket(NAMESPACE, &key).unwrap();
            let value = Some(Arc::new(Entry { value: vec![0; 1_000].into(), metadata: None, expiration: None }));
            cache.fill(ticket, NAMESPACE, &key, value);
        }
        cache.entries.run_pending_tasks();
        assert!(cache.entries.weighted_size() <= 1 << 20);
        assert!(cache.entries.entry_count() > 500);
    }
}
