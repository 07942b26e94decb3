//! Usage and caps through the store, on a clock that the test moves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod charged;
mod model;

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::join_all;
use tempfile::TempDir;

use super::*;

/// Noon of the 30th of November 2026, in UTC.
const START: u64 = 1_796_040_000_000;
const HOUR: Duration = Duration::from_secs(3_600);
const ACCOUNT: i64 = 1;
const SERVICE: i64 = 7;

struct Fixture {
    folder: TempDir,
    clock: Clock,
    meters: Meters,
}

impl Fixture {
    async fn new() -> Self {
        let (folder, clock) = (TempDir::new().unwrap(), Clock::advanceable_at(START));
        let meters = Meters::open(&folder.path().join("meters.db"), clock.clone()).await.unwrap();
        Self { folder, clock, meters }
    }

    /// Opens it again as it is after the death of the process, or after a good end.
    async fn again(self, is_clean: bool) -> Self {
        let Self { folder, clock, meters } = self;
        if is_clean {
            meters.close().await.unwrap();
        }
        // Without the last handle nothing is written any more.
        drop(meters);
        let meters = Meters::open(&folder.path().join("meters.db"), clock.clone()).await.unwrap();
        Self { folder, clock, meters }
    }

    fn service(&self) -> Arc<ServiceMeters> {
        self.meters.service(ACCOUNT, SERVICE)
    }

    async fn cap(&self, key: CapKey, value: u64) {
        self.meters.set_cap(key, Setting { value, notify_at_percent: 80 }).await.unwrap();
    }
}

fn of_account(meter: Meter, period: Period) -> CapKey {
    CapKey { account: ACCOUNT, service: None, meter, period }
}

fn of_service(meter: Meter, period: Period) -> CapKey {
    CapKey { service: Some(SERVICE), ..of_account(meter, period) }
}

/// Reserves and uses one at a time until there is no room; how many there were.
async fn use_up(service: &Arc<ServiceMeters>, meter: Meter) -> u64 {
    for count in 0.. {
        match service.reserve(meter, 1).await {
            Ok(reservation) => reservation.settle(1),
            Err(Error::Exceeded(_)) => return count,
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!()
}

#[tokio::test]
async fn usage_is_added_up_by_day_month_service_and_account() {
    let fixture = Fixture::new().await;
    let (one, other) = (fixture.service(), fixture.meters.service(ACCOUNT, 8));
    let figures = |fixture: &Fixture, service| {
        let usage = fixture.meters.usage(ACCOUNT, service);
        Period::ALL.map(|period| usage.of(Meter::KvReads, period))
    };
    one.charge(Meter::KvReads, 5);
    other.charge(Meter::KvReads, 2);
    fixture.meters.service(2, 9).charge(Meter::KvReads, 100);
    assert_eq!((figures(&fixture, None), figures(&fixture, Some(SERVICE))), ([7, 7], [5, 5]));
    // November has a day more, and then it is December.
    let fixture = fixture.again(true).await;
    fixture.clock.advance(11 * HOUR);
    fixture.service().charge(Meter::KvReads, 1);
    assert_eq!(figures(&fixture, None), [8, 8]);
    fixture.clock.advance(HOUR);
    assert_eq!(figures(&fixture, None), [0, 0]);
    fixture.service().charge(Meter::KvReads, 3);
    fixture.clock.advance(24 * HOUR);
    fixture.service().charge(Meter::KvReads, 4);
    assert_eq!(figures(&fixture, Some(SERVICE)), [4, 7]);
    fixture.meters.flush().await.unwrap();
    // What was flushed is there after a death.
    let fixture = fixture.again(false).await;
    assert_eq!((figures(&fixture, None), figures(&fixture, Some(8))), ([4, 7], [0, 0]));
    for _ in 0..10 {
        fixture.clock.advance(24 * HOUR);
        fixture.service().charge(Meter::KvReads, 1);
    }
    assert_eq!(figures(&fixture, None), [1, 17], "more days than are kept apart");
    let fixture = fixture.again(true).await;
    assert_eq!(figures(&fixture, None), [1, 17]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_callers_get_exactly_what_the_cap_allows() {
    let fixture = Fixture::new().await;
    for cap in [0, 1, 63, 1_000] {
        fixture.clock.advance(24 * HOUR);
        fixture.cap(of_account(Meter::WorkerRequests, Period::Day), cap).await;
        let callers = (0..64).map(|caller| {
            let service = fixture.meters.service(ACCOUNT, caller % 3 + 1);
            tokio::spawn(async move { use_up(&service, Meter::WorkerRequests).await })
        });
        let granted: u64 = join_all(callers).await.into_iter().map(Result::unwrap).sum();
        assert_eq!((granted, fixture.meters.usage(ACCOUNT, None).of(Meter::WorkerRequests, Period::Day)), (cap, cap));
    }
}

#[tokio::test]
async fn work_needs_room_in_every_cap() {
    let fixture = Fixture::new().await;
    let service = fixture.service();
    fixture.cap(of_account(Meter::KvWrites, Period::Month), 10).await;
    fixture.cap(of_service(Meter::KvWrites, Period::Day), 4).await;
    assert_eq!(use_up(&service, Meter::KvWrites).await, 4);
    assert_eq!(use_up(&fixture.meters.service(ACCOUNT, 8), Meter::KvWrites).await, 6);
    // What was refused by one cap was given back in the other.
    fixture.cap(of_account(Meter::KvWrites, Period::Month), 11).await;
    assert!(service.reserve(Meter::KvWrites, 1).await.is_err());
    assert_eq!(use_up(&fixture.meters.service(ACCOUNT, 8), Meter::KvWrites).await, 1);
    // Another account's caps are its own.
    fixture.meters.service(2, 9).reserve(Meter::KvWrites, 1_000).await.unwrap().settle(1_000);
    let Err(Error::Exceeded(exceeded)) = service.reserve(Meter::KvWrites, 1).await else { panic!() };
    assert_eq!(exceeded.ends_ms % 86_400_000, 0);
    assert!(exceeded.ends_ms > START);
}

#[tokio::test]
async fn caps_change_at_once() {
    let fixture = Fixture::new().await;
    let (service, key) = (fixture.service(), of_account(Meter::KvReads, Period::Day));
    service.charge(Meter::KvReads, 7);
    fixture.cap(key, 10).await;
    assert_eq!(use_up(&service, Meter::KvReads).await, 3, "what was used before counts");
    fixture.cap(key, 5).await;
    assert_eq!(use_up(&service, Meter::KvReads).await, 0);
    fixture.cap(key, 12).await;
    assert_eq!(use_up(&service, Meter::KvReads).await, 2);
    assert_eq!(fixture.meters.caps(ACCOUNT, None).len(), 1);
    assert!(fixture.meters.delete_cap(key).await.unwrap());
    assert!(!fixture.meters.delete_cap(key).await.unwrap());
    service.reserve(Meter::KvReads, 1_000).await.unwrap();
    fixture.cap(of_service(Meter::KvReads, Period::Day), 0).await;
    assert!(service.reserve(Meter::KvReads, 1).await.is_err());
    fixture.meters.delete_caps(ACCOUNT, Some(SERVICE)).await.unwrap();
    service.reserve(Meter::KvReads, 1).await.unwrap().settle(1);
    let fixture = fixture.again(true).await;
    assert_eq!(fixture.meters.caps(ACCOUNT, None), []);
}

#[tokio::test]
async fn what_is_not_used_is_given_back_and_what_was_begun_can_be_more() {
    let fixture = Fixture::new().await;
    let service = fixture.service();
    fixture.cap(of_account(Meter::WorkerCpuMs, Period::Day), 100).await;
    let mut slice = service.reserve(Meter::WorkerCpuMs, 60).await.unwrap();
    assert!(service.reserve(Meter::WorkerCpuMs, 50).await.is_err());
    slice.extend(40).await.unwrap();
    assert!(slice.extend(1).await.is_err());
    slice.settle(70);
    let cancelled = service.reserve(Meter::WorkerCpuMs, 30).await.unwrap();
    drop(cancelled);
    assert_eq!(use_up(&service, Meter::WorkerCpuMs).await, 30);
    // What was reserved yesterday says nothing about today.
    let fixture = fixture.again(true).await;
    let service = fixture.service();
    fixture.clock.advance(24 * HOUR);
    let mut slice = service.reserve(Meter::WorkerCpuMs, 60).await.unwrap();
    fixture.clock.advance(24 * HOUR);
    slice.extend(10).await.unwrap();
    slice.settle(65);
    assert_eq!(use_up(&service, Meter::WorkerCpuMs).await, 35);
}

#[tokio::test]
async fn a_cap_is_not_exceeded_over_deaths_and_not_wasted_by_good_ends() {
    let mut fixture = Fixture::new().await;
    let key = of_account(Meter::ObjectStorageEgressBytes, Period::Month);
    fixture.cap(key, 1_000).await;
    let mut granted = 0;
    for round in 0..20 {
        let service = fixture.service();
        for _ in 0..7 {
            service.reserve(Meter::ObjectStorageEgressBytes, 5).await.unwrap().settle(5);
            granted += 5;
        }
        fixture = fixture.again(round % 3 != 0).await;
        if granted >= 500 {
            break;
        }
    }
    // Some of the rest was lost with leases, and nothing beyond the cap was granted.
    let rest = use_up(&fixture.service(), Meter::ObjectStorageEgressBytes).await;
    assert!(granted + rest <= 1_000 && granted + rest > 700, "{granted} and {rest}");
    let fixture = fixture.again(true).await;
    assert_eq!(use_up(&fixture.service(), Meter::ObjectStorageEgressBytes).await, 0);
}

#[tokio::test]
async fn somebody_is_told_once_in_a_period() {
    let fixture = Fixture::new().await;
    let key = of_account(Meter::LogEvents, Period::Day);
    fixture.cap(key, 10).await;
    fixture.service().charge(Meter::LogEvents, 7);
    fixture.meters.flush().await.unwrap();
    fixture.service().charge(Meter::LogEvents, 1);
    fixture.meters.flush().await.unwrap();
    let notice = fixture.meters.notice(0).await.unwrap();
    assert_eq!((notice.key, notice.used, notice.setting.value), (key, 8, 10));
    // It is there until somebody was told, also after a death.
    let fixture = fixture.again(false).await;
    assert_eq!(fixture.meters.notice(0).await.unwrap(), notice);
    fixture.meters.told(notice.id).await.unwrap();
    fixture.service().charge(Meter::LogEvents, 2);
    fixture.meters.flush().await.unwrap();
    fixture.clock.advance(24 * HOUR);
    fixture.service().charge(Meter::LogEvents, 9);
    fixture.meters.flush().await.unwrap();
    let next = fixture.meters.notice(notice.id).await.unwrap();
    assert_eq!((next.id, next.used), (notice.id + 1, 9), "the day before had one, and this one has its own");
}

struct Stored(AtomicU64);

impl Levels for Stored {
    fn level(&self, account: i64, _: Option<i64>, meter: Meter) -> u64 {
        if account == ACCOUNT && meter == Meter::KvStorageBytes { self.0.load(Ordering::Relaxed) } else { 0 }
    }
}

#[tokio::test]
async fn a_level_and_what_is_being_written_stay_below_the_cap() {
    let fixture = Fixture::new().await;
    let stored = Arc::new(Stored(AtomicU64::new(90)));
    fixture.meters.set_levels(stored.clone());
    fixture.cap(of_account(Meter::KvStorageBytes, Period::Month), 100).await;
    let service = fixture.service();
    let writing = service.reserve(Meter::KvStorageBytes, 10).await.unwrap();
    assert!(service.reserve(Meter::KvStorageBytes, 1).await.is_err());
    stored.0.store(95, Ordering::Relaxed);
    writing.settle(5);
    assert_eq!(fixture.meters.usage(ACCOUNT, None).of(Meter::KvStorageBytes, Period::Day), 95);
    drop(service.reserve(Meter::KvStorageBytes, 5).await.unwrap());
    assert!(service.reserve(Meter::KvStorageBytes, 6).await.is_err());
    stored.0.store(10, Ordering::Relaxed);
    drop(service.reserve(Meter::KvStorageBytes, 90).await.unwrap());
}

#[tokio::test]
async fn whoever_writes_late_makes_no_lease_less() {
    let fixture = Fixture::new().await;
    let key = of_account(Meter::KvReads, Period::Day);
    fixture.cap(key, 1_000).await;
    let window = Window::at(Period::Day, START);
    let leases = [(window, 500), (window, 100), (Window(window.0 - 1), 900)];
    for (window, leased) in leases {
        let stored = caps::Stored { window, leased, notified: false };
        fixture.meters.store.database.write(move |tx| rows::lease(tx, &key, &stored)).await.unwrap();
    }
    let again = fixture.again(false).await;
    // What was leased counts as used.
    assert_eq!(use_up(&again.service(), Meter::KvReads).await, 500);
}

#[tokio::test]
async fn a_clock_that_is_behind_at_the_start_loses_no_later_day() {
    let folder = TempDir::new().unwrap();
    let day_ms = 24 * 3_600_000;
    let open = async |at_ms: u64| Meters::open(&folder.path().join("meters.db"), Clock::advanceable_at(at_ms)).await.unwrap();
    let figures = |meters: &Meters| {
        let usage = meters.usage(ACCOUNT, None);
        Period::ALL.map(|period| usage.of(Meter::KvReads, period))
    };
    for (day, charged, expected) in [(2, 5, [5, 5]), (1, 7, [7, 12]), (2, 1, [8, 13]), (1, 0, [8, 13])] {
        let meters = open(START - day * day_ms).await;
        meters.service(ACCOUNT, SERVICE).charge(Meter::KvReads, charged);
        assert_eq!(figures(&meters), expected);
        meters.close().await.unwrap();
    }
}
