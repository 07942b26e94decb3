//! The commands of databases, objects and State as documents have them, against a host whose clock stands where the documents' dates lie ahead.

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

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_commands_of_state_run_verbatim() {
    let host = host().await;
    let made = host.line("tovuk state create --service service_1 Room --json").ok().json();
    assert_eq!((&made["namespace"]["id"], &made["stateNamespaces"][0]["env"]), (&json!("state_namespace_1"), &json!("TOVUK_STATE_ROOM")));
    let listed = host.line("tovuk state list --service service_1 --json").ok().json();
    assert_eq!(listed["stateNamespaces"][0]["name"], "Room");
    assert_eq!(host.line("tovuk state objects --service service_1 Room --json").ok().json()["objects"], json!([]));
    assert_eq!(host.line("tovuk state keys --service service_1 Room room-1 --json").ok().json()["keys"], json!([]));
    let put = host.line("tovuk state put --service service_1 Room room-1 counter 1 --json").ok().json();
    assert_eq!((&put["ok"], &put["values"], &put["storageBytes"]), (&json!(true), &json!(1), &json!(8)));
    let read = host.line("tovuk state get --service service_1 Room room-1 counter --json").ok().json();
    assert_eq!(read, json!({"key": "counter", "value": "1", "encoding": "text"}));
    let keys = host.line("tovuk state keys --service service_1 Room room-1 --json").ok().json();
    assert_eq!(keys["keys"], json!([{"name": "counter", "valueBytes": 1}]));
    let set = host.line("tovuk state alarm set --service service_1 Room room-1 --delay-seconds 60 --json").ok().json();
    let at = set["alarm"]["scheduledAtUnixMs"].as_u64().unwrap();
    assert!((THEN_UNIX_MS + 60_000..THEN_UNIX_MS + 180_000).contains(&at), "{set}");
    let shown = host.line("tovuk state alarm get --service service_1 Room room-1 --json").ok().json();
    assert_eq!((&shown["alarm"]["scheduledAtUnixMs"], &shown["alarm"]["retryCount"]), (&json!(at), &json!(0)));
    let objects = host.line("tovuk state objects --service service_1 Room --json").ok().json();
    assert_eq!(objects["objects"], json!([{"name": "room-1", "values": 1, "storageBytes": 8, "alarmAtUnixMs": at}]));
    assert_eq!(host.line("tovuk state alarm delete --service service_1 Room room-1 --json").ok().json()["deleted"], json!(true));
    assert_eq!(host.line("tovuk state delete-value --service service_1 Room room-1 counter --json").ok().json()["deleted"], json!(true));
    let left = host.line("tovuk state delete --service service_1 Room --json").ok().json();
    assert_eq!(left["stateNamespaces"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_a_command_of_state_means_what_the_wire_says() {
    let host = host().await;
    host.line("tovuk state create Room --service app").ok();
    assert_eq!(host.line("tovuk state --service app --json").ok().json()["stateNamespaces"][0]["id"], "state_namespace_1");
    host.line("tovuk state put Room r words two words --service app").ok();
    host.line("tovuk state put Room r flag --value 'by flag' --service app").ok();
    host.line("tovuk state put Room a/b bytes AP8= --encoding base64 --service app").ok();
    for (object, key, value) in [("r", "words", "two words"), ("r", "flag", "by flag"), ("a/b", "bytes", "AP8=")] {
        assert_eq!(host.line(&format!("tovuk state get Room {object} {key} --service app --json")).ok().json()["value"], value);
    }
    let page = host.line("tovuk state keys Room r --prefix f --limit 1 --service app --json").ok().json();
    assert_eq!((&page["keys"][0]["name"], &page["has_more"]), (&json!("flag"), &json!(false)));
    let page = host.line("tovuk state objects Room --limit 1 --service app --json").ok().json();
    assert_eq!((&page["objects"][0]["name"], &page["has_more"]), (&json!("a/b"), &json!(true)));
    for form in ["1780272000000", "--value 1780272000000"] {
        let set = host.line(&format!("tovuk state alarm set Room r {form} --service app --json")).ok().json();
        assert_eq!(set["alarm"]["scheduledAt"], "2026-06-01T00:00:00.000Z", "{form}: {set}");
    }
    let shown = host.line("tovuk state alarm Room r --service app --json").ok().json();
    assert_eq!(shown["alarm"]["scheduledAtUnixMs"], 1_780_272_000_000_u64);
    assert_eq!(host.line("tovuk state alarm get Room none --service app --json").ok().json(), json!({"alarm": null}));
    assert_eq!(host.line("tovuk state alarm get Room none --service app").ok().stdout, "no alarm\n");
    assert_eq!(host.line("tovuk state delete-object Room r --service app --json").ok().json()["deleted"], json!(true));
    for (line, code) in [
        ("tovuk state get Room r none", "state_key_not_found"),
        ("tovuk state alarm set Room r", "state_alarm_schedule_required"),
        ("tovuk state alarm set Room r 5 --delay-seconds 5", "state_alarm_schedule_conflict"),
        ("tovuk state alarm set Room r 253402300800000", "state_alarm_invalid"),
        ("tovuk state keys Nope r", "resource_not_found"),
        ("tovuk state keys Room r --limit 1001", "invalid_request"),
        ("tovuk state objects Room --cursor '!'", "invalid_cursor"),
    ] {
        assert_eq!(host.line(&format!("{line} --service app --json")).refused().failure()["code"], code, "{line}");
    }
}
