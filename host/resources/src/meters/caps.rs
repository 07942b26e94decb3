//! Caps: how much may be used of one meter in one period, by an account or by one of its services. Work reserves before it begins and gives back what it did
//! not need, so a cap is never overshot, whoever works beside.
//!
//! What may be reserved without asking the disk is *leased*: the lease is on disk before anything of it is reserved. When the process dies, what was leased
//! counts as used, so a cap is not exceeded after a death either.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tovuk_kernel::clock::UnixMs;
use tovuk_kernel::meters::{Meter, Period, Sort};

use super::window::{Window, ends_ms};

/// Which cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CapKey {
    /// The number of the account.
    pub account: i64,
    /// The number of the service, for a cap of one service alone.
    pub service: Option<i64>,
    /// Of what.
    pub meter: Meter,
    /// Over which time.
    pub period: Period,
}

/// What a cap says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// How much may be used.
    pub value: u64,
    /// At which percentage of it the account is told, 1 to 100.
    pub notify_at_percent: u16,
}

/// A cap would be exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct Exceeded {
    /// Which cap.
    pub key: CapKey,
    /// How much it allows.
    pub value: u64,
    /// When the period ends, in ms since the UNIX epoch.
    pub ends_ms: UnixMs,
    /// In how many seconds that is.
    pub retry_after_seconds: u64,
}

impl Exceeded {
    /// Which cap, how much it is, until when, and what to do.
    fn text(&self) -> String {
        let CapKey { service, meter, period, .. } = self.key;
        let (whose, flag) = match service {
            Some(service) => ("service's", format!(" --service service_{service}")),
            None => ("account's", String::new()),
        };
        let (name, unit, period) = (meter.as_str(), meter.unit(), period.as_str());
        let ends = i64::try_from(self.ends_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or(jiff::Timestamp::MAX);
        // A level does not fall by itself when a period ends.
        let (state, or) = match meter.sort() {
            Sort::Counter => (format!("is used up until {ends}"), "wait, or raise it"),
            Sort::Level => ("has no room for this".to_owned(), "delete something, or raise it"),
        };
        format!(
            "the {whose} cap of {} ({unit}) for {name} in a {period} {state}: {or} with `tovuk limits set {name} --period {period} --value <n>{flag}`",
            self.value
        )
    }
}

/// A cap that applies.
pub(super) struct Cap {
    pub key: CapKey,
    state: Mutex<State>,
    /// Held while the lease is extended, so that those who wait share one commit.
    pub extending: tokio::sync::Mutex<()>,
}

struct State {
    setting: Setting,
    window: Window,
    /// Until then it is that window. Told by a calendar, which takes longer than all the rest.
    known_until: UnixMs,
    used: u64,
    reserved: u64,
    /// What is on disk. Used and reserved are never more, but for what was charged without a reservation.
    leased: u64,
    notified: bool,
}

/// What is on disk of a cap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub window: Window,
    pub leased: u64,
    pub notified: bool,
}

/// How it goes with a reservation.
pub(super) enum Asked {
    Granted(Window),
    Exceeded(Exceeded),
    /// The disk has to know of it first.
    Lease,
}

/// A lease is extended by this part of the cap.
const LEASES: u64 = 50;
/// And by no more than this.
const LEASE_MAX: u64 = 1 << 20;

impl Cap {
    /// A cap of which so much is used.
    pub fn new(key: CapKey, setting: Setting, used: u64, stored: Stored) -> Arc<Self> {
        let state = State { setting, window: stored.window, known_until: 0, used, reserved: 0, leased: stored.leased, notified: stored.notified };
        Arc::new(Self { key, state: Mutex::new(state), extending: tokio::sync::Mutex::default() })
    }

    fn state(&self, now: UnixMs) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that goes back does not bring a period back.
        if now >= state.known_until {
            let window = Window::at(self.key.period, now);
            if window > state.window {
                *state = State { setting: state.setting, window, known_until: 0, used: 0, reserved: 0, leased: 0, notified: false };
            }
            if window == state.window {
                state.known_until = ends_ms(self.key.period, now);
            }
        }
        state
    }

    /// Reserves so much. `level` says what there is of a level at the moment; of a counter the cap knows itself. It is asked where no reservation ends meanwhile:
    /// what was reserved and is stored by now would otherwise be missing from both.
    pub fn reserve(&self, more: u64, level: impl FnOnce() -> u64, now: UnixMs) -> Asked {
        let mut state = self.state(now);
        let is_level = self.key.meter.sort() == Sort::Level;
        let taken = state.reserved.saturating_add(if is_level { level() } else { state.used });
        let wanted = taken.saturating_add(more);
        if wanted > state.setting.value {
            return Asked::Exceeded(self.exceeded(&state, now));
        }
        if !is_level && wanted > state.leased {
            return Asked::Lease;
        }
        state.reserved += more;
        Asked::Granted(state.window)
    }

    /// What the disk has to know before so much more of a counter can be reserved. None where it knows, or where there is no room.
    pub fn lease(&self, more: u64, now: UnixMs) -> Option<Stored> {
        let state = self.state(now);
        let wanted = state.reserved.saturating_add(state.used).saturating_add(more);
        let block = (state.setting.value / LEASES).clamp(1, LEASE_MAX);
        let leased = wanted.saturating_add(block).min(state.setting.value);
        let is_due = wanted > state.leased && wanted <= state.setting.value;
        is_due.then_some(Stored { window: state.window, leased, notified: state.notified })
    }

    fn exceeded(&self, state: &State, now: UnixMs) -> Exceeded {
        let ends_ms = ends_ms(self.key.period, now);
        let retry_after_seconds = ends_ms.saturating_sub(now).div_ceil(1_000);
        Exceeded { key: self.key, value: state.setting.value, ends_ms, retry_after_seconds }
    }

    /// How much it has room for, and how it refuses more. `level` as for [`Cap::reserve`].
    pub fn room(&self, level: impl FnOnce() -> u64, now: UnixMs) -> (u64, Exceeded) {
        let state = self.state(now);
        let taken = state.reserved.saturating_add(if self.key.meter.sort() == Sort::Level { level() } else { state.used });
        (state.setting.value.saturating_sub(taken), self.exceeded(&state, now))
    }

    /// The disk knows of that lease.
    pub fn leased(&self, stored: Stored) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window == stored.window {
            state.leased = state.leased.max(stored.leased);
        }
    }

    /// Gives a reservation back, of which so much was used. What was reserved in an earlier period is forgotten with it.
    pub fn settle(&self, reserved: u64, used: u64, window: Window) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window == window {
            state.reserved = state.reserved.saturating_sub(reserved);
            state.used = state.used.saturating_add(used);
        }
    }

    /// Counts what was used without having been reserved.
    pub fn charge(&self, used: u64, now: UnixMs) {
        let mut state = self.state(now);
        state.used = state.used.saturating_add(used);
    }

    /// How much of it is used. `level` as for [`Cap::reserve`].
    pub fn used(&self, level: u64, now: UnixMs) -> u64 {
        let state = self.state(now);
        if self.key.meter.sort() == Sort::Level { level } else { state.used }
    }

    /// What it says.
    pub fn setting(&self) -> Setting {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).setting
    }

    /// What the disk is to have once it says that.
    pub fn stored(&self, now: UnixMs, setting: Setting) -> Stored {
        let state = self.state(now);
        Stored { window: state.window, leased: state.leased, notified: state.notified && state.setting == setting }
    }

    /// Says something else from now on.
    pub fn set(&self, setting: Setting) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.notified &= setting == state.setting;
        state.setting = setting;
    }

    /// What the disk is to have, when it has less: after charges without reservation, or when somebody has to be told. `level` as for [`Cap::reserve`].
    pub fn unwritten(&self, level: u64, now: UnixMs) -> Option<(Stored, Option<u64>)> {
        let state = self.state(now);
        let used = if self.key.meter.sort() == Sort::Level { level } else { state.used };
        let reached = u128::from(used) * 100 >= u128::from(state.setting.value) * u128::from(state.setting.notify_at_percent);
        let tell = (reached && !state.notified && used > 0).then_some(used);
        let leased = state.leased.max(state.used.saturating_add(state.reserved));
        let stored = Stored { window: state.window, leased, notified: state.notified || tell.is_some() };
        (leased > state.leased || tell.is_some()).then_some((stored, tell))
    }

    /// The disk has that.
    pub fn written(&self, stored: Stored) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.window == stored.window {
            state.leased = state.leased.max(stored.leased);
            state.notified |= stored.notified;
        }
    }

    /// What the disk is to have when the host ends: what was leased and not used is given back.
    pub fn returned(&self, now: UnixMs) -> Stored {
        let state = self.state(now);
        Stored { window: state.window, leased: state.used.saturating_add(state.reserved), notified: state.notified }
    }
}
