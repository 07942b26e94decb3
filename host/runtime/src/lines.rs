//! Lines in which what comes from outside waits for its turn: one for each owner, first come first served within one. Whoever has a line chooses whose
//! turn is next.
//!
//! How many requests wait in all lines together is bounded. Where as many wait as may, a request of an owner that has fewer of them there takes the place of the
//! newest request in the longest line, so that one owner's flood is refused and not its neighbour. Events that the host delivers are not counted and not
//! refused: how many there are at a time is bounded where they are made, and whoever fills a line with requests must not keep them from being delivered.

use std::collections::{BTreeMap, BTreeSet};

/// What waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A request, which can be refused.
    Request,
    /// An event that the host delivers.
    Event,
}

/// As many requests wait as may, and this owner has no fewer of them than others.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

/// The lines of several owners.
pub(crate) struct Lines<K, W> {
    requests_max: usize,
    requests: usize,
    waiting: usize,
    last_id: u64,
    lines: BTreeMap<K, Line<W>>,
    /// How many requests wait in each line, and whose it is.
    lengths: BTreeSet<(usize, K)>,
}

struct Line<W> {
    requests: usize,
    waiters: BTreeMap<u64, (Standing, W)>,
}

/// A place in a line.
pub(crate) struct Joined<K, W> {
    /// Its number, higher than that of all before.
    pub id: u64,
    /// Whoever had to make room for it.
    pub displaced: Option<(K, W)>,
}

impl<K: Copy + Ord, W> Lines<K, W> {
    /// Lines in which so many requests may wait together.
    pub fn new(requests_max: usize) -> Self {
        Self { requests_max, requests: 0, waiting: 0, last_id: 0, lines: BTreeMap::new(), lengths: BTreeSet::new() }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// The number of the first in the line of an owner; none if nobody waits there.
    pub fn first(&self, owner: K) -> Option<u64> {
        self.lines.get(&owner)?.waiters.first_key_value().map(|(id, _)| *id)
    }

    /// Joins the line of an owner, at its end.
    pub fn join(&mut self, owner: K, standing: Standing, waiter: W) -> Result<Joined<K, W>, Full> {
        let mut displaced = None;
        if standing == Standing::Request && self.requests >= self.requests_max {
            let own = self.lines.get(&owner).map_or(0, |line| line.requests);
            let (most, longest) = self.lengths.last().copied().ok_or(Full)?;
            if own >= most {
                return Err(Full);
            }
            displaced = self.remove_newest_request(longest).map(|waiter| (longest, waiter));
        }
        self.last_id += 1;
        let line = self.lines.entry(owner).or_insert_with(|| Line { requests: 0, waiters: BTreeMap::new() });
        line.waiters.insert(self.last_id, (standing, waiter));
        self.waiting += 1;
        if standing == Standing::Request {
            self.requests += 1;
            self.lengths.remove(&(line.requests, owner));
            line.requests += 1;
            self.lengths.insert((line.requests, owner));
        }
        Ok(Joined { id: self.last_id, displaced })
    }

    /// Takes one out of the line of an owner; none if it is not there.
    pub fn remove(&mut self, owner: K, id: u64) -> Option<W> {
        let line = self.lines.get_mut(&owner)?;
        let (standing, waiter) = line.waiters.remove(&id)?;
        self.waiting -= 1;
        if standing == Standing::Request {
            self.requests -= 1;
            self.lengths.remove(&(line.requests, owner));
            line.requests -= 1;
            if line.requests > 0 {
                self.lengths.insert((line.requests, owner));
            }
        }
        if line.waiters.is_empty() {
            self.lines.remove(&owner);
        }
        Some(waiter)
    }

    /// Takes the first out of the line of an owner.
    pub fn remove_first(&mut self, owner: K) -> Option<W> {
        self.first(owner).and_then(|id| self.remove(owner, id))
    }

    fn remove_newest_request(&mut self, owner: K) -> Option<W> {
        // Few events stand behind it: there are few of an owner at a time.
        let newest = self.lines.get(&owner)?.waiters.iter().rev().find(|(_, (standing, _))| *standing == Standing::Request);
        let id = newest.map(|(id, _)| *id)?;
        self.remove(owner, id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn displaced(joined: Result<Joined<char, u32>, Full>) -> Option<(char, u32)> {
        joined.unwrap().displaced
    }

    #[test]
    fn where_as_many_wait_as_may_the_longest_line_gives_up_its_newest_request() {
        let mut lines = Lines::new(4);
        for waiter in 1..=4 {
            assert_eq!(displaced(lines.join('a', Standing::Request, waiter)), None);
        }
        assert!(lines.join('a', Standing::Request, 5).is_err(), "nobody has more than its own account");
        assert_eq!(displaced(lines.join('b', Standing::Request, 6)), Some(('a', 4)));
        assert_eq!(displaced(lines.join('a', Standing::Event, 7)), None, "events are not counted");
        assert_eq!(displaced(lines.join('c', Standing::Request, 8)), Some(('a', 3)), "and make no room");
        assert_eq!(displaced(lines.join('b', Standing::Request, 9)), Some(('a', 2)));
        assert!(lines.join('b', Standing::Request, 10).is_err());
        assert_eq!(lines.len(), 5);
        assert_eq!([lines.remove_first('a'), lines.remove_first('a'), lines.remove_first('a')], [Some(1), Some(7), None]);
        assert_eq!([lines.remove_first('b'), lines.remove_first('b'), lines.remove_first('c')], [Some(6), Some(9), Some(8)]);
        assert_eq!((lines.len(), lines.requests, lines.lines.len(), lines.lengths.len()), (0, 0, 0, 0));
    }

    #[test]
    fn nothing_waits_where_nothing_may_but_events() {
        let mut lines = Lines::new(0);
        assert!(lines.join('a', Standing::Request, 1).is_err());
        let id = lines.join('a', Standing::Event, 2).unwrap().id;
        assert!(lines.join('b', Standing::Request, 3).is_err());
        assert_eq!((lines.remove('b', id), lines.remove('a', id), lines.remove('a', id)), (None, Some(2), None));
    }
}
