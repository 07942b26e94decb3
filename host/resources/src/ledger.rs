//! How much each account has in all its namespaces, or databases, so that no write takes it beyond its limit. It lives in memory: owners are told at each
//! start, and again by whoever writes. What a part has is said as a whole and not as a difference, so that what a failed commit left wrong here is right
//! again with the next that is counted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What accounts have, in bytes.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Books>);

#[derive(Default)]
struct Books {
    accounts: HashMap<i64, u64>,
    /// The account of each part, and what that has.
    parts: HashMap<i64, (i64, u64)>,
}

impl Ledger {
    /// Says whose a part is. It has nothing until it is counted, or what it had before.
    pub fn own(&self, part: i64, account: i64) {
        self.books().parts.entry(part).or_insert((account, 0));
    }

    /// Says what a part has now. One that nobody owns is not counted.
    pub fn set(&self, part: i64, bytes: u64) {
        self.books().set(part, bytes);
    }

    /// The same where it has grown, unless its account would have more than it may. Then it says what the account would have.
    pub fn grow(&self, part: i64, bytes: u64, bytes_max: u64) -> Result<(), u64> {
        let mut books = self.books();
        if let Some(&(account, before)) = books.parts.get(&part) {
            let would = books.of(account).saturating_sub(before).saturating_add(bytes);
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
        let (account, _) = books.parts.get(&part)?;
        Some(bytes_max.saturating_sub(books.of(*account)))
    }

    /// Takes a part off with all that it had.
    pub fn remove(&self, part: i64) {
        let mut books = self.books();
        books.set(part, 0);
        if let Some((account, _)) = books.parts.remove(&part)
            && books.of(account) == 0
        {
            books.accounts.remove(&account);
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
        let Some((account, before)) = self.parts.get_mut(&part) else { return };
        let used = self.accounts.entry(*account).or_default();
        *used = used.saturating_sub(*before).saturating_add(bytes);
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
            ledger.own(part, account);
            ledger.set(part, 30);
        }
        ledger.own(1, 8);
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
        assert_eq!((books.parts.len(), books.accounts.len()), (1, 1));
    }
}
