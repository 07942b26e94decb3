//! `tovuk serve` as a process: its settings, what it says, how it ends, and that what was deployed is there when it starts again.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use tovuk_tests::{Project, Serve, ran, tovuk};

use crate::TOVUK;

fn deploy(host: &Serve, name: &str, guest: &str) {
    let toml = format!("[services.{name}]\ncomponent = \"w.wasm\"\nroutes = [\"/*\"]\n");
    let project = Project::new(&[("tovuk.toml", &toml)]).with_guest("w.wasm", guest);
    host.cli(&["deploy", project.path().to_str().unwrap()]).ok();
}

#[tokio::test]
async fn the_token_lies_in_a_file_and_is_said_nowhere() {
    let mut host = Serve::start(TOVUK).await;
    let token = host.token();
    assert!(token.starts_with("tovuk_") && !host.program.text().contains(&token));
    assert!(host.program.text().contains("admin-token"));
    assert_eq!(std::fs::metadata(host.data.join("admin-token")).unwrap().permissions().mode() & 0o777, 0o600);
    let second = ran(tovuk(TOVUK, &["serve", "--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--data", host.data.to_str().unwrap()]));
    assert!(second.refused().stderr.contains("another tovuk uses the data folder"));
    assert!(host.stop().await.success());
    assert!(host.program.text().ends_with("stopped"), "{}", host.program.text());
}

#[tokio::test]
async fn what_was_deployed_answers_after_a_restart_with_settings_from_a_file() {
    let mut host = Serve::start(TOVUK).await;
    deploy(&host, "hello", "hello");
    assert!(host.stop().await.success());
    let settings = host.data.with_file_name("settings.toml");
    std::fs::write(&settings, "node = \"from-the-file\"\ndrain_timeout = \"1s\"\nlisten = \"192.0.2.1:1\"\n").unwrap();
    // The file's address cannot be listened at; the flag goes before it.
    let host = host.again(&["--config", settings.to_str().unwrap()]).await;
    assert_eq!(host.get("hello", "/", &[]).await.text(), "hello");
    assert!(host.line("tovuk nodes").ok().stdout.contains("from-the-file"));
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_by_name() {
    let project = Project::new(&[("settings.toml", "public_domian = \"x\"\n")]);
    let serve = |arguments: &[&str]| {
        let mut command = tovuk(TOVUK, &[&["serve"], arguments].concat());
        command.current_dir(project.path());
        ran(command).refused().stderr
    };
    assert!(serve(&["--config", "settings.toml"]).contains("did you mean `public_domain`?"));
    assert!(serve(&["--tls-cert", "cert.pem"]).contains("--tls-key"));
    assert!(serve(&["--api-listen", "0.0.0.0:0"]).contains("--insecure-api"));
    assert!(serve(&["--listen", "nowhere"]).contains("--listen"));
    assert!(serve(&["--drain-timeout", "soon"]).contains("30s"));
    assert!(!project.path().join("tovuk-data").exists(), "what is refused leaves nothing behind");
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut host = Serve::start(TOVUK).await;
    deploy(&host, "sink", "sink");
    // A request whose body never ends keeps the host draining.
    let mut stream = TcpStream::connect(host.public()).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nhost: sink.localhost:{}\r\ncontent-length: 100\r\n\r\n", host.public().port()).unwrap();
    // The answer to a later request shows that the host has read the earlier one.
    assert!(host.get("sink", "/", &[]).await.status.as_u16() < 600);
    host.program.signal(Signal::TERM);
    host.program.line(&["stopping"]).await;
    host.program.signal(Signal::INT);
    let status = host.program.ended().await;
    assert_eq!(status.code(), Some(1), "{}", host.program.text());
    assert!(host.program.text().ends_with("stopped at once"));
}
