//! Who pays for CPU time, and what happens when nothing is left to pay with.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

pub struct Purse {
    left_ns: AtomicU64,
    paid_ns: AtomicU64,
}

impl Purse {
    pub fn of(left_ns: u64) -> Arc<Self> {
        Arc::new(Self { left_ns: AtomicU64::new(left_ns), paid_ns: AtomicU64::new(0) })
    }

    pub fn paid_ms(&self) -> u64 {
        self.paid_ns.load(Ordering::Relaxed) / 1_000_000
    }
}

impl Payer for Purse {
    fn cpu_left_ns(&self) -> u64 {
        self.left_ns.load(Ordering::Relaxed)
    }

    fn pay_cpu_ns(&self, ns: u64) {
        self.paid_ns.fetch_add(ns, Ordering::Relaxed);
    }
}

const COUNT: &str = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000) select count(*) from n";
const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

#[tokio::test]
async fn whoever_asks_pays_for_reads_writes_and_failures() {
    let fixture = Fixture::with_notes(10).await;
    for sql in [COUNT, &format!("insert into notes (body) {COUNT}"), &format!("select ({COUNT}), abs(-9223372036854775808)")] {
        let purse = Purse::of(u64::MAX);
        let _ = fixture.store.paid_by(purse.clone()).query(NUMBER, free(), sql_only(sql)).await;
        assert!(purse.paid_ms() >= 5, "{sql}: {} ms", purse.paid_ms());
    }
    let purse = Purse::of(u64::MAX);
    let transaction = fixture.store.paid_by(purse.clone()).begin(NUMBER, free()).await.unwrap();
    transaction.query(sql_only(COUNT)).await.unwrap();
    assert!(purse.paid_ms() >= 5);
    drop(transaction);
    let mut rows = fixture.store.paid_by(purse.clone()).stream(NUMBER, free(), sql_only(COUNT)).await.unwrap();
    rows.next().await.unwrap();
    assert!(purse.paid_ms() >= 10);
}

#[tokio::test]
async fn a_statement_ends_when_nothing_is_left() {
    let fixture = Fixture::with_notes(10).await;
    for sql in [ENDLESS, &format!("insert into notes (body) {ENDLESS}")] {
        let purse = Purse::of(20_000_000);
        let steps = Allowance { vm_steps: u64::MAX, ..free() };
        let error = fixture.store.paid_by(purse.clone()).query(NUMBER, steps, sql_only(sql)).await.unwrap_err();
        assert!(matches!(error, Error::Budget(Budget::Cpu)), "{error:?}");
        assert!((20..100).contains(&purse.paid_ms()), "{} ms", purse.paid_ms());
    }
    assert_eq!(fixture.count("notes").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_asks_without_end_leaves_threads_to_others() {
    let fixture = Fixture::new().await;
    let greedy = fixture.store.for_service(1, 1);
    let asked: Vec<_> = (100..100 + limits::SQLITE_RUNNING_MAX as u64)
        .map(|number| {
            let greedy = greedy.clone();
            tokio::spawn(async move {
                greedy.create(number).await.unwrap();
                greedy.query(number, Allowance { vm_steps: u64::MAX, ..free() }, sql_only(ENDLESS)).await
            })
        })
        .collect();
    let taken = || limits::SQLITE_RUNNING_MAX - fixture.store.0.threads.available_permits();
    // The last of the share is taken by queries alone once all databases were made.
    while taken() < limits::SQLITE_RUNNING_ACCOUNT_MAX as usize {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert!(taken() <= limits::SQLITE_RUNNING_ACCOUNT_MAX as usize + 1);
        fixture.store.for_service(2, 2).query(NUMBER, free(), sql_only("select 1")).await.unwrap();
    }
    asked.iter().for_each(tokio::task::JoinHandle::abort);
    // Another handle of the account has the same share, for as long as one is in use.
    let again = fixture.store.for_service(1, 1);
    assert!(Arc::ptr_eq(again.1.share.as_ref().unwrap(), greedy.1.share.as_ref().unwrap()));
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_ends() {
    let fixture = Fixture::with_notes(10).await;
    let store = fixture.store.clone();
    let endless = Allowance { vm_steps: u64::MAX, ..free() };
    let asked = tokio::spawn(async move { store.query(NUMBER, endless, sql_only(&format!("insert into notes (body) {ENDLESS}"))).await });
    // It has begun when the writer is taken.
    let slot = fixture.store.slot(NUMBER);
    while slot.writer.try_lock().is_ok() || !slot.queue().is_empty() {
        tokio::task::yield_now().await;
    }
    asked.abort();
    fixture.run("insert into notes (body) values ('x')").await.unwrap();
    assert_eq!(fixture.count("notes").await, 11);
}

#[tokio::test]
async fn what_was_deleted_is_not_made_again() {
    let fixture = Fixture::with_notes(10).await;
    fixture.store.delete(NUMBER).await.unwrap();
    assert!(matches!(fixture.store.create(NUMBER).await, Err(Error::NotFound)));
    assert!(matches!(fixture.run("select 1").await, Err(Error::NotFound)));
    assert!(!fixture.folder.path().join("sqlite").join(format!("{NUMBER}.db")).exists());
}
