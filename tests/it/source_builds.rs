//! Source that the host compiles in its sandbox, and what hostile builds can do there: a tiny worker is built with a `build.rs` that attacks. Where this machine
//! grants no namespaces, every test asserts that building is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tovuk_kernel::clock::Clock;
use tovuk_kernel::project::Service;
use tovuk_server::build::sandbox::{Resource, SandboxConfig, SandboxError};
use tovuk_server::build::{Built, Job, build_source, probe};
use tovuk_tests::Project;

const MANIFEST: &str = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[lib]\ncrate-type = [\"cdylib\"]\n";

/// A sandbox, a source folder and a place for what is built.
struct Builder {
    config: SandboxConfig,
    project: Project,
    output: tempfile::TempDir,
    lines: Mutex<Vec<String>>,
    cancel: CancellationToken,
    /// What to do when this text is printed.
    on_line: Option<OnLine>,
}

type OnLine = (&'static str, Box<dyn Fn()>);

impl Builder {
    async fn new(files: &[(&str, &str)]) -> Self {
        let config = SandboxConfig::with_program(crate::TOVUK.into(), Clock::advanceable()).await.unwrap();
        let output = tempfile::tempdir().unwrap();
        Self { config, project: Project::new(files), output, lines: Mutex::default(), cancel: CancellationToken::new(), on_line: None }
    }

    /// A worker whose build script does this. `say` prints a line of the build.
    async fn attacking(script: &str) -> Self {
        let script = format!("#![allow(unused)]\nuse std::{{fs, io, net, process, thread}};\nuse std::io::Write;\nfn main() {{\n{script}\n}}\n");
        Self::new(&[("Cargo.toml", MANIFEST), ("src/lib.rs", ""), ("build.rs", &script)]).await
    }

    async fn run(&self, service: &str) -> Result<Built, SandboxError> {
        let parsed = tovuk_kernel::project::parse(&format!("[services.tiny]\n{service}")).unwrap().project;
        let service: &Service = &parsed.services["tiny"];
        let output = self.output.path().join("built");
        let job = Job { name: "tiny", service, source: self.project.path(), output: &output };
        let log = |line: &str| {
            self.lines.lock().unwrap().push(line.to_owned());
            if let Some((_, act)) = self.on_line.as_ref().filter(|(text, _)| line.contains(text)) {
                act();
            }
        };
        build_source(&self.config, job, log, &self.cancel).await
    }

    /// Runs the build of a worker. Nothing where this machine grants no namespaces: then it must be refused for that reason.
    async fn build(&self) -> Option<Result<Built, SandboxError>> {
        let result = self.run("kind = \"rust_worker\"").await;
        if probe(&self.config).await.is_ok() {
            return Some(result);
        }
        assert!(
            matches!(&result, Err(error @ SandboxError::Unavailable { .. }) if error.code().unwrap().code == "build_sandbox_unavailable"),
            "{result:?}"
        );
        None
    }

    /// The build has to fail; gives its error and everything that it has printed.
    async fn fails(&self) -> Option<(SandboxError, String)> {
        let error = self.build().await?.unwrap_err();
        Some((error, self.text()))
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}

fn exceeded(error: &SandboxError) -> Option<Resource> {
    match error {
        SandboxError::Exceeded { what, .. } => Some(*what),
        _ => None,
    }
}

/// Processes of this machine whose command line holds a text.
fn processes_with(text: &str) -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path().join("cmdline"));
    all.filter(|path| fs::read(path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))).collect()
}

#[tokio::test]
async fn a_worker_without_dependencies_becomes_a_component_and_its_output_is_passed_on() {
    let builder = Builder::attacking("println!(\"cargo::warning=script ran\");").await;
    let Some(result) = builder.build().await else { return };
    let built = result.unwrap_or_else(|error| panic!("{error}\n{}", builder.text()));
    let component = fs::read(built.component.unwrap()).unwrap();
    // The magic number, and the version that tells a component from a module.
    assert_eq!(component[..8], [0, b'a', b's', b'm', 0x0d, 0, 1, 0]);
    assert_eq!(built.assets, None);
    assert!(builder.text().contains("script ran") && builder.text().contains("Finished"), "{}", builder.text());
    assert!(!builder.project.path().join("target").exists(), "the host's copy of the source is untouched");
    let version = probe(&builder.config).await.unwrap();
    assert!(version.starts_with("cargo "), "{version}");
}

#[tokio::test]
async fn static_files_come_back_without_links_and_secrets_among_them_are_refused() {
    let builder = Builder::new(&[("web/index.html", "hello")]).await;
    let copy =
        "build = \"sh -c 'mkdir -p dist/a && cp web/index.html dist/a/ && ln -s /etc/passwd dist/link && mkfifo dist/pipe'\"\nassets = \"dist\"";
    match builder.run(copy).await {
        Err(SandboxError::Unavailable { .. }) => return,
        built => {
            let folder = built.unwrap().assets.unwrap();
            assert_eq!(fs::read_to_string(folder.join("a/index.html")).unwrap(), "hello");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
            assert!(builder.text().contains("dist/link is not a regular file"), "{}", builder.text());
        }
    }
    let cases = [
        ("build = \"sh -c 'mkdir dist; echo x > dist/.env'\"\nassets = \"dist\"", "assets/.env"),
        ("build = \"sh -c 'ln -s /usr/bin dist'\"\nassets = \"dist\"", "leads out of the project"),
        ("build = \"sh -c true\"\nassets = \"dist\"", "is not there"),
        ("build = \"npm-nowhere run build\"\nassets = \"dist\"", "`npm-nowhere` is not there"),
        ("build = \"sh -c 'echo oops; exit 3'\"\nassets = \"dist\"", "exit code 3"),
        ("root = \"nowhere\"\nassets = \"dist\"", "no folder `nowhere`"),
    ];
    for (service, expected) in cases {
        let builder = Builder::new(&[("web/index.html", "hello")]).await;
        let error = builder.run(service).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{service}: {error}");
    }
}

/// Prints `name=ok` or `name=<error>` for attempts, and fails the build so that cargo shows what was printed.
fn attempts(attempts: &[(&str, String)]) -> String {
    let print = |(name, code): &(&str, String)| {
        format!("println!(\"attempt {name}={{}}\", match {code} {{ Ok(_) => \"ok\".to_owned(), Err(e) => e.to_string() }});")
    };
    attempts.iter().map(print).chain(["process::exit(9);".to_owned()]).collect::<Vec<_>>().join("\n")
}

fn outcomes(text: &str) -> BTreeMap<String, String> {
    let of = |line: &str| line.trim().strip_prefix("attempt ")?.split_once('=').map(|(name, outcome)| (name.to_owned(), outcome.to_owned()));
    text.lines().filter_map(of).collect()
}

#[tokio::test]
async fn nothing_of_the_machine_is_within_reach() {
    let secret = tempfile::tempdir().unwrap();
    fs::write(secret.path().join("data.db"), "secret").unwrap();
    let read = |path: &str| format!("fs::read({path:?})");
    let own_pid = std::process::id();
    let script = attempts(&[
        ("shadow", read("/etc/shadow")),
        ("data", read(secret.path().join("data.db").to_str().unwrap())),
        ("root_home", "fs::read_dir(\"/root\")".to_owned()),
        ("host_proc", read(&format!("/proc/{own_pid}/cmdline"))),
        ("init_memory", read("/proc/1/mem")),
        ("init_program", read("/proc/1/exe")),
        ("init_environment", read("/proc/1/environ")),
        ("init_pipe", "fs::OpenOptions::new().write(true).open(\"/proc/1/fd/1\")".to_owned()),
        ("write_usr", "fs::write(\"/usr/x\", \"\")".to_owned()),
        ("write_toolchain", "fs::write(\"/toolchain/x\", \"\")".to_owned()),
        ("write_sysctl", "fs::write(\"/proc/sys/user/max_user_namespaces\", \"100\")".to_owned()),
        ("write_null", "fs::write(\"/dev/null\", \"x\")".to_owned()),
        ("sys", "fs::read_dir(\"/sys/kernel\")".to_owned()),
        ("connect", "net::TcpStream::connect(\"1.1.1.1:80\")".to_owned()),
        ("listen", "net::TcpListener::bind(\"127.0.0.1:0\")".to_owned()),
        ("datagram", "net::UdpSocket::bind(\"127.0.0.1:0\")".to_owned()),
        ("disk", "fs::File::open(\"/dev/vda\")".to_owned()),
    ]);
    let builder = Builder::attacking(&script).await;
    let Some((error, text)) = builder.fails().await else { return };
    assert!(matches!(&error, SandboxError::Failed { command, .. } if command.starts_with("cargo build")), "{error}");
    let outcomes = outcomes(&text);
    assert_eq!(outcomes.len(), 17, "{text}");
    for (name, outcome) in outcomes {
        assert_eq!(outcome == "ok", name == "write_null", "{name}: {outcome}");
    }
}

#[tokio::test]
async fn no_privilege_can_be_had_back_and_other_processes_are_out_of_reach() {
    let command = |line: &str| {
        format!(
            "process::Command::new(\"sh\").args([\"-c\", {line:?}]).output().map_err(|e| e.to_string()).and_then(|o| if o.status.success() {{ Ok(()) }} else {{ Err(format!(\"{{}}\", o.status)) }})"
        )
    };
    let script = format!(
        "let status = fs::read_to_string(\"/proc/self/status\").unwrap();
         for line in status.lines().filter(|l| [\"Cap\", \"NoNewPrivs\", \"Seccomp:\"].iter().any(|p| l.starts_with(p))) {{ println!(\"status {{line}}\"); }}
         println!(\"environment {{:?}}\", std::env::vars().filter(|(k, _)| k.contains(\"TOVUK\") || k.contains(\"TOKEN\")).collect::<Vec<_>>());
         println!(\"open {{:?}}\", fs::read_dir(\"/proc/self/fd\").unwrap().flatten().map(|e| fs::read_link(e.path())).collect::<Vec<_>>().len());
         {}",
        attempts(&[
            ("kill_init", command("kill -9 1 && sleep 0.1 && false")),
            ("kill_host", command(&format!("kill -9 {}", std::process::id()))),
            ("user_namespace", command("unshare -Ur true")),
            ("mount", command("mount -t tmpfs x /tmp")),
            ("chroot", command("chroot / true")),
            ("trace", command("strace -p 1 2>/dev/null || gdb -p 1 -batch 2>/dev/null || false")),
            ("background", "process::Command::new(\"sleep\").arg(\"86399\").stdout(process::Stdio::null()).stderr(process::Stdio::null()).spawn()".to_owned()),
        ])
    );
    let builder = Builder::attacking(&script).await;
    let Some((_, text)) = builder.fails().await else { return };
    let outcomes = outcomes(&text);
    for (name, outcome) in &outcomes {
        assert_eq!(outcome == "ok", name == "background", "{name}: {outcome}\n{text}");
    }
    assert_eq!(outcomes.len(), 7, "{text}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(text.contains(&format!("status {set}:\t0000000000000000")), "{set}\n{text}");
    }
    assert!(text.contains("status NoNewPrivs:\t1") && text.contains("status Seccomp:\t2") && text.contains("environment []"), "{text}");
    assert_eq!(processes_with("sleep\u{0}86399"), Vec::<PathBuf>::new(), "what a build leaves running ends with it");
}

#[tokio::test]
async fn builds_that_use_too_much_are_ended_with_the_reason() {
    let bomb = "loop { let _ = process::Command::new(\"sleep\").arg(\"1000\").spawn(); }";
    let memory = "let mut all = Vec::new(); loop { all.push(vec![1_u8; 16 << 20]); }";
    let disk = "let mut n = 0; loop { if fs::write(format!(\"/tmp/{n}\"), vec![1_u8; 4 << 20]).is_err() { process::exit(1); } n += 1; }";
    let files = "let mut n = 0; loop { if fs::write(format!(\"/tmp/{n}\"), \"\").is_err() { process::exit(1); } n += 1; }";
    let threads = "loop { thread::Builder::new().spawn(|| loop { thread::park() }).ok(); }";
    let spin = "loop {}";
    let cases = [
        (bomb, Resource::Processes),
        (threads, Resource::Processes),
        (memory, Resource::Memory),
        (disk, Resource::Disk),
        (files, Resource::Disk),
        (spin, Resource::Cpu),
    ];
    for (script, what) in cases {
        let mut builder = Builder::attacking(script).await;
        let limits = &mut builder.config.limits;
        (limits.memory_bytes, limits.disk_bytes, limits.disk_files, limits.processes, limits.cpu_seconds) = (512 << 20, 256 << 20, 5_000, 64, 8);
        let Some((error, text)) = builder.fails().await else { return };
        assert_eq!(exceeded(&error), Some(what), "{script}: {error}\n{text}");
        assert!(error.to_string().contains("the build was ended because it"), "{error}");
    }
}

#[tokio::test]
async fn hidden_memory_cannot_be_had() {
    // Memory files are refused, and shared memory is counted with files.
    let script = attempts(&[(
        "shm",
        "(|| { let mut f = fs::File::create(\"/dev/shm/x\")?; let piece = vec![1_u8; 1 << 20]; for _ in 0..512 { f.write_all(&piece)?; } Ok::<(), io::Error>(()) })()".to_owned(),
    )]);
    let mut builder = Builder::attacking(&script).await;
    builder.config.limits.disk_bytes = 256 << 20;
    let Some((error, text)) = builder.fails().await else { return };
    assert_eq!(exceeded(&error), Some(Resource::Disk), "{error}\n{text}");
    assert!(outcomes(&text)["shm"].contains("No space left"), "{text}");
}

#[tokio::test]
async fn a_build_that_does_not_end_is_ended_on_time_with_all_its_processes() {
    let script = "process::Command::new(\"setsid\").args([\"sleep\", \"86398\"]).spawn().unwrap(); println!(\"cargo::warning=x\"); io::stderr().write_all(b\"\"); loop { thread::park() }";
    let mut builder = Builder::attacking(script).await;
    let (clock, wall) = (builder.config.clock.clone(), Duration::from_millis(builder.config.limits.wall_ms));
    // Cargo says this when it starts to compile the package, and then runs the script.
    builder.on_line = Some(("Compiling", Box::new(move || assert!(clock.advance(wall)))));
    let Some((error, text)) = builder.fails().await else { return };
    assert_eq!(exceeded(&error), Some(Resource::Wall), "{error}\n{text}");
    assert_eq!(processes_with("sleep\u{0}86398"), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_cancelled_build_ends() {
    let mut builder = Builder::attacking("loop { thread::park() }").await;
    let cancel = builder.cancel.clone();
    builder.on_line = Some(("Compiling", Box::new(move || cancel.cancel())));
    let Some((error, text)) = builder.fails().await else { return };
    assert!(matches!(error, SandboxError::Cancelled), "{error}\n{text}");
    assert!(!builder.output.path().join("built").exists());
}

#[tokio::test]
async fn a_flood_of_output_is_cut() {
    let mut builder = Builder::new(&[("a.txt", "")]).await;
    builder.config.limits.log_lines = 100;
    let result = builder.run("build = \"sh -c 'seq 1 100000; exit 1'\"\nassets = \".\"").await;
    if matches!(result, Err(SandboxError::Unavailable { .. })) {
        return;
    }
    assert_eq!(result.unwrap_err().tail().last().unwrap(), "100000");
    let lines = builder.lines.lock().unwrap();
    assert_eq!(lines.len(), 100);
    assert!(lines.last().unwrap().contains("the rest of the output is dropped"), "{lines:?}");
}

#[tokio::test]
async fn dependencies_come_from_the_operators_cargo_folder_and_its_credentials_stay_there() {
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cargo"), PathBuf::from);
    let manifest = format!("{MANIFEST}[dependencies]\nhex = {{ version = \"=0.4.3\", default-features = false }}\n");
    let script = "fn main() { for path in [\"/cargo/credentials.toml\", \"/cargo/bin\"] { assert!(!std::fs::exists(path).unwrap()); } }";
    let source = "pub fn f() -> [u8; 1] { let mut b = [0]; hex::decode_to_slice(\"0a\", &mut b).unwrap(); b }";
    let files: &[(&str, &str)] = &[("Cargo.toml", &manifest), ("src/lib.rs", source), ("build.rs", script)];
    let mut builder = Builder::new(files).await;
    builder.config.cargo_home = Some(cargo);
    let Some(result) = builder.build().await else { return };
    result.unwrap_or_else(|error| panic!("{error}\n{}", builder.text()));
    let without = Builder::new(files).await;
    let (error, text) = without.fails().await.unwrap();
    assert!(matches!(error, SandboxError::Failed { .. }) && text.contains("hex"), "{error}\n{text}");
}
