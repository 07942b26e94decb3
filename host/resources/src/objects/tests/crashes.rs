//! A process that is killed while it stores: what it was answered is there afterwards and whole, and nothing else is left. The process is this test
//! program, run once more.

use super::*;
use crate::killing::{run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_OBJECTS_FOLDER";
const ROUNDS: &str = "TOVUK_TEST_OBJECTS_ROUNDS";
const CALLERS: u64 = 6;
const ANSWERS_BEFORE_KILL: usize = 40;

async fn open(folder: &Path) -> Objects {
    Objects::open(folder.join("objects.db"), &Place::Folder(folder.join("objects")), Clock::system()).await.unwrap()
}

/// The content of the object of that path, which says its size and seed.
fn content(path: &str) -> Vec<u8> {
    let mut numbers = path.rsplit('/').map(|number| number.parse::<u64>().unwrap_or_default());
    let (seed, size) = (numbers.next().unwrap(), numbers.next().unwrap());
    pattern(size as usize, seed)
}

fn answered(path: &str) {
    say(&format!("answered {path}"));
}

/// Stores until it is killed: small and large objects, in one step and in parts, and deletes every third.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn stores_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let objects = open(&folder).await;
    let callers = (0..CALLERS).map(|caller| {
        let objects = objects.clone();
        tokio::spawn(async move {
            for number in 0_u64.. {
                let size = [0, 1, 5_000, 1_500_000, 5 * MIB + 9][(number % 5) as usize];
                let path = format!("{}/{caller}/{size}/{number}", std::process::id());
                if size > 5 * MIB {
                    let upload = objects.begin_multipart(TENANT, new(&path, size), Some(5 * MIB as u64)).await.unwrap();
                    let mut parts = Vec::new();
                    for (part, bytes) in upload.parts.iter().zip(content(&path).chunks(5 * MIB)) {
                        let etag = objects.receive(SERVICE, upload.id, part.number, None, body(bytes.to_vec())).await.unwrap().etag;
                        parts.push(CompletedPart { number: part.number, etag });
                    }
                    objects.complete_multipart(SERVICE, &path, upload.id, parts).await.unwrap();
                } else {
                    let put = PutObject { path: path.clone(), content_type: String::new(), size_bytes: None, public_read: false };
                    objects.put(TENANT, put, body(content(&path))).await.unwrap();
                }
                answered(&path);
                if number % 3 == 0 {
                    answered(&format!("begin-delete {path}"));
                    objects.delete(SERVICE, &path).await.unwrap();
                    answered(&format!("deleted {path}"));
                }
            }
        })
    });
    futures::future::join_all(callers.collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_the_death_of_the_process() {
    let folder = TempDir::new().unwrap();
    let rounds: usize = std::env::var(ROUNDS).ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    let mut total = 0;
    for round in 0..rounds {
        let (mut stored, mut deleting, mut deleted) = (Vec::new(), Vec::new(), Vec::new());
        let variables = [(FOLDER, folder.path().as_os_str())];
        run_until_killed("objects::tests::crashes::stores_until_killed", &variables, ANSWERS_BEFORE_KILL + round % 7, |line| {
            let Some(text) = line.strip_prefix("answered ") else { return false };
            match text.split_once(' ') {
                Some(("begin-delete", path)) => deleting.push(path.to_owned()),
                Some((_, path)) => deleted.push(path.to_owned()),
                None => stored.push(text.to_owned()),
            }
            true
        });
        total += stored.len();
        check(folder.path(), &stored, &deleting, &deleted).await;
    }
    eprintln!("{rounds} kills, {total} objects answered, none lost");
}

async fn check(folder: &Path, stored: &[String], deleting: &[String], deleted: &[String]) {
    let objects = open(folder).await;
    for path in stored.iter().filter(|path| !deleting.contains(path)) {
        objects.head(SERVICE, path, Reader::Granted).await.unwrap_or_else(|error| panic!("{path} was answered: {error}"));
    }
    for path in deleted {
        assert!(objects.head(SERVICE, path, Reader::Granted).await.is_err(), "{path} was deleted");
    }
    let mut ready = 0;
    let mut pages = Box::pin(objects.list_all(SERVICE, String::new(), None));
    while let Some(page) = pages.next().await {
        for object in page.unwrap().objects.into_iter().filter(|object| object.status == Status::Ready) {
            let opened = objects.open_object(SERVICE, &object.path, Reader::Granted, &Conditions::default(), Range::Whole).await.unwrap();
            let Download::Content(found) = opened else { panic!("nothing was asked") };
            assert!(read(found).await.unwrap() == content(&object.path), "{} is not what was stored", object.path);
            ready += 1;
        }
    }
    assert_eq!(objects.usage(SERVICE).await.unwrap().objects, ready);
    // After the sweep, the files are those that rows name, and no half-written one is left.
    objects.sweep().await.unwrap();
    let mut files = Vec::new();
    walk(&folder.join("objects"), &mut files);
    let rows = |connection: &rusqlite::Connection| {
        let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let segments: usize = connection.query_row("SELECT count(*) FROM segments", [], |row| row.get::<_, i64>(0)).map(|count| count as usize)?;
        let garbage: i64 = connection.query_row("SELECT count(*) FROM garbage", [], |row| row.get(0))?;
        Ok::<_, Error>((integrity, segments, garbage))
    };
    assert_eq!(objects.0.database.read(rows).await.unwrap(), ("ok".to_owned(), files.len(), 0));
    objects.remove_service(SERVICE).await.unwrap();
    objects.close().await.unwrap();
}
