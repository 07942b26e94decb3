//! `tovuk serve` as a process, and the client as its users run it against that host. Each client has a home of its own, so that what it stores is the test's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::client::{Client, Reply};
use crate::process::{Program, run, tovuk};

/// A host that serves.
pub struct Serve {
    /// The process.
    pub program: Program,
    /// The folder with its data.
    pub data: PathBuf,
    /// Where its API is.
    pub api: String,
    binary: String,
    public: SocketAddr,
    folder: tempfile::TempDir,
}

/// What a command has said, and how it has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ran {
    /// What it printed, as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it complained of, as JSON.
    pub fn failure(&self) -> serde_json::Value {
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same, once it is certain that it has ended well.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The same, once it is certain that it was refused.
    pub fn refused(self) -> Self {
        assert_eq!(self.code, 1, "{self:?}");
        self
    }
}

impl Serve {
    /// Starts a host with a folder of its own.
    pub async fn start(binary: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self::of(binary, folder, data, &[]).await
    }

    /// Starts one with the data of this, which has ended, and more arguments.
    pub async fn again(self, more: &[&str]) -> Self {
        Self::of(&self.binary, self.folder, self.data, more).await
    }

    async fn of(binary: &str, folder: tempfile::TempDir, data: PathBuf, more: &[&str]) -> Self {
        let fixed = ["serve", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--data", data.to_str().unwrap()];
        let mut program = Program::start(tovuk(binary, &[&fixed, more].concat()));
        let public = program.line(&["services ", "(at "]).await;
        let api = program.line(&["api ", "http"]).await;
        program.line(&["is ready"]).await;
        let public = public.split("(at ").nth(1).unwrap().trim_end_matches(')').parse().unwrap();
        let api = api.split_whitespace().nth(1).unwrap().to_owned();
        Self { program, data, api, binary: binary.to_owned(), public, folder }
    }

    /// Ends the host as an operator does.
    pub async fn stop(&mut self) -> ExitStatus {
        self.program.signal(rustix::process::Signal::TERM);
        self.program.ended().await
    }

    /// Where the public is served.
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// The operator's token.
    pub fn token(&self) -> String {
        std::fs::read_to_string(self.data.join("admin-token")).unwrap().trim().to_owned()
    }

    /// The home of the client's user.
    pub fn home(&self) -> &Path {
        self.folder.path()
    }

    /// The client without a token, in its own home.
    pub fn anonymous(&self, arguments: &[&str]) -> Command {
        let mut command = tovuk(&self.binary, arguments);
        command.env("HOME", self.home()).env_remove("XDG_CONFIG_HOME").env("TOVUK_API_BASE_URL", &self.api).current_dir(self.home());
        command
    }

    /// Runs the client as the operator.
    pub fn cli(&self, arguments: &[&str]) -> Ran {
        let mut command = self.anonymous(arguments);
        command.env("TOVUK_TOKEN", self.token());
        ran(command)
    }

    /// The same with a command line as it stands in documents.
    pub fn line(&self, line: &str) -> Ran {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words.first(), Some(&"tovuk"), "{line}");
        self.cli(&words[1..])
    }

    /// A GET of a service, whole.
    pub async fn get(&self, service: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let request = Request::builder().uri(path).header("host", format!("{service}.localhost:{}", self.public.port()));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        Client::new(self.public).whole(request.body(Full::<Bytes>::default()).unwrap()).await
    }
}

/// Runs a command to its end.
pub fn ran(command: Command) -> Ran {
    let output = run(command);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}
