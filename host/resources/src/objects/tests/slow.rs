//! Senders that are slow, or send next to nothing: what they hold is theirs, and ends.

use futures::SinkExt;
use futures::channel::mpsc;

use super::*;

/// More than the host has room for when each takes all that it may need, and more than one account may begin.
const SLOW: usize = 300;

type Slow = (Vec<mpsc::Sender<Result<Bytes, String>>>, Vec<tokio::task::JoinHandle<Result<Received, Error>>>);

/// Uploads of one account over five services, each of which sends so much and then nothing more.
async fn slow(fixture: &Fixture, sent: usize) -> Slow {
    let first = Bytes::from(pattern(sent, 1));
    let all = (0..SLOW).map(async |number| {
        let tenant = Tenant { service: 100 + number as i64 % 5, ..TENANT };
        let upload = fixture.objects.begin(tenant, new(&format!("{number}"), 3 * MIB)).await.unwrap();
        let (mut sender, receiver) = mpsc::channel(0);
        let objects = fixture.objects.clone();
        let receiving = tokio::spawn(async move { objects.receive(tenant.service, upload.id, 1, None, held(receiver)).await });
        // This is done when the bytes are taken, so all of them have begun.
        sender.send(Ok(first.clone())).await.unwrap();
        (sender, receiving)
    });
    futures::future::join_all(all).await.into_iter().unzip()
}

async fn others_are_not_held_up(sent: usize) {
    let fixture = Fixture::folder().await;
    let (senders, receiving) = slow(&fixture, sent).await;
    // On a clock that does not move nobody is sent away, so what follows finds room beside them.
    let other = Tenant { account: 2, service: 200, plan: Plan::Free };
    let whole = pattern(5 * MIB, 2);
    let put = PutObject { path: "x".into(), content_type: String::new(), size_bytes: None, public_read: false };
    fixture.objects.put(other, put, body(whole.clone())).await.unwrap();
    let upload = fixture.objects.begin(other, new("y", 5 * MIB)).await.unwrap();
    fixture.objects.receive(other.service, upload.id, 1, None, body(whole)).await.unwrap();
    assert!(receiving.iter().all(|receiving| !receiving.is_finished()));
    // Those that have room lose it when they do not use it, and then so do those that waited for it.
    while !receiving.iter().all(tokio::task::JoinHandle::is_finished) {
        fixture.advance(120);
        tokio::task::yield_now().await;
    }
    for receiving in receiving {
        assert!(matches!(receiving.await.unwrap(), Err(Error::Interrupted(why)) if why.contains("within")));
    }
    drop(senders);
    fixture.put("z", pattern(3 * MIB, 3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_of_single_bytes_hold_up_nobody_else() {
    others_are_not_held_up(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn senders_of_what_a_chunk_is_taken_for_hold_up_nobody_else() {
    others_are_not_held_up(budget::BEGINNING_BYTES + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_nothing_holds_nothing_and_is_not_sent_away() {
    let fixture = Fixture::folder().await;
    let (mut sender, receiver) = mpsc::channel::<Result<Bytes, String>>(0);
    let upload = fixture.objects.begin(TENANT, new("x", MIB + 4)).await.unwrap();
    let objects = fixture.objects.clone();
    let receiving = tokio::spawn(async move { objects.receive(SERVICE, upload.id, 1, None, held(receiver)).await });
    // Nothing is held for it yet.
    fixture.advance(3_000);
    let whole = Bytes::from(pattern(MIB, 1));
    sender.send(Ok(whole)).await.unwrap();
    // And in the middle of something a little.
    for piece in ["1", "234"] {
        fixture.advance(30);
        sender.send(Ok(Bytes::from(piece))).await.unwrap();
    }
    drop(sender);
    assert_eq!(receiving.await.unwrap().unwrap().size_bytes, MIB as u64 + 4);
}
