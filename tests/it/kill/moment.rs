//! Moments at which a host is killed, and what has to hold of its files right after.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tovuk_resources::database::rusqlite::Connection;
use tovuk_tests::{Served, component_body, saying};
use walkdir::WalkDir;

use crate::TOVUK;

/// How many answers there were.
pub struct Answers(watch::Sender<u64>);

impl Answers {
    /// None so far.
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// One more.
    pub fn add(&self) {
        self.0.send_modify(|answers| *answers += 1);
    }

    /// Waits for so many, from now on.
    async fn wait(&self, count: u64) {
        let mut answers = self.0.subscribe();
        let goal = *answers.borrow() + count;
        let _ = answers.wait_for(|answers| *answers >= goal).await.unwrap();
    }
}

/// Kills the host at the moment, looks at its files, and starts it again. `working` ends when the host is gone.
pub async fn kill_at(moment: Moment, mut host: Served, answers: &Answers, mut working: JoinHandle<()>) -> Served {
    let stop = Arc::new(AtomicBool::new(false));
    tokio::select! {
        () = moment.wait(&host, answers, stop.clone()) => {}
        ended = &mut working => {
            stop.store(true, Ordering::Relaxed);
            panic!("nobody works any more: {ended:?}; the host said:\n{}", host.program.text());
        }
    }
    host.kill().await;
    working.await.unwrap();
    assert_whole(&host.data);
    Served::start(TOVUK, &host.data).await
}

/// What the end of a host waits for.
#[derive(Debug)]
pub enum Moment {
    /// So many answers of the API.
    Answers(u64),
    /// So many changes of what is on disk.
    Changes(u32),
    /// So many answers, and then so many bytes of a deploy that are sent.
    Bytes(u64, usize),
}

impl Moment {
    /// A moment by chance.
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(0..4) {
            0 => Self::Answers(random.u64(1..60)),
            1 => Self::Bytes(random.u64(1..60), random.usize(1..60_000)),
            _ => Self::Changes(random.u32(1..120)),
        }
    }

    /// Waits for it. `stop` ends what would wait for ever.
    async fn wait(self, host: &Served, answered: &Answers, stop: Arc<AtomicBool>) {
        match self {
            Self::Answers(count) => answered.wait(count).await,
            Self::Changes(count) => {
                let data = host.data.clone();
                tovuk_kernel::threads::spawn_blocking(move || changes(&data, count, &stop)).await.unwrap();
            }
            Self::Bytes(answers, count) => {
                answered.wait(answers).await;
                let body = component_body("half", &saying("other"), json!({}), "").to_string();
                let head = format!(
                    "POST /v1/deploy HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
                    host.api,
                    host.token,
                    body.len()
                );
                let request = (head + &body).into_bytes();
                let mut stream = TcpStream::connect(host.api).await.unwrap();
                stream.write_all(&request[..count.min(request.len())]).await.unwrap();
            }
        }
    }
}

/// Looks at what is on disk until it has changed so many times.
fn changes(data: &Path, mut count: u32, stop: &AtomicBool) {
    let entries = |folder: &str| std::fs::read_dir(data.join(folder)).map_or(0, Iterator::count);
    let length = |file: &str| std::fs::metadata(data.join(file)).map_or(0, |metadata| metadata.len());
    let logs = || ["control", "logs", "objects", "sqlite/1", "kv/01"].map(|name| length(&format!("{name}.db-wal")));
    let look = || (["uploads", "artifacts", "assets", "objects"].map(entries), logs());
    let mut before = look();
    while count > 0 && !stop.load(Ordering::Relaxed) {
        std::thread::yield_now();
        let now = look();
        count -= u32::from(now != before);
        before = now;
    }
}

/// The databases of a host that does not run are whole. Copies are looked at, so that it is the host which has to bring them back.
pub fn assert_whole(data: &Path) {
    let copies = tempfile::tempdir().unwrap();
    let files =
        WalkDir::new(data).into_iter().map(Result::unwrap).filter(|entry| entry.path().extension().is_some_and(|extension| extension == "db"));
    for (number, file) in files.enumerate() {
        let copy = copies.path().join(format!("{number}.db"));
        for suffix in ["", "-wal"] {
            let with = |path: &Path| format!("{}{suffix}", path.display());
            if Path::new(&with(file.path())).exists() {
                std::fs::copy(with(file.path()), with(&copy)).unwrap();
            }
        }
        let database = Connection::open(&copy).unwrap();
        let said: String = database.query_row("pragma integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(said, "ok", "{}", file.path().display());
        let dangling = database.prepare("pragma foreign_key_check").unwrap().exists([]).unwrap();
        assert!(!dangling, "{} has rows that refer to nothing", file.path().display());
    }
}
