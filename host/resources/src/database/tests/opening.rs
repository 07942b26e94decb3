//! What opening a file does and refuses.

use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn migrations_are_applied_once_each_and_in_order() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("test.db");
    let first = ["CREATE TABLE a (id INTEGER PRIMARY KEY)", "INSERT INTO a DEFAULT VALUES"];
    let second = [first[0], first[1], "ALTER TABLE a RENAME TO b; INSERT INTO b DEFAULT VALUES"];
    let of = |table: &'static str| {
        move |connection: &Connection| Ok::<i64, Error>(connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
    };
    for _ in 0..2 {
        let database = Database::open(&path, &first, Options::new(MARK)).unwrap();
        assert_eq!(database.read(of("a")).await.unwrap(), 1);
        database.close().await.unwrap();
    }
    for _ in 0..2 {
        let database = Database::open(&path, &second, Options::new(MARK)).unwrap();
        assert_eq!(database.read(of("b")).await.unwrap(), 2);
        database.close().await.unwrap();
    }
    let older = Database::open(&path, &first, Options::new(MARK)).err().unwrap();
    assert!(matches!(older, Error::Newer { found: 3, known: 2, .. }), "{older}");
}

#[tokio::test]
async fn a_failed_migration_leaves_the_file_as_it_was() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("test.db");
    let broken = [MIGRATIONS[0], "CREATE TABLE half (id INTEGER PRIMARY KEY); INSERT INTO nowhere VALUES (1)"];
    let error = Database::open(&path, &broken, Options::new(MARK)).err().unwrap();
    assert!(matches!(error, Error::Migration { number: 2, .. }), "{error}");
    let dangling = [MIGRATIONS[0], "CREATE TABLE refers (note INTEGER NOT NULL REFERENCES notes (id)); INSERT INTO refers VALUES (7)"];
    let error = Database::open(&path, &dangling, Options::new(MARK)).err().unwrap();
    assert!(error.to_string().contains("a row of refers refers to one that is not there"), "{error}");
    let database = open(&folder);
    let tables: i64 = database
        .read(|connection| Ok::<_, Error>(connection.query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| row.get(0))?))
        .await
        .unwrap();
    assert_eq!(tables, 1);
}

#[tokio::test]
async fn the_file_of_another_store_is_refused_untouched() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("test.db");
    open(&folder).close().await.unwrap();
    let error = Database::open(&path, MIGRATIONS, Options::new(*b"else")).err().unwrap();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    std::fs::write(&path, "this is no database, but it is somebody's text").unwrap();
    let error = Database::open(&path, MIGRATIONS, Options::new(MARK)).err().unwrap();
    assert!(matches!(error, Error::Open { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "this is no database, but it is somebody's text");
    let error = Database::open(&folder.path().join("missing/test.db"), MIGRATIONS, Options::new(MARK)).err().unwrap();
    assert!(matches!(error, Error::File { .. }), "{error}");
}

#[tokio::test]
async fn only_the_user_of_the_host_can_read_the_files() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("test.db");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let database = open(&folder);
    database.write(|tx| insert(tx, "private")).await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.file_name());
        files += 1;
    }
    assert_eq!(files, 3, "the database, its log and the log's index");
}

#[tokio::test]
async fn references_are_enforced() {
    let folder = TempDir::new().unwrap();
    let migrations = [MIGRATIONS[0], "CREATE TABLE refers (note INTEGER NOT NULL REFERENCES notes (id))"];
    let database = Database::open(&folder.path().join("test.db"), &migrations, Options::new(MARK)).unwrap();
    let dangling = database.write(|tx| Ok::<_, Error>(tx.execute("INSERT INTO refers VALUES (7)", [])?)).await;
    assert!(dangling.unwrap_err().to_string().contains("FOREIGN KEY"));
}
