//! A statement that takes too much is stopped, leaves nothing behind, and harms nobody else.

use std::time::{Duration, Instant};

use super::billing::Purse;
use super::*;

const ENDLESS: &str = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n";

fn short() -> Allowance {
    Allowance { query_ms: 200, vm_steps: u64::MAX, ..free() }
}

fn budget(result: Result<Outcome, Error>) -> Budget {
    match result {
        Err(error @ Error::Budget(budget)) => {
            assert_eq!(error.code().code, "sqlite_budget_exceeded");
            budget
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn time_steps_result_and_memory_are_bounded() {
    let fixture = Fixture::with_notes(1_000).await;
    let run = |allowance, sql: &str| fixture.store.query(NUMBER, allowance, sql_only(sql));
    let started = Instant::now();
    assert!(matches!(budget(run(short(), ENDLESS).await), Budget::Time(200)));
    let took = started.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_millis(300)).contains(&took), "{took:?}");
    assert!(matches!(budget(run(Allowance { vm_steps: 1_000_000, ..free() }, ENDLESS).await), Budget::Steps(1_000_000)));
    let large = "select hex(zeroblob(500000)) from notes limit 40";
    assert!(matches!(budget(run(free(), large).await), Budget::Result(_)));
    let names = format!("select id as \"{}\" from notes", "x".repeat(20_000));
    assert!(matches!(budget(run(free(), &names).await), Budget::Result(_)), "names count, because each row has them");
    let memory = (0..100).map(|at| format!("hex(zeroblob(1000000 - {at})) as c{at}")).collect::<Vec<_>>().join(", ");
    assert!(matches!(budget(run(free(), &format!("select {memory}")).await), Budget::Heap(_)));
    assert_eq!(fixture.count("notes").await, 1_000);
}

#[tokio::test]
async fn a_batch_has_one_budget_for_all_statements() {
    let fixture = Fixture::with_notes(1_000).await;
    let allowance = Allowance { vm_steps: 20_000, ..free() };
    let update = || sql_only("update notes set body = body || 'x'");
    fixture.store.batch(NUMBER, allowance, vec![update()]).await.unwrap();
    let result = fixture.store.batch(NUMBER, allowance, vec![update(); 5]).await;
    assert!(matches!(budget(result), Budget::Steps(_)));
    assert_eq!(fixture.value("select max(length(body)) from notes").await, Value::Integer(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_write_that_is_stopped_takes_none_of_its_group_with_it() {
    let fixture = Fixture::with_notes(10).await;
    fixture.run("create table t (id integer primary key)").await.unwrap();
    let endless = "insert into t with recursive n(i) as (select 1000 union all select i + 1 from n) select i from n";
    let writes = (1..=20_i64).map(|id| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            if id == 10 {
                return store.query(NUMBER, short(), sql_only(endless)).await;
            }
            store.query(NUMBER, free(), Statement::new("insert into t values (?)", [Value::Integer(id)])).await
        })
    });
    let mut failed = 0;
    for write in futures::future::join_all(writes).await {
        failed += usize::from(matches!(write.unwrap(), Err(Error::Budget(_))));
    }
    assert_eq!((failed, fixture.count("t").await), (1, 19));
}

#[tokio::test]
async fn no_function_takes_time_with_the_square_of_its_arguments() {
    let fixture = Fixture::new().await;
    let set = "(with recursive n(i) as (select 200 union all select i + 1 from n where i < 50000) select group_concat(char(i), '') from n) || '0'";
    for sql in [
        "select instr(hex(zeroblob(1000000)), hex(zeroblob(500000)) || '1')".to_owned(),
        "select length(replace(hex(zeroblob(1000000)), hex(zeroblob(500000)) || '1', ''))".to_owned(),
        format!("select length(trim(hex(zeroblob(1000000)), {set}))"),
        format!("select '{}' like '{}%b'", "a".repeat(200_000), "%a".repeat(48)),
        format!("select '{}' glob '{}*b'", "a".repeat(200_000), "*a".repeat(48)),
    ] {
        let purse = Purse::of(u64::MAX);
        fixture.store.paid_by(purse.clone()).query(NUMBER, free(), sql_only(&sql)).await.unwrap();
        // The library's own took half a minute for a tenth of this.
        assert!(purse.paid_ms() < 3_000, "{} ms: {sql:.60}", purse.paid_ms());
    }
}

#[tokio::test]
async fn the_watchdog_ends_what_counts_no_steps() {
    let fixture = Fixture::new().await;
    fixture.run("create virtual table f using fts5(body)").await.unwrap();
    let fill = "insert into f with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) select 'alpha beta gamma' from n";
    fixture.run(fill).await.unwrap();
    let mut terms = vec!["alpha*"; 60].join(" NOT beta OR ");
    terms.push_str(" OR gamma");
    let started = Instant::now();
    let statement = Statement::new("select count(*) from f where f match ?", [text(&terms)]);
    let result = fixture.store.query(NUMBER, Allowance { query_ms: 50, vm_steps: u64::MAX, ..free() }, statement).await;
    let took = started.elapsed();
    assert!(took < Duration::from_millis(150), "{took:?} {result:?}");
    assert!(matches!(budget(result), Budget::Time(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_database_cannot_take_all_threads() {
    let fixture = Fixture::with_notes(10).await;
    fixture.store.create(8).await.unwrap();
    let endless = Allowance { query_ms: 1_000, vm_steps: u64::MAX, ..free() };
    let busy: Vec<_> = (0..40)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.query(NUMBER, endless, sql_only(ENDLESS)).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let started = Instant::now();
    fixture.store.query(8, free(), sql_only("create table t (x)")).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    // Whoever goes away stops what runs for them.
    for task in &busy {
        task.abort();
    }
    for task in busy {
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let started = Instant::now();
    assert_eq!(fixture.count("notes").await, 10);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test]
async fn more_calls_than_may_wait_are_refused() {
    let fixture = Fixture::with_notes(1).await;
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    let waiting: Vec<_> = (0..tovuk_kernel::limits::SQLITE_WAITING_MAX)
        .map(|_| {
            let store = fixture.store.clone();
            tokio::spawn(async move { store.query(NUMBER, free(), sql_only("insert into notes default values")).await })
        })
        .collect();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(fixture.run("insert into notes default values").await, Err(Error::Busy)));
    transaction.rollback().await.unwrap();
    let served = futures::future::join_all(waiting).await.into_iter().filter(|result| matches!(result, Ok(Ok(_)))).count();
    assert_eq!(served, tovuk_kernel::limits::SQLITE_WAITING_MAX - 1);
}

/// The most memory that this process has had, in bytes.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test]
async fn a_row_that_is_too_large_is_not_copied() {
    let fixture = Fixture::new().await;
    let sql = format!("select {}", vec!["?1"; 490].join(", "));
    let wide = || Statement::new(sql.clone(), [Value::Blob(vec![7; 2_000_000])]);
    let before = peak_bytes();
    assert!(matches!(budget(fixture.store.query(NUMBER, free(), wide()).await), Budget::Result(_)));
    let streamed = fixture.store.stream(NUMBER, free(), wide()).await.map(drop).unwrap_err();
    assert!(matches!(streamed, Error::Budget(Budget::Result(_))), "{streamed}");
    let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
    assert!(matches!(budget(transaction.query(wide()).await), Budget::Result(_)));
    let grown = peak_bytes() - before;
    assert!(grown < 100 << 20, "{grown}");
    // A row that fits still arrives.
    let outcome = fixture.store.query(NUMBER, free(), Statement::new("select ?1, ?1, ?1, ?1", [Value::Blob(vec![7; 2_000_000])])).await.unwrap();
    assert_eq!(outcome.results[0].rows[0].len(), 4);
}

#[tokio::test]
async fn names_of_columns_count_without_a_row() {
    let fixture = Fixture::new().await;
    let name = "x".repeat(100_000);
    fixture.run(&format!("create table t (\"{name}\" integer)")).await.unwrap();
    let sql = format!("select {} from t", vec!["*"; 100].join(", "));
    let before = peak_bytes();
    let batch = vec![sql_only(&sql); 100];
    assert!(matches!(budget(fixture.store.batch(NUMBER, free(), batch).await), Budget::Result(_)));
    let few = vec![sql_only(&format!("select {} from t", vec!["*"; 20].join(", "))); 100];
    assert!(matches!(budget(fixture.store.batch(NUMBER, free(), few).await), Budget::Result(_)), "each statement's count");
    let grown = peak_bytes() - before;
    assert!(grown < 150 << 20, "{grown}");
}
