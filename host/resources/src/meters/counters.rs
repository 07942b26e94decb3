//! What one service uses: a counter for each meter and day. Charging is one addition; months and accounts are sums that are made when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use tovuk_kernel::meters::{METERS, Meter};

use super::window::month_of;

/// Figures of all meters.
pub type Figures = [u64; METERS];

/// The counters of one service on one day.
pub(super) struct Day {
    pub number: u32,
    used: [AtomicU64; METERS],
    /// What is on disk of them.
    written: Mutex<Figures>,
}

impl Day {
    fn new(number: u32, used: Figures) -> Arc<Self> {
        Arc::new(Self { number, used: used.map(AtomicU64::new), written: Mutex::new(used) })
    }

    fn is_written(&self) -> bool {
        self.figures() == *self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn figures(&self) -> Figures {
        std::array::from_fn(|meter| self.used.get(meter).map_or(0, |used| used.load(Ordering::Relaxed)))
    }
}

/// What has to be written of a day.
pub(super) struct Unwritten {
    day: Arc<Day>,
    figures: Figures,
    /// The meters that have changed, and their figures.
    pub changed: Vec<(Meter, u64)>,
}

impl Unwritten {
    pub fn day(&self) -> u32 {
        self.day.number
    }

    /// It is on disk.
    pub fn written(self) {
        *self.day.written.lock().unwrap_or_else(PoisonError::into_inner) = self.figures;
    }
}

/// The counters of one service.
pub(super) struct Counters {
    today: ArcSwap<Day>,
    past: Mutex<Past>,
}

/// Earlier days of the month, and those that may still have to be written.
struct Past {
    /// The month since 1970-01 that `before` is of.
    month: u32,
    before: Figures,
    /// Days that have ended. A charge may have got hold of one just before it ended, so they are not added to `before` at once.
    ended: Vec<Arc<Day>>,
}

/// Ended days that are kept apart.
const ENDED_KEPT: usize = 2;

impl Counters {
    /// With what was used today, and on the days of the month before.
    pub fn new(day: u32, today: Figures, before: Figures) -> Self {
        Self { today: ArcSwap::new(Day::new(day, today)), past: Mutex::new(Past { month: month_of(day), before, ended: Vec::new() }) }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to a meter on that day, or on the earliest that is kept apart.
    pub fn add(&self, meter: Meter, more: u64, day: u32) {
        let today = self.on(day);
        let ended = if today.number > day { self.past().ended.iter().find(|ended| ended.number >= day).cloned() } else { None };
        if let Some(used) = ended.as_ref().unwrap_or(&today).used.get(meter.index()) {
            used.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// The counters of that day, or of the latest there is.
    fn on(&self, day: u32) -> Guard<Arc<Day>> {
        let today = self.today.load();
        if today.number >= day {
            return today;
        }
        drop(today);
        let mut past = self.past();
        let ended = self.today.load_full();
        if ended.number < day {
            past.end(ended);
            past.enter(day);
            self.today.store(Day::new(day, [0; METERS]));
        }
        drop(past);
        self.today.load()
    }

    /// What was used on that day, and in its month.
    pub fn usage(&self, day: u32) -> (Figures, Figures) {
        let today = self.on(day);
        let past = self.past();
        let (figures, mut month) = (today.figures(), past.before);
        for ended in past.ended.iter().filter(|ended| month_of(ended.number) == past.month) {
            add(&mut month, &ended.figures());
        }
        add(&mut month, &figures);
        (figures, month)
    }

    /// What is not on disk yet, a day at a time.
    pub fn unwritten(&self) -> Vec<Unwritten> {
        let past = self.past();
        let days = past.ended.iter().cloned().chain([self.today.load_full()]);
        let unwritten = days.filter_map(|day| {
            let figures = day.figures();
            let written = *day.written.lock().unwrap_or_else(PoisonError::into_inner);
            let pairs = Meter::ALL.into_iter().zip(figures).zip(written);
            let changed: Vec<_> = pairs.filter(|((_, used), written)| used != written).map(|(changed, _)| changed).collect();
            (!changed.is_empty()).then_some(Unwritten { day, figures, changed })
        });
        unwritten.collect()
    }
}

impl Past {
    fn end(&mut self, day: Arc<Day>) {
        self.ended.push(day);
        let last = self.ended.len().saturating_sub(ENDED_KEPT);
        let (month, before) = (self.month, &mut self.before);
        let mut place = 0;
        self.ended.retain(|ended| {
            place += 1;
            let kept = place > last || !ended.is_written();
            if !kept && month_of(ended.number) == month {
                add(before, &ended.figures());
            }
            kept
        });
    }

    fn enter(&mut self, day: u32) {
        let month = month_of(day);
        if month != self.month {
            (self.month, self.before) = (month, [0; METERS]);
        }
    }
}

/// Adds figures to others.
pub(super) fn add(to: &mut Figures, more: &Figures) {
    for (to, more) in to.iter_mut().zip(more) {
        *to = to.saturating_add(*more);
    }
}
