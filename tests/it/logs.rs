//! What workers print.

use crate::host;

#[tokio::test]
async fn lines_are_whole_and_named_by_their_stream() {
    let host = host().await;
    host.deploy("logs", "log", |service| service.public()).await;
    host.get("logs", "/").await;
    host.observed.line("without an end").await;
    let lines = host.observed.lines();
    let of = |stream: &str| lines.iter().filter(|line| line.starts_with(stream)).cloned().collect::<Vec<_>>();
    assert_eq!(
        of("stdout"),
        [
            "stdout: out: a line",
            "stdout: out: half a line, and the rest",
            "stdout: out: two lines",
            "stdout: in one write",
            "stdout: out: a line without an end"
        ]
    );
    assert_eq!(of("stderr"), ["stderr: err: a line", "stderr: err: half a line, and the rest"]);
}

#[tokio::test]
async fn a_long_line_is_cut_and_does_not_swallow_the_next() {
    let host = host().await;
    host.deploy("logs", "log", |service| service.public()).await;
    host.get("logs", "/long").await;
    host.observed.line("after the long line").await;
    let lines = host.observed.lines();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with("… (cut)"));
    assert_eq!(lines[0].matches('x').count(), 256 << 10);
}

#[tokio::test]
async fn the_log_facade_and_bytes_that_are_no_text() {
    let host = host().await;
    host.deploy("logs", "log", |service| service.public()).await.deploy("verbose", "log", |service| service.public().env("TOVUK_LOG", "trace")).await;
    host.get("logs", "/facade").await;
    host.observed.line("ERROR log: facade error").await;
    assert!(!host.observed.lines().iter().any(|line| line.contains("DEBUG")));
    host.get("verbose", "/facade").await;
    host.observed.line("TRACE").await;
    host.get("logs", "/bytes").await;
    host.observed.line("\u{fffd}").await;
}
