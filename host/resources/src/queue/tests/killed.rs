//! A process that is killed while it sends and consumes: what was answered is there afterwards, whole, and what was settled does not come back. The process
//! is this test program, run once more.

use std::collections::HashSet;

use futures::future::join_all;

use super::*;
use crate::killing::{run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_QUEUE_FOLDER";
const ROUND: &str = "TOVUK_TEST_QUEUE_ROUND";
const ROUNDS: u64 = 5;
const SENDERS: usize = 6;
const MESSAGES_OF_SEND: usize = 3;
const LINES_BEFORE_KILL: usize = 300;

/// Every fifth message fails until it is a dead letter.
fn fails(body: &str) -> bool {
    body.rsplit('-').next().unwrap().parse::<u64>().unwrap().is_multiple_of(5)
}

/// Sends and consumes until it is killed, and prints what was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn works_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let queues = Queues::open(Path::new(&folder), Clock::system()).await.unwrap();
    queues.create(SERVICE, FAILED, PolicyChange::default()).await.unwrap();
    queues.create(SERVICE, JOBS, retries(1)).await.unwrap();
    let senders = (0..SENDERS).map(|sender| {
        let queues = queues.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let body = format!("{round}-{sender}-{number}");
                let sends = (0..MESSAGES_OF_SEND).map(|part| text(format!("{part}/{body}"))).collect();
                if queues.send(JOBS, sends).await.is_ok() {
                    say(&format!("sent {body}"));
                }
            }
        })
    });
    let senders = join_all(senders);
    let consumer = async {
        loop {
            let batch = take(&queues, JOBS, 20).await;
            if batch.is_empty() {
                queues.changed(JOBS).await.unwrap();
                continue;
            }
            let (failed, done): (Vec<_>, Vec<_>) = batch.messages().iter().cloned().partition(|message| fails(&message.text()));
            let retry = failed.iter().map(|message| Retry { what: message.id, delay_seconds: None }).collect();
            let settled = batch.settle(Verdict { ack: Vec::new(), retry, rest: Rest::Ack }).await.unwrap();
            assert!(settled.gone.is_empty() && settled.discarded.is_empty());
            let buried: HashSet<_> = settled.dead_lettered.iter().map(|(from, _)| *from).collect();
            for message in &done {
                say(&format!("done {}", message.text()));
            }
            for message in failed.iter().filter(|message| buried.contains(&message.id)) {
                say(&format!("dead {}", message.text()));
            }
        }
    };
    tokio::join!(senders, consumer);
}

/// What the process was told, by the first word of its lines.
#[derive(Default)]
struct Told {
    sent: HashSet<String>,
    done: HashSet<String>,
    dead: HashSet<String>,
}

fn killed(folder: &Path, round: u64, told: &mut Told) {
    let round = round.to_string();
    let variables = [(FOLDER, folder.as_os_str()), (ROUND, round.as_ref())];
    run_until_killed("queue::tests::killed::works_until_killed", &variables, LINES_BEFORE_KILL, |line| {
        let Some((kind, body)) = line.split_once(' ') else { return false };
        match kind {
            "sent" => told.sent.extend((0..MESSAGES_OF_SEND).map(|part| format!("{part}/{body}"))),
            "done" => assert!(told.done.insert(body.to_owned()), "{body} was settled and came back"),
            "dead" => assert!(told.dead.insert(body.to_owned()), "{body} was buried twice"),
            _ => return false,
        }
        true
    });
}

async fn texts(queues: &Queues, queue: Queue) -> Vec<String> {
    let (mut pages, mut texts) = (queues.pages(queue, None), Vec::new());
    while let Some(page) = pages.next().await {
        texts.extend(page.unwrap().messages.iter().map(|listed| listed.message.text()));
    }
    texts
}

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_process() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("queue");
    let mut told = Told::default();
    for round in 1..=ROUNDS {
        killed(&path, round, &mut told);
        let queues = Queues::open(&path, Clock::system()).await.unwrap();
        let (waiting, dead) = (texts(&queues, JOBS).await, texts(&queues, FAILED).await);
        let unique: HashSet<_> = waiting.iter().chain(&dead).cloned().collect();
        assert_eq!(unique.len(), waiting.len() + dead.len(), "nothing is there twice");
        let buried: HashSet<_> = dead.iter().cloned().collect();
        assert!(dead.iter().all(|body| fails(body)), "only what failed is a dead letter");
        assert!(told.dead.is_subset(&buried), "what was buried stays");
        assert!(told.done.is_disjoint(&unique), "what is done is gone");
        // What is neither there nor done was being acknowledged when the process died; it was one batch at the most.
        let lost: Vec<_> = told.sent.iter().filter(|body| !unique.contains(*body) && !told.done.contains(*body)).collect();
        assert!(lost.len() <= 20 && lost.iter().all(|body| !fails(body)), "round {round}: {lost:?}");
        told.done.extend(lost.into_iter().cloned().collect::<Vec<_>>());
        for body in &waiting {
            let whole = body.split_once('/').unwrap().1;
            let here = |part: usize| {
                let body = format!("{part}/{whole}");
                unique.contains(&body) || told.done.contains(&body) || !told.sent.contains(&body)
            };
            assert!((0..MESSAGES_OF_SEND).all(here), "a batch is there wholly");
        }
        queues.close().await.unwrap();
        counted(folder.path());
    }
}
