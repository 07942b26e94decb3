//! SQLite over the API and the command line: what is asked is answered, what is not allowed is refused, and what is deleted is gone.

use serde_json::{Value, json};
use tovuk_tests::{Operator, Project, Serve, ran};

use crate::TOVUK;

async fn with_database() -> Operator {
    let host = Operator::start(TOVUK).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    let created = host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    assert_eq!((&created["database"]["id"], &created["database"]["env"]), (&json!("sqlite_1"), &json!("TOVUK_SQLITE_DB")));
    assert_eq!(created["sqliteDatabases"][0]["name"], "DB");
    host
}

const DB: &str = "/v1/services/shop/sqlite/DB";

async fn query(host: &Operator, sql: &str, params: Value) -> Value {
    host.ok("POST", &format!("{DB}/query"), Some(json!({"sql": sql, "params": params}))).await
}

async fn refused(host: &Operator, body: Value) -> String {
    host.refused(&host.token.clone(), "POST", &format!("{DB}/query"), Some(body)).await
}

/// The files below the data folder that belong to databases, but for the one of the control API.
fn files(host: &Operator) -> Vec<String> {
    let mut found = Vec::new();
    for folder in [host.data.join("sqlite"), host.data.join("sqlite/backups")] {
        found.extend(std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()));
    }
    found.retain(|name| name != "backups");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_answers_rows_and_what_they_cost_also_after_a_start() {
    let host = with_database().await;
    query(&host, "create table t (i integer, r real, s text, b blob)", json!([])).await;
    let values = json!([{"integer": "9223372036854775807"}, 1.5, "a\u{0}b", {"base64": "AP8="}]);
    let inserted = query(&host, "insert into t values (?, ?, ?, ?)", values).await;
    assert_eq!((&inserted["rowsWritten"], &inserted["lastInsertRowid"]), (&json!(1), &json!(1)));
    query(&host, "insert into t values (:i, null, :s, null)", json!({"i": 7, ":s": null})).await;
    let host = host.restart().await;
    let read = query(&host, "select t.*, t.i from t order by rowid", json!([])).await;
    assert_eq!(read["columns"], json!(["i", "r", "s", "b", "i:2"]));
    let big = json!({"integer": "9223372036854775807"});
    assert_eq!(read["rows"][0], json!({"i": big, "r": 1.5, "s": "a\u{0}b", "b": {"base64": "AP8="}, "i:2": big}));
    assert_eq!(read["rows"][1], json!({"i": 7, "r": null, "s": null, "b": null, "i:2": 7}));
    for field in ["rowsRead", "rowsWritten", "vmSteps", "fullscanSteps", "storageBytes"] {
        assert!(read[field].is_u64(), "{field}: {read}");
    }
    assert!(read["durationMs"].is_f64() && read["nextActions"] == json!([]) && read.get("results").is_none(), "{read}");

    // A batch is one transaction.
    let batch = |statements: Value| json!({"statements": statements});
    let done = host.ok("POST", &format!("{DB}/query"), Some(batch(json!([{"sql": "delete from t"}, {"sql": "select ? as n", "params": [5]}])))).await;
    assert_eq!((&done["rowsWritten"], &done["results"][1]["rows"]), (&json!(2), &json!([{"n": 5}])));
    assert!(done.get("rows").is_none(), "{done}");
    assert_eq!(refused(&host, batch(json!([{"sql": "insert into t (i) values (1)"}, {"sql": "select x"}]))).await, "sqlite_query_failed");
    assert_eq!(query(&host, "select count(*) as n from t", json!([])).await["rows"], json!([{"n": 0}]));
    // A scan is told.
    let fill = "insert into t (i) with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000) select i from n";
    query(&host, fill, json!([])).await;
    let scanned = query(&host, "select s from t where i = ?", json!([3])).await;
    assert!(scanned["fullscanSteps"].as_u64().unwrap() > 40_000, "{scanned}");
    assert!(scanned["nextActions"][0].as_str().unwrap().to_lowercase().contains("create index"), "{scanned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_may_not_do_is_refused() {
    let host = with_database().await;
    query(&host, "create table t (i integer unique)", json!([])).await;
    for sql in [
        "attach 'x.db' as x",
        "vacuum into 'x.db'",
        "select load_extension('x')",
        "pragma writable_schema = on",
        "pragma journal_mode = delete",
        "pragma temp_store_directory = '/tmp'",
        "update sqlite_schema set sql = ''",
        "create virtual table v using csv(filename='/etc/passwd')",
        "create virtual table v using dbstat",
        "select readfile('/etc/passwd')",
        "begin",
    ] {
        let code = refused(&host, json!({"sql": sql})).await;
        assert!(matches!(code.as_str(), "sqlite_forbidden" | "sqlite_query_failed"), "{sql}: {code}");
    }
    query(&host, "create virtual table f using fts5(text)", json!([])).await;
    assert_eq!(query(&host, "select json_extract('{\"a\":1}', '$.a') as a", json!([])).await["rows"], json!([{"a": 1}]));
    query(&host, "insert into t values (1)", json!([])).await;
    let many: Vec<_> = (0..1_001).map(|_| json!({"sql": "select 1"})).collect();
    for (body, code) in [
        (json!({"sql": "insert into t values (1)"}), "sqlite_constraint"),
        (json!({"sql": "selec"}), "sqlite_query_failed"),
        (json!({"sql": ""}), "sqlite_query_failed"),
        (json!({"sql": "select 1; select 2"}), "sqlite_query_failed"),
        (json!({"sql": "select ?"}), "sqlite_query_failed"),
        (json!({"sql": "select ?", "params": [[1]]}), "invalid_request"),
        (json!({"sql": "select ?", "params": [{"base64": "?"}]}), "invalid_request"),
        (json!({}), "invalid_request"),
        (json!({"sql": "select 1", "statements": []}), "invalid_request"),
        (json!({"statements": []}), "sqlite_query_failed"),
        (json!({"statements": many}), "sqlite_query_failed"),
        (json!({"sql": "select randomblob(2097153)"}), "sqlite_query_failed"),
        (
            json!({"sql": "with recursive n(i) as (select 1 union all select i + 1 from n where i < 20) select zeroblob(1000000) from n"}),
            "sqlite_budget_exceeded",
        ),
    ] {
        assert_eq!(refused(&host, body.clone()).await, code, "{}", body.to_string().chars().take(200).collect::<String>());
    }
    // The plan says how many steps: free has the fewest.
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "eve", "plan": "free"}))).await;
    let eve = made["token"].as_str().unwrap();
    host.ok_as(eve, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok_as(eve, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    let endless = json!({"sql": "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"});
    let reply = host.api("POST", &format!("{DB}/query"), Some(eve), Some(endless)).await;
    assert_eq!(reply.code(), "sqlite_budget_exceeded");
    assert!(reply.json()["message"].as_str().unwrap().contains("50000000 steps"), "{}", reply.text());
    let token = host.token.clone();
    for name in ["databases", "1x", "sqlite_1", "sqlite_backup_1", ""] {
        assert_eq!(host.refused(&token, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": name}))).await, "invalid_name");
    }
    assert_eq!(host.refused(&token, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "db"}))).await, "resource_exists");
    assert_eq!(host.refused(&token, "POST", "/v1/services/shop/sqlite/NONE/query", Some(json!({"sql": "select 1"}))).await, "resource_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_under_readers_and_writers() {
    let host = with_database().await;
    query(&host, "create table t (version text, n integer)", json!([])).await;
    query(&host, "insert into t values ('old', 1)", json!([])).await;
    let made = host.ok("POST", &format!("{DB}/backups"), None).await;
    assert_eq!((&made["backup"]["id"], &made["backup"]["kind"]), (&json!("sqlite_backup_1"), &json!("manual")));
    query(&host, "update t set version = 'new'", json!([])).await;
    let path = format!("{DB}/backups/sqlite_backup_1/restore");
    let restore = host.ok("POST", &path, None);
    let others = (0..40).map(|number| {
        let host = &host;
        async move {
            if number % 2 == 0 {
                query(host, "update t set n = n + 1", json!([])).await;
            }
            let seen = query(host, "select version from t", json!([])).await["rows"][0]["version"].clone();
            assert!(seen == "old" || seen == "new", "{seen}");
        }
    });
    let (restored, _) = tokio::join!(restore, futures::future::join_all(others));
    assert_eq!((&restored["restored"], &restored["preRestoreBackup"]["kind"]), (&json!("sqlite_backup_1"), &json!("pre_restore")));
    assert_eq!(query(&host, "select version from t", json!([])).await["rows"], json!([{"version": "old"}]));
    let listed = host.ok("GET", &format!("{DB}/backups"), None).await;
    let ids: Vec<_> = listed["backups"].as_array().unwrap().iter().map(|backup| backup["id"].as_str().unwrap()).collect();
    assert_eq!((ids, &listed["has_more"]), (vec!["sqlite_backup_2", "sqlite_backup_1"], &json!(false)));
    host.ok("POST", &format!("{DB}/backups/sqlite_backup_2/restore"), None).await;
    assert_eq!(query(&host, "select version from t", json!([])).await["rows"], json!([{"version": "new"}]));

    // One that somebody has tampered with is refused, and the database stays as it is.
    let folder = host.data.join("sqlite/backups/1");
    let tampered =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.to_str().unwrap().contains("/1-")).unwrap();
    std::fs::write(&tampered, [b"SQLite format 3\0".as_slice(), &[0xff; 9_000]].concat()).unwrap();
    let token = host.token.clone();
    assert_eq!(host.refused(&token, "POST", &format!("{DB}/backups/sqlite_backup_1/restore"), None).await, "sqlite_backup_refused");
    for id in ["sqlite_backup_99", "sqlite_backup_01", "1", "sqlite_1"] {
        assert_eq!(host.refused(&token, "POST", &format!("{DB}/backups/{id}/restore"), None).await, "sqlite_backup_not_found", "{id}");
    }
    assert_eq!(query(&host, "select version from t", json!([])).await["rows"], json!([{"version": "new"}]));
    // Backups are a database's own.
    host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "OTHER"}))).await;
    let other = "/v1/services/shop/sqlite/OTHER/backups/sqlite_backup_2/restore";
    assert_eq!(host.refused(&token, "POST", other, None).await, "sqlite_backup_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_are_applied_once_each() {
    let host = with_database().await;
    let migrate = |list: &[(&str, &str)]| {
        let list: Vec<_> = list.iter().map(|(name, sql)| json!({"name": name, "sql": sql})).collect();
        json!({"migrations": list})
    };
    let first = ("1.sql", "create table t (a); insert into t values (1);");
    let path = format!("{DB}/migrations");
    assert_eq!(host.ok("POST", &path, Some(migrate(&[first]))).await["applied"], json!(["1.sql"]));
    let done = host.ok("POST", &path, Some(migrate(&[first, ("2.sql", "alter table t add b")]))).await;
    assert_eq!(done["applied"], json!(["2.sql"]));
    let token = host.token.clone();
    for (list, code) in [
        (vec![("1.sql", "create table other (a)")], "sqlite_migration_refused"),
        (vec![("0.sql", "select 1"), first], "sqlite_migration_refused"),
        (vec![first, ("3.sql", "create table u (a); nonsense")], "sqlite_query_failed"),
        (vec![first, ("3.sql", "attach 'x' as y")], "sqlite_forbidden"),
    ] {
        assert_eq!(host.refused(&token, "POST", &path, Some(migrate(&list))).await, code);
    }
    assert_eq!(query(&host, "select count(*) as n from sqlite_schema where name = 'u'", json!([])).await["rows"], json!([{"n": 0}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn data_goes_with_what_it_belongs_to_and_belongs_to_one_account() {
    let host = with_database().await;
    let token = host.token.clone();
    let bob = host.account("bob").await;
    query(&host, "create table t (a)", json!([])).await;
    host.ok("POST", &format!("{DB}/backups"), None).await;
    let ask = Some(json!({"sql": "select 1"}));
    assert_eq!(host.refused(&bob, "POST", &format!("{DB}/query"), ask.clone()).await, "service_not_found");
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    for (method, path) in [("POST", "sqlite_1/query"), ("GET", "sqlite_1/backups"), ("POST", "sqlite_1/backups/sqlite_backup_1/restore")] {
        let body = (method == "POST").then(|| json!({"sql": "select 1"}));
        assert_eq!(host.refused(&bob, method, &format!("/v1/services/shop/sqlite/{path}"), body).await, "resource_not_found");
    }
    assert_eq!(host.refused(&bob, "DELETE", "/v1/services/shop/sqlite/databases/sqlite_1", None).await, "resource_not_found");

    let left = host.ok("DELETE", "/v1/services/shop/sqlite/databases/DB", None).await;
    assert_eq!((&left["sqliteDatabases"], files(&host)), (&json!([]), Vec::new()));
    assert_eq!(host.refused(&token, "POST", &format!("{DB}/query"), ask.clone()).await, "resource_not_found");
    let again = host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    assert_eq!(again["database"]["id"], "sqlite_2");
    assert_eq!(query(&host, "select count(*) as n from sqlite_schema", json!([])).await["rows"], json!([{"n": 0}]), "a new one is empty");
    host.ok("DELETE", "/v1/services/shop", None).await;
    assert_eq!(files(&host), Vec::<String>::new());

    host.ok_as(&bob, "POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    host.ok_as(&bob, "POST", &format!("{DB}/backups"), None).await;
    assert!(!files(&host).is_empty());
    host.ok("DELETE", "/v1/operator/accounts/bob?confirm=bob", None).await;
    assert_eq!(files(&host), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_file_was_never_made_is_made_at_the_next_start() {
    let host = with_database().await;
    query(&host, "create table t (a)", json!([])).await;
    // As a host leaves it that ends between the row and the file.
    host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "HALF"}))).await;
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(host.data.join(format!("sqlite/2.db{ending}")));
    }
    let host = host.restart().await;
    let ask = |sql: &str| Some(json!({"sql": sql}));
    host.ok("POST", "/v1/services/shop/sqlite/HALF/query", ask("create table t (a)")).await;
    assert_eq!(host.ok("POST", &format!("{DB}/query"), ask("select count(*) as n from t")).await["rows"], json!([{"n": 0}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_control_database_does_not_know_become_nobodys() {
    let host = with_database().await;
    query(&host, "create table t (a)", json!([])).await;
    let data = host.data.join("sqlite");
    host.ok("DELETE", "/v1/services/shop/sqlite/databases/DB", None).await;
    // As after a restore of the control database alone.
    std::fs::write(data.join("7.db"), "another one's").unwrap();
    let host = host.restart().await;
    let made = host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    assert_eq!(made["database"]["id"], "sqlite_8");
    assert_eq!(query(&host, "select count(*) as n from sqlite_schema", json!([])).await["rows"], json!([{"n": 0}]));
    assert_eq!(std::fs::read(data.join("7.db")).unwrap(), b"another one's");
}

#[tokio::test]
async fn the_documents_commands_run_verbatim() {
    let host = Serve::start(TOVUK).await;
    host.line("tovuk service create shop").ok();
    host.line("tovuk sqlite create --service service_1 DB --json").ok();
    // Words in quotes are one in a shell.
    let answer = host.cli(&["sqlite", "query", "--service", "service_1", "DB", "select 1", "--json"]).ok().json();
    assert_eq!(answer["rows"], json!([{"1": 1}]));
    let backup = host.line("tovuk sqlite backup create --service service_1 DB --json").ok().json();
    assert_eq!(backup["backup"]["id"], "sqlite_backup_1");
    for line in ["tovuk sqlite backup list --service service_1 DB --json", "tovuk sqlite backup --service service_1 DB --json"] {
        assert_eq!(host.line(line).ok().json()["backups"][0]["id"], "sqlite_backup_1", "{line}");
    }
    host.line("tovuk sqlite backup restore --service service_1 DB sqlite_backup_1 --json").ok();
    host.line("tovuk sqlite restore --service service_1 DB sqlite_backup_1 --json").ok();
    let deleted = host.line("tovuk sqlite backup delete --service service_1 DB sqlite_backup_1 --json").ok().json();
    assert_eq!(deleted["deleted"], "sqlite_backup_1");
    assert_eq!(
        host.line("tovuk sqlite backup delete --service service_1 DB sqlite_backup_1 --json").refused().failure()["code"],
        "sqlite_backup_not_found"
    );
    for line in ["tovuk sqlite list --service shop --json", "tovuk sqlite --service shop --json"] {
        assert_eq!(host.line(line).ok().json()["sqliteDatabases"][0]["name"], "DB", "{line}");
    }
    host.line("tovuk sqlite query --service shop DB create table t (a, b)").ok();
    let text = host.line("tovuk sqlite query --service shop DB insert into t values (?, ?) --params [1,null]").ok().stdout;
    assert!(text.contains("1 written"), "{text}");
    let batch = r#"[{"sql":"insert into t values (?,?)","params":[2,"x"]},{"sql":"select count(*) as n from t"}]"#;
    let answer = host.cli(&["sqlite", "batch", "--service", "shop", "DB", batch, "--json"]).ok().json();
    assert_eq!(answer["results"][1]["rows"], json!([{"n": 2}]));
    let text = host.line("tovuk sqlite query --service shop DB select * from t").ok().stdout;
    assert!(text.starts_with("A  B\n1  NULL\n2  x\n2 rows read"), "{text}");
    assert!(host.line("tovuk sqlite query --service shop DB select --params {").refused().stderr.contains("--params must be JSON"));

    let project = Project::new(&[("migrations/0002.sql", "alter table m add b;"), ("migrations/0001.sql", "create table m (a);"), ("empty/x", "")]);
    let migrate = |folder: &str| {
        let mut command = host.anonymous(&["sqlite", "migrate", "--service", "shop", "DB", folder, "--json"]);
        command.env("TOVUK_TOKEN", host.token()).current_dir(project.path());
        ran(command)
    };
    assert_eq!(migrate("migrations").ok().json()["applied"], json!(["0001.sql", "0002.sql"]));
    assert_eq!(migrate("migrations").ok().json()["applied"], json!([]));
    assert!(migrate("empty").refused().failure()["message"].as_str().unwrap().contains("no file *.sql"));
    assert_eq!(host.line("tovuk sqlite delete --service service_1 DB --json").ok().json()["sqliteDatabases"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_no_more_than_it_may_in_all_its_databases() {
    let host = Operator::start(TOVUK).await;
    let made = host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "ada", "plan": "free"}))).await;
    let ada = made["token"].as_str().unwrap().to_owned();
    for name in ["shop", "blog"] {
        host.ok_as(&ada, "POST", "/v1/services", Some(json!({"name": name}))).await;
        host.ok_as(&ada, "POST", &format!("/v1/services/{name}/sqlite/databases"), Some(json!({"name": "DB"}))).await;
    }
    let ask = |sql: &str| json!({"sql": sql});
    host.ok_as(&ada, "POST", &format!("{DB}/query"), Some(ask("create table t (body text)"))).await;
    // The other database has all but 100 KB of what a free account may have. Nobody opens it.
    let (file, filled) = (host.data.join("sqlite/2.db"), 5_000_000_000 - 100_000);
    let host = host.restart_with(|_| std::fs::File::options().write(true).open(file).unwrap().set_len(filled).unwrap()).await;
    let grow = ask("insert into t values (hex(randomblob(10000)))");
    let mut writes = 0;
    let refused = loop {
        let reply = host.api("POST", &format!("{DB}/query"), Some(&ada), Some(grow.clone())).await;
        if !reply.status.is_success() {
            break reply;
        }
        writes += 1;
    };
    assert!((1..5).contains(&writes), "{writes}");
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (409, "sqlite_storage_full"));
    assert!(refused.text().contains("of the account may have 5000000000 bytes"), "{}", refused.text());
    host.ok_as(&ada, "DELETE", "/v1/services/blog/sqlite/databases/DB", None).await;
    host.ok_as(&ada, "POST", &format!("{DB}/query"), Some(grow)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_would_take_more_memory_than_there_is_are_refused_before_they_are_read() {
    let host = Operator::with(TOVUK, |config| config.guest_memory_bytes = Some(32 << 20)).await;
    host.ok("POST", "/v1/services", Some(json!({"name": "shop"}))).await;
    host.ok("POST", "/v1/services/shop/sqlite/databases", Some(json!({"name": "DB"}))).await;
    let of = |count: usize| json!(vec![1; count]);
    let batch = |statements: usize| json!({"statements": vec![json!({"sql": "select 1", "params": of(30_000)}); statements]});
    assert_eq!(refused(&host, batch(20)).await, "host_busy");
    assert_eq!(refused(&host, json!({"sql": "select 1", "params": of(32_767)})).await, "invalid_request");
    let many = json!({"statements": vec![json!({"sql": ""}); 20_000]});
    assert_eq!(refused(&host, many).await, "sqlite_query_failed");
    // What was taken was given back.
    for _ in 0..20 {
        let read = query(&host, &format!("select {}", vec!["?"; 500].join(",")), of(500)).await;
        assert_eq!(read["columns"].as_array().unwrap().len(), 500);
    }
}
