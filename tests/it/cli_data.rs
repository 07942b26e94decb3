//! The commands of databases and objects as documents have them, against a host whose clock stands where the documents' dates lie ahead.

use serde_json::json;
use tovuk_kernel::clock::Clock;
use tovuk_tests::Operator;

use crate::TOVUK;

/// 31 May 2026, 00:00 UTC.
const THEN_UNIX_MS: u64 = 1_780_185_600_000;

async fn host() -> Operator {
    let host = Operator::with_clock(TOVUK, Clock::advanceable_at(THEN_UNIX_MS)).await;
    host.line("tovuk service create app").ok();
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_sqlite_run_verbatim() {
    let host = host().await;
    let made = host.line("tovuk sqlite create --service service_1 DB --json").ok().json();
    assert_eq!(made["sqliteDatabases"][0]["name"], "DB");
    let one = host.line("tovuk sqlite query --service service_1 DB \"select 1\" --json").ok().json();
    assert_eq!(one["rows"], json!([{"1": 1}]));
    for figure in ["rowsRead", "rowsWritten", "vmSteps", "fullscanSteps", "storageBytes", "durationMs"] {
        assert!(one[figure].is_number(), "{figure}: {one}");
    }
    host.line("tovuk sqlite backup create --service service_1 DB --json").ok();
    let backups = host.line("tovuk sqlite backup list --service service_1 DB --json").ok().json();
    assert_eq!(backups["backups"][0]["id"], "sqlite_backup_1", "{backups}");
    host.line("tovuk sqlite query --service service_1 DB \"create table later (id)\" --json").ok();
    host.line("tovuk sqlite backup restore --service service_1 DB sqlite_backup_1 --json").ok();
    let tables = host.line("tovuk sqlite query --service service_1 DB \"select name from sqlite_schema where name = 'later'\" --json").ok().json();
    assert_eq!(tables["rows"], json!([]));
    let left = host.line("tovuk sqlite delete --service service_1 DB --json").ok().json();
    assert_eq!(left["sqliteDatabases"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_objects_run_verbatim() {
    let host = host().await;
    let logo = host.data.join("logo.png");
    std::fs::write(&logo, b"\x89PNG a logo").unwrap();
    let sent = host.line("tovuk storage upload --service service_1 ./logo.png uploads/logo.png --public --json").ok().json();
    assert_eq!(sent["path"], "uploads/logo.png", "{sent}");
    let listed = host.line("tovuk storage list --service service_1 --json").ok().json();
    assert_eq!((&listed["objects"][0]["path"], &listed["objects"][0]["sizeBytes"]), (&json!("uploads/logo.png"), &json!(11)));
    std::fs::remove_file(&logo).unwrap();
    host.line("tovuk storage download --service service_1 uploads/logo.png ./logo.png --json").ok();
    assert_eq!(std::fs::read(&logo).unwrap(), b"\x89PNG a logo");
    let deleted = host.line("tovuk storage delete --service service_1 uploads/logo.png --json").ok().json();
    assert_eq!(deleted["deleted"], json!(true), "{deleted}");
}
