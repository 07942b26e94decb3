//! What stores charge where callers go away, and how near to a cap they come.

use std::pin::pin;

use bytes::Bytes;
use futures::poll;
use tovuk_kernel::limits::Plan;

use super::*;
use crate::kv::{self, Kv, Put};
use crate::queue::{self, Consumer, PolicyChange, Pull, Queue, Queues};
use crate::state::{self, Holds, Namespace, State, Target};

/// Reservations of what KV has count beside what it says that it has.
struct OfKv(Kv);

impl Levels for OfKv {
    fn level(&self, account: i64, service: Option<i64>, meter: Meter) -> u64 {
        if meter == Meter::KvStorageBytes { self.0.stored_bytes(account, service) } else { 0 }
    }
}

fn used(fixture: &Fixture, meter: Meter) -> u64 {
    fixture.meters.usage(ACCOUNT, None).of(meter, Period::Day)
}

async fn kv(fixture: &Fixture) -> Kv {
    let kv = Kv::open(&fixture.folder.path().join("kv"), fixture.clock.clone()).await.unwrap();
    fixture.meters.set_levels(Arc::new(OfKv(kv.clone())));
    kv.for_service(ACCOUNT, SERVICE, u64::MAX).billed_to(fixture.meters.bill(ACCOUNT, SERVICE))
}

fn entry(key: &str, bytes: usize) -> Put {
    Put { key: key.to_owned(), value: vec![b'x'; bytes].into(), ..Put::default() }
}

async fn queues(fixture: &Fixture, change: PolicyChange) -> Queues {
    let queues = Queues::open(&fixture.folder.path().join("queue"), fixture.clock.clone()).await.unwrap();
    queues.create(queue::Service(3), Queue(8), PolicyChange::default()).await.unwrap();
    queues.create(queue::Service(3), Queue(7), change).await.unwrap();
    queues.billed_to(fixture.meters.bill(ACCOUNT, SERVICE))
}

fn text(body: &str) -> queue::Send {
    queue::Send { body: body.to_owned().into(), ..queue::Send::default() }
}

async fn state(fixture: &Fixture) -> (State, Target) {
    let state = State::open(&fixture.folder.path().join("state"), fixture.clock.clone()).await.unwrap();
    let target = Target { namespace: Namespace(7), object: "o".into(), account: ACCOUNT, plan: Plan::Free, holds: Holds::default() };
    (state.billed_to(fixture.meters.bill(ACCOUNT, SERVICE)), target)
}

#[tokio::test]
async fn a_cap_on_storage_counts_what_a_write_adds() {
    let fixture = Fixture::new().await;
    let (kv, namespace) = (kv(&fixture).await, kv::Namespace(1));
    fixture.cap(of_account(Meter::KvStorageBytes, Period::Day), 1_000).await;
    kv.put(namespace, entry("a", 899)).await.unwrap();
    for bytes in [899, 999, 10, 999] {
        kv.put(namespace, entry("a", bytes)).await.unwrap();
    }
    assert!(matches!(kv.put(namespace, entry("a", 1_000)).await, Err(kv::Error::Usage(_))));
    assert!(matches!(kv.put(namespace, entry("b", 0)).await, Err(kv::Error::Usage(_))));
    // A bulk write that gives as much as it takes.
    kv.bulk_put(namespace, vec![entry("a", 499), entry("b", 499)]).await.unwrap();
    // Below what there is, everything goes that does not add to it.
    fixture.cap(of_account(Meter::KvStorageBytes, Period::Day), 10).await;
    kv.put(namespace, entry("a", 498)).await.unwrap();
    assert!(matches!(kv.put(namespace, entry("a", 499)).await, Err(kv::Error::Usage(_))));
    kv.delete(namespace, "b").await.unwrap();
    assert_eq!((kv.stored_bytes(ACCOUNT, None), used(&fixture, Meter::KvWrites)), (499, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_many_files_stay_below_one_cap_on_storage() {
    let fixture = Fixture::new().await;
    let kv = kv(&fixture).await;
    fixture.cap(of_account(Meter::KvStorageBytes, Period::Day), 10_000).await;
    let write = async |number: i64| {
        let mut written = 0;
        for key in 0..40 {
            written += u64::from(kv.put(kv::Namespace(number), entry(&format!("{key:04}"), 96)).await.is_ok());
            assert!(kv.stored_bytes(ACCOUNT, None) <= 10_000);
        }
        written
    };
    let written: u64 = join_all((1..=8).map(write)).await.into_iter().sum();
    assert_eq!(kv.stored_bytes(ACCOUNT, None), written * 100);
    // All of it can be used.
    while kv.put(kv::Namespace(9), entry(&format!("{:04}", used(&fixture, Meter::KvWrites)), 96)).await.is_ok() {}
    assert_eq!((kv.stored_bytes(ACCOUNT, None), used(&fixture, Meter::KvWrites)), (10_000, 100));
}

#[tokio::test]
async fn who_goes_away_pays_for_what_is_done() {
    let fixture = Fixture::new().await;
    let (kv, namespace) = (kv(&fixture).await, kv::Namespace(1));
    kv.put(namespace, entry("a", 1)).await.unwrap();
    assert!(poll!(pin!(kv.put(namespace, entry("b", 1)))).is_pending());
    assert!(poll!(pin!(kv.increment(namespace, "n", 1))).is_pending());
    assert!(poll!(pin!(kv.delete(namespace, "a"))).is_pending());
    // One writer: what was begun before is done before.
    kv.put(namespace, entry("c", 1)).await.unwrap();
    assert_eq!((used(&fixture, Meter::KvWrites), used(&fixture, Meter::KvDeletes)), (4, 1));
    let queues = queues(&fixture, PolicyChange::default()).await;
    assert!(poll!(pin!(queues.send(Queue(7), vec![text("a"), text("b")]))).is_pending());
    queues.send(Queue(7), vec![text("c")]).await.unwrap();
    assert_eq!(used(&fixture, Meter::QueueOperations), 3);
    let (state, target) = state(&fixture).await;
    state.put(&target, "a", Bytes::from_static(b"x")).await.unwrap();
    let session = {
        let mut session = state.hold(&target).await.unwrap();
        session.put("b", Bytes::from_static(b"x")).await.unwrap();
        session.get("a").await.unwrap();
        session.charge(true).await.unwrap();
        session.commit().unwrap()
    };
    drop(session);
    // One that is stopped has read.
    let mut session = state.hold(&target).await.unwrap();
    session.get("a").await.unwrap();
    drop(session);
    state.put(&target, "c", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!((used(&fixture, Meter::StateSqliteRowsWritten), used(&fixture, Meter::StateSqliteRowsRead)), (3, 2));
    assert_eq!(used(&fixture, Meter::StateRequests), 2);
}

#[tokio::test]
async fn a_pull_that_finds_dead_letters_stays_below_the_cap() {
    let fixture = Fixture::new().await;
    let change =
        PolicyChange { consumer: Some(Consumer::Pull), max_retries: Some(0), dead_letter_queue: Some(Some(Queue(8))), ..PolicyChange::default() };
    let queues = queues(&fixture, change).await;
    queues.send(Queue(7), (0..10).map(|_| text("x")).collect()).await.unwrap();
    let pull = async || queues.pull(Queue(7), Pull { messages: Some(10), visibility_seconds: Some(1) }).await;
    assert_eq!(pull().await.unwrap().messages.len(), 10);
    fixture.clock.advance(Duration::from_secs(2));
    // Each costs its removal and its place among the dead letters.
    fixture.cap(of_account(Meter::QueueOperations, Period::Day), 25).await;
    assert!(matches!(pull().await, Err(queue::Error::Usage(_))));
    assert_eq!(used(&fixture, Meter::QueueOperations), 24);
    fixture.cap(of_account(Meter::QueueOperations, Period::Day), 26).await;
    assert!(matches!(pull().await, Err(queue::Error::Usage(_))));
    assert_eq!(used(&fixture, Meter::QueueOperations), 26);
    fixture.cap(of_account(Meter::QueueOperations, Period::Day), 46).await;
    queues.send(Queue(7), (0..6).map(|_| text("y")).collect()).await.unwrap();
    // Seven dead letters, and no message yet: none is ready as long as others are due.
    let mut pulled = 0;
    while let Ok(found) = pull().await {
        pulled += found.messages.len();
    }
    assert!(pulled > 0);
    assert_eq!(used(&fixture, Meter::QueueOperations), 46, "all of it can be used");
}

#[tokio::test]
async fn leases_are_settled_where_there_is_room_for_what_it_costs() {
    let fixture = Fixture::new().await;
    let queues = queues(&fixture, PolicyChange { consumer: Some(Consumer::Pull), ..PolicyChange::default() }).await;
    queues.send(Queue(7), vec![text("x"), text("y")]).await.unwrap();
    let leases: Vec<_> = queues.pull(Queue(7), Pull::default()).await.unwrap().messages.into_iter().map(|(lease, _)| lease).collect();
    fixture.cap(of_account(Meter::QueueOperations, Period::Day), 5).await;
    assert!(matches!(queues.settle_leases(Queue(7), leases.clone(), Vec::new()).await, Err(queue::Error::Usage(_))));
    assert_eq!(queues.settle_leases(Queue(7), vec![leases[0]], Vec::new()).await.unwrap().settled.acked, 1);
    assert!(matches!(queues.settle_leases(Queue(7), vec![leases[1]], Vec::new()).await, Err(queue::Error::Usage(_))));
    assert_eq!(used(&fixture, Meter::QueueOperations), 5);
}

#[tokio::test]
async fn what_needs_nothing_of_a_meter_is_not_held_up_by_its_cap() {
    let fixture = Fixture::new().await;
    let service = fixture.service();
    service.charge(Meter::SqliteRowsWritten, 10);
    fixture.cap(of_account(Meter::SqliteRowsWritten, Period::Day), 5).await;
    let bill = fixture.meters.bill(ACCOUNT, SERVICE);
    assert!(Tally::reads(&bill, Meter::SqliteRowsRead, Meter::SqliteRowsWritten).await.is_ok());
    assert!(Tally::reads(&bill, Meter::SqliteRowsRead, Meter::SqliteRowsWritten).await.unwrap().writing().await.is_err());
    let (state, target) = state(&fixture).await;
    fixture.cap(of_account(Meter::StateSqliteRowsRead, Period::Day), 0).await;
    state.put(&target, "a", Bytes::from_static(b"x")).await.unwrap();
    state.delete_value(&target, "a").await.unwrap();
    assert!(matches!(state.get(&target, "a").await, Err(state::Error::Usage(_))));
    // What is left is used to the last.
    fixture.cap(of_account(Meter::SqliteRowsWritten, Period::Day), 17).await;
    let (charge, granted) = bill.reserve_some(Meter::SqliteRowsWritten, 10, 1).await.unwrap();
    assert_eq!(granted, 7);
    charge.settle(7);
    assert!(bill.reserve_some(Meter::SqliteRowsWritten, 10, 1).await.is_err());
}
