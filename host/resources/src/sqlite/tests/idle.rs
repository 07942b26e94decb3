//! Many databases: connections of those that were not used for longest are closed, and what an idle one costs.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_stay_open_and_all_work() {
    let folder = TempDir::new().unwrap();
    let store = Sqlites::open_with(folder.path(), Clock::advanceable(), 8).unwrap();
    for round in 0..2 {
        for number in 0..20 {
            store.create(number).await.unwrap();
            store.query(number, free(), sql_only("create table if not exists t (x)")).await.unwrap();
            store.query(number, free(), Statement::new("insert into t values (?)", [Value::Integer(round)])).await.unwrap();
            let rows = store.query(number, free(), sql_only("select x from t")).await.unwrap().results.remove(0).rows;
            assert_eq!(rows.len() as i64, round + 1);
        }
    }
    let open = store.slots().values().filter(|slot| slot.is_open()).count();
    assert!(open <= 10, "{open}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// `cargo test --release -p tovuk-resources sqlite::tests::idle::what -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn what_idle_databases_take_and_how_fast_queries_are() {
    const DATABASES: u64 = 900;
    let folder = TempDir::new().unwrap();
    let store = Sqlites::open(folder.path(), Clock::system()).unwrap();
    for number in 0..DATABASES {
        store.create(number).await.unwrap();
        let tables = ["create table users (id integer primary key, name text)", "create table posts (id integer primary key, of integer, body text)"];
        store.batch(number, free(), tables.map(sql_only).to_vec()).await.unwrap();
        store.query(number, free(), sql_only("insert into users (name) values ('x')")).await.unwrap();
    }
    drop(store);
    let store = Sqlites::open(folder.path(), Clock::system()).unwrap();
    tokio::task::yield_now().await;
    let before = resident_kib();
    for number in 0..DATABASES {
        store.query(number, free(), sql_only("insert into posts (body) values ('x')")).await.unwrap();
    }
    let written = resident_kib();
    for number in 0..DATABASES {
        store.query(number, free(), sql_only("select * from users where id = 1")).await.unwrap();
    }
    let read = resident_kib();
    let each = |kib: u64| kib as f64 / DATABASES as f64;
    eprintln!("KiB for each idle database: {:.1} with its writer, {:.1} with a reader too", each(written - before), each(read - before));
    rates(&store).await;
}

async fn rates(store: &Sqlites) {
    let fill =
        "insert into posts (body) with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000) select hex(randomblob(50)) from n";
    store.query(1, free(), sql_only(fill)).await.unwrap();
    for (callers, writes) in [(1, false), (1, true), (64, false), (64, true)] {
        let rounds = if writes && callers == 1 { 500 } else { 20_000 / callers };
        let started = std::time::Instant::now();
        let tasks = (0..callers).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for at in 0..rounds {
                    let sql = if writes { "insert into posts (of, body) values (?, 'x')" } else { "select * from posts where id = ?" };
                    store.query(1, free(), Statement::new(sql, [Value::Integer(at)])).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let rate = (callers * rounds) as f64 / started.elapsed().as_secs_f64();
        eprintln!("{callers} callers, {}: {rate:.0}/s", if writes { "inserts" } else { "selects by key" });
    }
    let scan = store.query(1, free(), sql_only("select count(*) from posts where body like 'x%'")).await.unwrap();
    eprintln!("a scan of 100,000 rows: {} ms, {:?}", scan.duration_ms, scan.counts);
}
