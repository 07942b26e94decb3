//! Measurements, which are printed and prove nothing. Run them with
//! `cargo test --release -p tovuk-resources cron::tests::measured -- --ignored --nocapture`.

use std::time::Instant;

use futures::future::join_all;

use super::*;

const TRIGGERS: i64 = 10_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn ten_thousand_triggers_that_are_due_at_the_same_minute() {
    let (_folder, clock, crons) = fresh().await;
    let started = Instant::now();
    let make = |number| {
        let crons = crons.clone();
        async move { crons.create(SERVICE, TriggerNumber(number), "same", "*/10 * * * *").await.unwrap() }
    };
    join_all((0..TRIGGERS).map(make)).await;
    println!("  {TRIGGERS} triggers made in {} ms", started.elapsed().as_millis());
    let started = Instant::now();
    for _ in 0..100 {
        crons.next_due().await.unwrap();
    }
    println!("  asked for the next time in {} us", started.elapsed().as_micros() / 100);
    advance_to(&clock, crons.next_due().await.unwrap().unwrap());
    let (started, mut ticks) = (Instant::now(), Vec::new());
    while i64::try_from(ticks.len()).unwrap() < TRIGGERS {
        ticks.extend(crons.due(1_000).await.unwrap());
    }
    println!("  all taken in {} ms", started.elapsed().as_millis());
    let started = Instant::now();
    join_all(ticks.into_iter().map(|tick| tick.succeeded(None))).await.into_iter().for_each(Result::unwrap);
    println!("  all settled in {} ms", started.elapsed().as_millis());
}
