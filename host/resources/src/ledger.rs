//! How much each account and each service has in all its namespaces, or databases, so that no write takes it beyond its limit. It lives in memory: owners are told at each
//! start, and again by whoever writes. What a part has is said as a whole and not as a difference, so that what a failed commit left wrong here is right
//! again with the next that is counted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What accounts and services have, in bytes.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Books>);

#[derive(Default)]
struct Books {
    accounts: HashMap<i64, u64>,
    services: HashMap<i64, u64>,
    /// The owner of each part, and what that has.
    parts: HashMap<i64, (Owner, u64)>,
}

#[derive(Clone, Copy)]
struct Owner {
    account: i64,
    service: i64,
}

impl Ledger {
    /// Says whose a part is. It has nothing until it is counted, or what it had before.
    pub fn own(&self, part: i64, account: i64, service: i64) {
        self.books().parts.entry(part).or_insert((Owner { account, service }, 0));
    }

    /// What an account has, or one of its services.
    pub fn used(&self, account: i64, service: Option<i64>) -> u64 {
        let books = self.books();
        match service {
            Some(service) => books.services.get(&service).copied().unwrap_or_default(),
            None => books.of(account),
        }
    }

    /// Says what a part has now. One that nobody owns is not counted.
    pub fn set(&self, part: i64, bytes: u64) {
        self.books().set(part, bytes);
    }

    /// The same where it has grown, unless its account would have more than it may. Then it says what the account would have.
    pub fn grow(&self, part: i64, bytes: u64, bytes_max: u64) -> Result<(), u64> {
        let mut books = self.books();
        if let Some(&(owner, before)) = books.parts.get(&part) {
            let would = books.of(owner.account).saturating_sub(before).saturating_add(bytes);
            if bytes > before && would > bytes_max {
                return Err(would);
            }
        }
        books.set(part, bytes);
        Ok(())
    }

    /// What the owner of a part may have besides what it has. None when nobody owns it.
    pub fn room(&self, part: i64, bytes_max: u64) -> Option<u64> {
        let books = self.books();
        let (owner, _) = books.parts.get(&part)?;
        Some(bytes_max.saturating_sub(books.of(owner.account)))
    }

    /// Takes a part off with all that it had.
    pub fn remove(&self, part: i64) {
        let mut books = self.books();
        books.set(part, 0);
        if let Some((owner, _)) = books.parts.remove(&part) {
            let Books { accounts, services, .. } = &mut *books;
            for (used, key) in [(accounts, owner.account), (services, owner.service)] {
                if used.get(&key) == Some(&0) {
                    used.remove(&key);
                }
            }
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn of(&self, account: i64) -> u64 {
        self.accounts.get(&account).copied().unwrap_or_default()
    }

    fn set(&mut self, part: i64, bytes: u64) {
        let Some((owner, before)) = self.parts.get_mut(&part) else { return };
        for used in [self.accounts.entry(owner.account).or_default(), self.services.entry(owner.service).or_default()] {
            *used = used.saturating_sub(*before).saturating_add(bytes);
        }
        *before = bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_what_its_parts_have_and_no_more_than_it_may() {
        let ledger = Ledger::default();
        ledger.set(1, 50);
        assert_eq!((ledger.room(1, 100), ledger.grow(1, 1_000, 100)), (None, Ok(())), "nobody owns it");
        for (part, account) in [(1, 7), (2, 7), (3, 8)] {
            ledger.own(part, account, 10 + part);
            ledger.set(part, 30);
        }
        ledger.own(1, 8, 18);
        assert_eq!((ledger.used(7, None), ledger.used(7, Some(12)), ledger.used(8, Some(18))), (60, 30, 0));
        assert_eq!((ledger.room(1, 100), ledger.room(3, 100)), (Some(40), Some(70)));
        assert_eq!(ledger.grow(2, 71, 100), Err(101));
        assert_eq!(ledger.grow(2, 70, 100), Ok(()));
        assert_eq!(ledger.grow(1, 31, 100), Err(101));
        assert_eq!(ledger.grow(2, 60, 50), Ok(()), "less is less, also where it is still too much");
        assert_eq!(ledger.room(1, 50), Some(0));
        ledger.remove(2);
        assert_eq!(ledger.room(1, 100), Some(70));
        ledger.remove(1);
        ledger.remove(1);
        let books = ledger.books();
        assert_eq!((books.parts.len(), books.accounts.len(), books.services.len()), (1, 1, 1));
    }
}
