//! Measurements, which are printed and prove nothing. Run them with
//! `TOVUK_QUEUE_BACKLOG=5000000 cargo test --release -p tovuk-resources queue::tests::measured -- --ignored --nocapture --test-threads 1`. With
//! `TOVUK_QUEUE_FOLDER` on a file system in memory they show what is left when the disk costs nothing.

use std::time::Instant;

use futures::future::join_all;

use super::*;

const QUEUES: i64 = 64;
const CALLERS: i64 = 256;
const SECONDS: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 200;

fn folder() -> TempDir {
    TempDir::new_in(std::env::var("TOVUK_QUEUE_FOLDER").unwrap_or(env!("CARGO_MANIFEST_DIR").to_owned())).unwrap()
}

fn resident_mib() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    (pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4_096) >> 20
}

/// A queue of each of so many services.
async fn opened(folder: &TempDir) -> Queues {
    let queues = open(folder, &Clock::system()).await;
    for queue in 0..QUEUES {
        queues.create(Service(queue), Queue(queue), PolicyChange::default()).await.unwrap();
    }
    queues
}

fn commits(queues: &Queues) -> u64 {
    queues.store.shards.all().map(|database| database.counts().commits).sum()
}

/// Messages a second that 256 callers send, each with one request at a time.
async fn sends_a_second(queues: &Queues, messages: usize) -> f64 {
    let (started, commits_before) = (Instant::now(), commits(queues));
    let tasks = (0..CALLERS).map(|caller| {
        let queues = queues.clone();
        tokio::spawn(async move {
            let (mut sent, mut refused, queue) = (0, 0, Queue(caller % QUEUES));
            let sends = vec![text("x".repeat(BODY_BYTES)); messages];
            while started.elapsed() < SECONDS {
                match queues.send(queue, sends.clone()).await {
                    Ok(_) => sent += messages,
                    Err(Error::Rate { wait_ms }) => {
                        refused += 1;
                        queues.store.clock.sleep(Duration::from_millis(wait_ms)).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (sent, refused)
        })
    });
    let sums = join_all(tasks).await.into_iter().map(Result::unwrap).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let made = commits(queues) - commits_before;
    let rate = sums.0 as f64 / started.elapsed().as_secs_f64();
    println!(
        "  {messages} at a time: {rate:.0} messages/s, {made} commits of {:.1} messages, {} refused for their rate",
        sums.0 as f64 / made as f64,
        sums.1
    );
    rate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn sends_of_256_callers_over_64_queues() {
    let folder = folder();
    let queues = opened(&folder).await;
    for messages in [1, 10, 100] {
        sends_a_second(&queues, messages).await;
    }
    queues.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn taking_and_settling_in_batches_of_100() {
    const MESSAGES: usize = 200_000;
    let folder = folder();
    let queues = opened(&folder).await;
    fill(&queues, Queue(0), MESSAGES).await;
    let started = Instant::now();
    let consumers = (0..4).map(|_| {
        let queues = queues.clone();
        tokio::spawn(async move { while !acked(&queues, Queue(0), 100).await.is_empty() {} })
    });
    join_all(consumers).await.into_iter().for_each(Result::unwrap);
    println!("  one queue, 4 consumers: {:.0} messages/s taken and settled", MESSAGES as f64 / started.elapsed().as_secs_f64());
    queues.close().await.unwrap();
}

/// Puts messages into a queue faster than it would take them.
async fn fill(queues: &Queues, queue: Queue, messages: usize) {
    let live = queues.store.live(queue).unwrap();
    for _ in 0..messages / 10_000 {
        let (store, local) = (queues.store.clone(), live.local);
        let sends = vec![text("x".repeat(BODY_BYTES)); 10_000];
        let work = queues.store.database(&live).unwrap().write(move |tx| {
            let (first, _) = rows::reserve(tx, local, sends.len(), (sends.len() * BODY_BYTES) as u64)?;
            messages::append(tx, local, first, &sends, 0, store.now())
        });
        work.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_backlog_of_millions() {
    let backlog = std::env::var("TOVUK_QUEUE_BACKLOG").ok().and_then(|backlog| backlog.parse().ok()).unwrap_or(1_000_000);
    let folder = folder();
    let queues = opened(&folder).await;
    let before = (sends_a_second(&queues, 1).await, resident_mib());
    let started = Instant::now();
    for queue in 0..QUEUES {
        fill(&queues, Queue(queue), backlog / usize::try_from(QUEUES).unwrap()).await;
    }
    println!("  {backlog} messages more in {:.0} s", started.elapsed().as_secs_f64());
    let after = (sends_a_second(&queues, 1).await, resident_mib());
    println!("  sends {:.2} of those before; resident {} MiB, before {} MiB", after.0 / before.0, after.1, before.1);
    let started = Instant::now();
    assert_eq!(take(&queues, Queue(0), 100).await.messages().len(), 100);
    println!("  first batch in {} ms", started.elapsed().as_millis());
    queues.close().await.unwrap();
    let started = Instant::now();
    let queues = open(&folder, &Clock::system()).await;
    println!("  opened in {} ms, {} queues with a backlog", started.elapsed().as_millis(), queues.active().await.len());
    queues.close().await.unwrap();
}
