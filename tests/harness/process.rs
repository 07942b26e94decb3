//! The program as a process: started as its users start it, read line by line, and ended with the test. Nothing here knows what the lines mean,
//! but for where `tovuk dev` says that it listens.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::watch;

use crate::client::{Client, Reply};
use crate::guests::{component, repository};

/// How long a line may take: a cold build of a worker with its dependencies, on a machine that builds others at the same time.
const LINE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a program may take to end once it was asked to. A test that fails has to end, too.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// The program with these arguments, in an environment that says nothing of its settings. Workers that it builds share one target folder, so that
/// their dependencies are built once.
pub fn tovuk(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("TOVUK_"))) {
        command.env_remove(name);
    }
    command.env_remove("RUSTFLAGS").env("CARGO_TARGET_DIR", repository().join("target/guests-dev"));
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The folder of a project.
pub struct Project {
    path: PathBuf,
    /// Removes the folder with this value.
    _temporary: Option<tempfile::TempDir>,
}

impl Project {
    /// A project with these files: path and text. It is gone with this value.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let project = Self { path: folder.path().to_owned(), _temporary: Some(folder) };
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// An empty folder that is at the same place in each run. Cargo, to which the same place means the same package, then overwrites what it built
    /// the last time instead of adding to it.
    pub fn kept(name: &str) -> Self {
        let path = repository().join("target/tmp/projects").join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::create_dir_all(&path).unwrap();
        Self { path, _temporary: None }
    }

    /// Adds the component of a guest.
    pub fn with_guest(self, path: &str, guest: &str) -> Self {
        self.write(path, component(guest));
        self
    }

    /// Writes a file as editors do, in one step.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let draft = path.with_extension("tmp");
        std::fs::write(&draft, content).unwrap();
        std::fs::rename(&draft, &path).unwrap();
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What a program has said, on both streams, and how it has ended.
#[derive(Default)]
struct Said {
    lines: Vec<String>,
    ended: Option<ExitStatus>,
}

/// A program that runs. Dropping it ends it.
///
/// It stays in the process group of the test, so that whatever interrupts the test reaches it as well.
pub struct Program {
    pid: Pid,
    said: watch::Receiver<Said>,
    /// Lines before this one have been waited for.
    mark: usize,
    /// Closed once the program has ended.
    ended: std::sync::mpsc::Receiver<()>,
}

impl Program {
    /// Starts a command.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        let (sender, said) = watch::channel(Said::default());
        let (running, ended) = std::sync::mpsc::channel();
        let readers = [read(child.stdout.take().unwrap(), sender.clone()), read(child.stderr.take().unwrap(), sender.clone())];
        std::thread::spawn(move || {
            // Everything that was said is there before the end is told.
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            let status = child.wait().unwrap();
            sender.send_modify(|said| said.ended = Some(status));
            drop(running);
        });
        Self { pid, said, mark: 0, ended }
    }

    /// Waits for the next line that holds all these parts. The one after it is the first that later calls look at.
    pub async fn line(&mut self, parts: &[&str]) -> String {
        let (at, line) = self.find(parts).await;
        self.mark = at + 1;
        line
    }

    /// Waits for a line that holds all these parts, among those that no call of `line` has passed. Calls find them in any order.
    pub async fn any_line(&mut self, parts: &[&str]) -> String {
        self.find(parts).await.1
    }

    async fn find(&mut self, parts: &[&str]) -> (usize, String) {
        let mark = self.mark;
        let has_all = |line: &str| parts.iter().all(|part| line.contains(part));
        let search = |said: &Said| said.lines.iter().cloned().enumerate().skip(mark).find(|(_, line)| has_all(line));
        let wait = self.said.wait_for(|said| search(said).is_some() || said.ended.is_some());
        let found = tokio::time::timeout(LINE_TIMEOUT, wait).await.ok().and_then(|said| search(&said.unwrap()));
        found.unwrap_or_else(|| panic!("no line with {parts:?} after line {mark} of:\n{}", self.text()))
    }

    /// Everything that it has said so far.
    pub fn text(&self) -> String {
        self.said.borrow().lines.join("\n")
    }

    /// Its process id.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits until it has ended, and everything that writes to its streams with it.
    pub async fn ended(&mut self) -> ExitStatus {
        let wait = self.said.wait_for(|said| said.ended.is_some());
        let status = tokio::time::timeout(END_TIMEOUT, wait).await.ok().and_then(|said| said.unwrap().ended);
        status.unwrap_or_else(|| panic!("it has not ended, or has left something running; it said:\n{}", self.text()))
    }
}

fn read(pipe: impl Read + Send + 'static, said: watch::Sender<Said>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let line = String::from_utf8_lossy(&line.unwrap()).into_owned();
            said.send_modify(|said| said.lines.push(line));
        }
    })
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.said.borrow().ended.is_some() {
            return;
        }
        // Asked first, because it then ends the builds that it runs. Signals fail when it has just ended by itself.
        let _ = kill_process(self.pid, Signal::TERM);
        if self.ended.recv_timeout(END_TIMEOUT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(self.pid, Signal::KILL);
        }
    }
}

/// `tovuk dev`, once it serves.
pub struct Dev {
    /// The process.
    pub program: Program,
    client: Client,
    port: u16,
}

impl Dev {
    /// Runs the project in this folder on a free port, and waits until everything was built once.
    pub async fn start(program: &str, directory: &Path) -> Self {
        Self::of(tovuk(program, &["dev", directory.to_str().unwrap(), "--listen", "127.0.0.1:0"])).await
    }

    /// The same by a command of the test's own. One service at least must have an address.
    pub async fn of(command: Command) -> Self {
        let mut program = Program::start(command);
        let ready = program.line(&["ready ", "http://", ".localhost:"]).await;
        let digits: String = ready.split(".localhost:").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
        let port = digits.parse().unwrap();
        program.line(&["watching for changes"]).await;
        Self { program, client: Client::new(([127, 0, 0, 1], port).into()), port }
    }

    /// The address that it listens at.
    pub fn client(&self) -> Client {
        self.client
    }

    /// The beginning of a request to a service.
    pub fn request(&self, service: &str, path: &str) -> http::request::Builder {
        Request::builder().uri(path).header("host", format!("{service}.localhost:{}", self.port))
    }

    /// A GET, whole.
    pub async fn get(&self, service: &str, path: &str) -> Reply {
        self.client.whole(self.request(service, path).body(Full::<Bytes>::default()).unwrap()).await
    }

    /// Asks until the answer is this text, again after each deploy: one change can be told in two steps, of which each is built.
    pub async fn answers(&mut self, service: &str, path: &str, text: &str) {
        while self.get(service, path).await.body != text.as_bytes() {
            self.program.line(&["built "]).await;
        }
    }

    /// Waits for the next line that holds all these parts.
    pub async fn line(&mut self, parts: &[&str]) -> String {
        self.program.line(parts).await
    }
}
