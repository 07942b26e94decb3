//! A process that is killed while it writes: what it was answered is there afterwards. The process is this test program, run once more.

use std::sync::Arc;

use super::*;
use crate::killing::{run_until_killed, say};

const FOLDER: &str = "TOVUK_TEST_DATABASE_FOLDER";
const CALLERS: usize = 8;
const ANSWERS_BEFORE_KILL: usize = 300;

/// Writes until it is killed, and prints each text once it was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test below, in a process of its own"]
async fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let database = Database::open(&std::path::Path::new(&folder).join("test.db"), MIGRATIONS, Options::new(MARK)).unwrap();
    let database = Arc::new(database);
    let callers = (0..CALLERS).map(|caller| {
        let database = database.clone();
        tokio::spawn(async move {
            for number in 0.. {
                let text = format!("{}-{caller}-{number}", std::process::id());
                let (first, second) = (format!("{text}-a"), format!("{text}-b"));
                database.write(move |tx| insert(tx, &first).and_then(|_| insert(tx, &second))).await.unwrap();
                say(&format!("answered {text}"));
            }
        })
    });
    join_all(callers).await;
}

#[tokio::test]
async fn what_was_answered_survives_the_death_of_the_process() {
    let folder = TempDir::new().unwrap();
    let mut answered = Vec::new();
    for _ in 0..3 {
        let variables = [(FOLDER, folder.path().as_os_str())];
        run_until_killed("database::tests::killed::writes_until_killed", &variables, ANSWERS_BEFORE_KILL, |line| {
            let text = line.strip_prefix("answered ");
            answered.extend(text.map(str::to_owned));
            text.is_some()
        });
    }
    let stored = open(&folder).read(texts).await.unwrap();
    for text in &answered {
        for half in ["a", "b"] {
            assert!(stored.binary_search(&format!("{text}-{half}")).is_ok(), "{text}-{half} was answered and is gone");
        }
    }
    let halves = stored.iter().filter(|text| text.ends_with("-a")).count();
    assert_eq!(halves * 2, stored.len(), "what was not answered is there wholly or not at all");
}
