//! A test in a process of its own that is killed in the middle: what the tests of all stores have in common that look at what is left afterwards.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Whether tests run at their full size: set `TOVUK_SOAK=1`.
pub(crate) fn full_size() -> bool {
    std::env::var_os("TOVUK_SOAK").is_some()
}

/// Runs the ignored test of this name with these variables, and kills its process once so many of its lines counted. `counts` is given every line that it
/// writes to standard error, also what it had written before it died, and says which count. Fails when the process ended before.
pub(crate) fn run_until_killed(test: &str, variables: &[(&str, &OsStr)], lines_before_kill: usize, mut counts: impl FnMut(&str) -> bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut seen, mut rest) = (0, Vec::new());
    // The last line may have been cut off.
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if counts(&line) {
            seen += 1;
            if seen == lines_before_kill {
                child.kill().unwrap();
            }
        } else {
            // Such as why it has panicked.
            rest.push(line);
        }
    }
    child.wait().unwrap();
    assert!(seen >= lines_before_kill, "{test} ended after {seen} of {lines_before_kill} lines, and said: {}", rest.join("\n"));
}

/// Says a line to the process that may kill this one.
pub(crate) fn say(line: &str) {
    // Not `println!`, which the test harness may capture; and in one write, or the kill could come in the middle of a line.
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
