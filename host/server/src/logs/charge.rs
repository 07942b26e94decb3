//! Lines are charged when they are written. The task that writes reserves them, so nobody who logs waits for it; over a cap they are dropped and counted. What
//! the host says itself is free, so that it can say that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tovuk_kernel::ids::{self, AccountId, ServiceId};
use tovuk_kernel::meters::Meter;
use tovuk_resources::meters::{Charge, Error, Meters};

use super::line::{Line, Stream};
use super::sink::ServiceState;
use super::store::Row;

/// Lines that may be written.
#[derive(Default)]
pub(super) struct Charged {
    pub rows: Vec<Row>,
    charges: Vec<(Charge, u64)>,
}

impl Charged {
    /// They are on disk.
    pub fn settle(self) {
        self.charges.into_iter().for_each(|(charge, lines)| charge.settle(lines));
    }

    /// The lines, and what is charged once they are on disk.
    pub fn split(self) -> (Vec<Row>, Self) {
        (self.rows, Self { rows: Vec::new(), charges: self.charges })
    }
}

/// How many of these lines of a service may be written, and what they are charged with.
async fn reserve(meters: &Meters, (service, account): (&ServiceId, &AccountId), lines: u64) -> (u64, Option<(Charge, u64)>) {
    let number = |id: &str, prefix| ids::number(id, prefix).unwrap_or(0);
    let bill = meters.bill(number(account.as_str(), "account"), number(service.as_str(), "service"));
    let room = bill.room(Meter::LogEvents).map_or(lines, |(room, _)| room.min(lines));
    if room == 0 {
        return (0, None);
    }
    match bill.reserve(Meter::LogEvents, room).await {
        Ok(charge) => (room, Some((charge, room))),
        Err(Error::Exceeded(_)) => (0, None),
        // Rather a line that is not charged than none where it is looked for.
        Err(Error::Database(_)) => (lines, None),
    }
}

/// The lines for which there is room, in their order, and what is to be said of the others.
pub(super) async fn charge(meters: Option<&Meters>, rows: Vec<Row>) -> Charged {
    let Some(meters) = meters else { return Charged { rows, charges: Vec::new() } };
    let mut wanted: HashMap<ServiceId, (AccountId, u64)> = HashMap::new();
    for row in rows.iter().filter(|row| row.line.stream != Stream::System) {
        wanted.entry(row.line.service.clone()).or_insert_with(|| (row.line.account.clone(), 0)).1 += 1;
    }
    let mut charged = Charged::default();
    let mut room = HashMap::new();
    for (service, (account, lines)) in wanted {
        let (granted, charge) = reserve(meters, (&service, &account), lines).await;
        charged.charges.extend(charge);
        room.insert(service, granted);
    }
    for row in rows {
        let left = room.get_mut(&row.line.service).filter(|_| row.line.stream != Stream::System);
        match left {
            Some(0) => charged.rows.extend(refused(&row)),
            left => {
                if let Some(left) = left {
                    *left -= 1;
                }
                charged.rows.push(row);
            }
        }
    }
    charged
}

/// Counts a line for which there was no room. The line that says how many there were, at the first and at powers of two.
fn refused(row: &Row) -> Option<Row> {
    let state: Arc<ServiceState> = row.state.clone();
    let lost = state.over_cap.fetch_add(1, Ordering::Relaxed) + 1;
    let message = format!("{lost} lines were dropped since the start of the host: a usage cap for log_events has no room; see `tovuk limits list`");
    let line = Line::new(row.line.service.clone(), row.line.account.clone(), Stream::System, message);
    lost.is_power_of_two().then(|| Row { line, at_ms: row.at_ms, state })
}
