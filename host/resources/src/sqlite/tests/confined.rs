//! Attacks: what would lead out of the database's file, or change what is the host's, is refused, and says so.

use super::*;

/// Statements that are refused, each before it does anything.
const REFUSED: &[&str] = &[
    "attach database '/tmp/tovuk-escape.db' as other",
    "attach ':memory:' as other",
    "attach ? as other",
    "ATTACH '' AS x",
    "detach main",
    "vacuum",
    "/* x */ VACUUM into '/tmp/tovuk-escape.db'",
    "-- x\n ; vacuum main into '/tmp/tovuk-escape.db'",
    "select load_extension('/lib/x86_64-linux-gnu/libc.so.6')",
    "select fts3_tokenizer('simple')",
    "select fts5('x')",
    "pragma writable_schema = on",
    "pragma writable_schema",
    "pragma journal_mode = delete",
    "pragma journal_mode = off",
    "pragma synchronous = off",
    "pragma main.synchronous(0)",
    "pragma foreign_keys = off",
    "pragma max_page_count = 1000000",
    "pragma page_size = 512",
    "pragma auto_vacuum = none",
    "pragma query_only = off",
    "pragma temp_store_directory = '/tmp'",
    "pragma data_store_directory = '/tmp'",
    "pragma locking_mode = exclusive",
    "pragma mmap_size = 1000000000",
    "pragma cache_size = 1000000",
    "pragma cache_spill = off",
    "pragma wal_autocheckpoint = 0",
    "pragma wal_checkpoint(truncate)",
    "pragma trusted_schema = on",
    "pragma temp_store = memory",
    "pragma secure_delete = on",
    "pragma recursive_triggers = on",
    "pragma ignore_check_constraints = on",
    "pragma legacy_alter_table = on",
    "pragma schema_version = 5",
    "pragma application_id = 5",
    "pragma soft_heap_limit = 1",
    "pragma hard_heap_limit = 1",
    "pragma threads = 8",
    "pragma busy_timeout = 100000",
    "pragma analysis_limit = 1",
    "pragma shrink_memory",
    "pragma database_list",
    "pragma lock_status",
    "select * from pragma_database_list",
    "update sqlite_schema set sql = 'x'",
    "delete from sqlite_master",
    "insert into sqlite_schema values ('table', 'x', 'x', 2, 'create table x (y)')",
    "drop table sqlite_schema",
    "create table sqlite_x (y)",
    "create virtual table v using fts3(body)",
    "create virtual table v using fts4(body)",
    "create virtual table v using rtree(a, b, c)",
    "create virtual table v using csv(filename = '/etc/passwd')",
    "create virtual table v using dbstat(main)",
    "create virtual table temp.v using fts5(body)",
    "select * from dbstat",
    "select * from sqlite_dbpage",
    "select * from sqlite_stmt",
    "select * from fts3tokenize('simple', 'x')",
    "select json_patch('{}', '{}')",
    "select unhex('00', ' ')",
    "select readfile('/etc/passwd')",
    "select writefile('/tmp/tovuk-escape.db', 'x')",
    "begin",
    "begin exclusive",
    "commit",
    "rollback",
    "end",
    "savepoint x",
    "release x",
    "create temp table t (x)",
    "create temporary view v as select 1",
    "create temp trigger x after insert on notes begin select 1; end",
    "insert into _tovuk_migrations values (1, 'x', 'y', 2)",
    "delete from _tovuk_migrations",
    "update _TOVUK_migrations set digest = 'x'",
    "drop table _tovuk_migrations",
    "alter table _tovuk_migrations rename to x",
    "create trigger x after insert on _tovuk_migrations begin select 1; end",
    "create table _tovuk_x (y)",
];

/// Statements that work.
const ALLOWED: &[&str] = &[
    "create table if not exists other (id integer primary key autoincrement, body text check (json_valid(body)))",
    "insert into other (body) values (json('{\"a\": [1, 2]}'))",
    "select value from other, json_each(body, '$.a')",
    "select body ->> '$.a[0]', jsonb(body), json_group_array(id) over () from other",
    "create virtual table words using fts5(body, tokenize = 'porter unicode61', prefix = '2 3')",
    "insert into words values ('running wild')",
    "select highlight(words, 0, '<', '>'), bm25(words) from words where words match 'run'",
    "create virtual table vocabulary using fts5vocab(words, 'row')",
    "select * from vocabulary",
    "insert into words (words) values ('optimize')",
    "pragma table_info(notes)",
    "pragma table_xinfo('notes')",
    "pragma index_list(notes)",
    "pragma foreign_keys",
    "pragma foreign_key_list(notes)",
    "pragma foreign_key_check",
    "pragma user_version",
    "pragma user_version = 5",
    "pragma page_count",
    "pragma integrity_check",
    "pragma quick_check(notes)",
    "pragma defer_foreign_keys = on",
    "pragma incremental_vacuum(10)",
    "pragma optimize",
    "pragma journal_mode",
    "select * from pragma_table_info('notes')",
    "select name from sqlite_schema",
    "analyze",
    "reindex",
    "explain query plan select * from notes",
    "create view recent as select * from notes order by id desc",
    "create trigger audit after insert on notes begin insert into other (body) values ('1'); end",
    "alter table notes add column created integer",
    "alter table notes rename column created to made",
    "alter table notes drop column made",
    "select name from _tovuk_migrations",
    "select sqrt(2), datetime('now'), hex(randomblob(4)), soundex('x')",
    "drop table words",
    "select * from notes where body like '%x%' or author glob 'x*'",
];

#[tokio::test]
async fn nothing_leads_out_of_the_file() {
    let fixture = Fixture::with_notes(10).await;
    fixture.store.migrate(NUMBER, free(), Vec::new()).await.unwrap();
    let schema = fixture.value("select group_concat(sql) from sqlite_schema").await;
    for sql in REFUSED {
        let params = if sql.contains('?') { vec![text("/tmp/tovuk-escape.db")] } else { Vec::new() };
        let alone = fixture.store.query(NUMBER, free(), Statement::new(*sql, params.clone())).await;
        assert!(matches!(alone, Err(Error::Forbidden(_) | Error::Query(_))), "{sql}: {alone:?}");
        // With a write beside it, so that it reaches the connection that writes.
        let batch = vec![sql_only("insert into notes (author) values ('x')"), Statement::new(*sql, params.clone())];
        let batch = fixture.store.batch(NUMBER, free(), batch).await;
        assert!(matches!(batch, Err(Error::Forbidden(_) | Error::Query(_))), "{sql}: {batch:?}");
        let transaction = fixture.store.begin(NUMBER, free()).await.unwrap();
        assert!(transaction.query(Statement::new(*sql, params)).await.is_err(), "{sql}");
        transaction.rollback().await.unwrap();
        assert!(fixture.store.stream(NUMBER, free(), sql_only(sql)).await.is_err(), "{sql}");
        let migration = Migration { name: "attack".to_owned(), sql: (*sql).to_owned() };
        // A migration may switch foreign keys off for itself; what they say is checked before its commit.
        let migrated = fixture.store.migrate(NUMBER, free(), vec![migration]).await;
        assert!(migrated.is_err() || sql.contains("foreign_keys"), "{sql}");
    }
    assert!(!std::path::Path::new("/tmp/tovuk-escape.db").exists());
    assert_eq!(fixture.value("select group_concat(sql) from sqlite_schema").await, schema);
    assert_eq!(fixture.count("notes").await, 10);
    assert_eq!(fixture.value("pragma journal_mode").await, text("wal"));
    assert_eq!(fixture.value("pragma foreign_keys").await, Value::Integer(1));
    assert_eq!(fixture.value("pragma integrity_check").await, text("ok"));
}

#[tokio::test]
async fn the_reason_says_what_to_use_in_its_place() {
    let fixture = Fixture::with_notes(1).await;
    for (sql, word) in [
        ("begin", "batch"),
        ("pragma foreign_keys = off", "defer_foreign_keys"),
        ("vacuum", "incremental_vacuum"),
        ("create temp table t (x)", "WITH"),
        ("create virtual table v using rtree(a, b, c)", "fts5"),
    ] {
        let Err(error @ Error::Forbidden(_)) = fixture.run(sql).await else { panic!("{sql}") };
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(error.code().code, "sqlite_forbidden");
    }
}

#[tokio::test]
async fn what_tenants_need_works() {
    let fixture = Fixture::with_notes(10).await;
    fixture.store.migrate(NUMBER, free(), Vec::new()).await.unwrap();
    for sql in ALLOWED {
        let result = fixture.run(sql).await;
        assert!(result.is_ok(), "{sql}: {result:?}");
    }
}

#[tokio::test]
async fn every_virtual_table_of_the_library_is_known() {
    let fixture = Fixture::new().await;
    let modules = fixture.run("select name from pragma_module_list where name not like 'pragma_%' order by name").await.unwrap();
    let names: Vec<_> = modules.results[0].rows.iter().map(|row| row[0].clone()).collect();
    // A new version of the library that brings another one has to be looked at.
    let known = [
        "bytecode",
        "dbstat",
        "fts3",
        "fts3tokenize",
        "fts4",
        "fts4aux",
        "fts5",
        "fts5vocab",
        "json_each",
        "json_tree",
        "rtree",
        "rtree_i32",
        "tables_used",
    ];
    for name in names {
        assert!(known.map(text).contains(&name), "{name:?}");
    }
}
