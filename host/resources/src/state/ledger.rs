//! How much each account has stored in all its namespaces, so that no write takes it beyond its limit. It lives in memory and is counted anew from
//! the catalogue at each start.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Error, Namespace};

#[derive(Default)]
pub(super) struct Ledger(Mutex<Books>);

#[derive(Default)]
struct Books {
    accounts: HashMap<i64, u64>,
    namespaces: HashMap<Namespace, (i64, u64)>,
    /// The service of each namespace.
    services: HashMap<Namespace, i64>,
    dropped: HashSet<Namespace>,
    /// Those that nobody has.
    orphans: HashSet<Namespace>,
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whose the namespaces are that there are. Those of nobody count for nobody.
    pub fn own(&self, owners: &HashMap<Namespace, i64>, stored: &HashSet<Namespace>) {
        let mut books = self.books();
        let booked = std::mem::take(&mut books.namespaces);
        books.accounts.clear();
        books.orphans = stored.iter().filter(|namespace| !owners.contains_key(namespace)).copied().collect();
        for (namespace, (_, bytes)) in booked {
            if let Some(account) = owners.get(&namespace) {
                books.add(namespace, *account, bytes);
            }
        }
    }

    /// Says which service has a namespace.
    pub fn serve(&self, namespace: Namespace, service: i64) {
        self.books().services.entry(namespace).or_insert(service);
    }

    /// What a service has, in bytes.
    pub fn service(&self, service: i64) -> u64 {
        let books = self.books();
        let own = books.namespaces.iter().filter(|(namespace, _)| books.services.get(namespace) == Some(&service));
        own.fold(0, |sum, (_, (_, bytes))| sum.saturating_add(*bytes))
    }

    /// Whether nobody has a namespace that there is.
    pub fn is_orphan(&self, namespace: Namespace) -> bool {
        self.books().orphans.contains(&namespace)
    }

    /// Counts bytes, if the account may have that many then.
    pub fn reserve(&self, namespace: Namespace, account: i64, more: u64, max: u64) -> Result<(), Error> {
        let mut books = self.books();
        let used = books.accounts.get(&account).copied().unwrap_or_default();
        if used.saturating_add(more) > max {
            return Err(Error::AccountFull { used, more, max });
        }
        books.add(namespace, account, more);
        Ok(())
    }

    /// Counts bytes that are there, whatever the limit.
    pub fn add(&self, namespace: Namespace, account: i64, more: u64) {
        self.books().add(namespace, account, more);
    }

    /// Takes bytes off that are not there any more.
    pub fn release(&self, namespace: Namespace, less: u64) {
        let mut books = self.books();
        let Some((account, bytes)) = books.namespaces.get_mut(&namespace) else { return };
        *bytes = bytes.saturating_sub(less);
        let account = *account;
        if let Some(used) = books.accounts.get_mut(&account) {
            *used = used.saturating_sub(less);
        }
    }

    /// Takes a namespace off with all its bytes, and refuses what comes late.
    pub fn drop_namespace(&self, namespace: Namespace) {
        let mut books = self.books();
        books.dropped.insert(namespace);
        books.services.remove(&namespace);
        if let Some((account, bytes)) = books.namespaces.remove(&namespace)
            && let Some(used) = books.accounts.get_mut(&account)
        {
            *used = used.saturating_sub(bytes);
        }
    }

    pub fn is_dropped(&self, namespace: Namespace) -> bool {
        self.books().dropped.contains(&namespace)
    }

    /// What an account has, in bytes.
    pub fn account(&self, account: i64) -> u64 {
        self.books().accounts.get(&account).copied().unwrap_or_default()
    }
}

impl Books {
    fn add(&mut self, namespace: Namespace, account: i64, more: u64) {
        // What was deleted meanwhile has been taken off already.
        if more == 0 || self.dropped.contains(&namespace) || self.orphans.contains(&namespace) {
            return;
        }
        let entry = self.namespaces.entry(namespace).or_insert((account, 0));
        entry.1 = entry.1.saturating_add(more);
        let used = self.accounts.entry(entry.0).or_default();
        *used = used.saturating_add(more);
    }
}
