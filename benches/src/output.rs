//! What a benchmark leaves behind: raw results as JSON lines, and a report in Markdown on standard output and beside them.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use tovuk_kernel::clock::Clock;

use crate::{guests, machine};

/// The folder of results.
pub fn folder() -> PathBuf {
    guests::repository().join("target/bench")
}

/// A report that grows by sections.
pub struct Report {
    markdown: String,
    began_unix_s: u64,
}

impl Report {
    /// Begins with the machine and the command.
    pub fn begin() -> Self {
        let began_unix_s = Clock::system().now_unix_ms() / 1000;
        let command: Vec<_> = std::env::args().skip(1).collect();
        let markdown = format!("`bench {}`, version {}, {}.\n", command.join(" "), env!("CARGO_PKG_VERSION"), machine::description());
        Self { markdown, began_unix_s }
    }

    /// Adds text.
    pub fn add(&mut self, text: &str) {
        self.markdown.push('\n');
        self.markdown.push_str(text);
        if !text.ends_with('\n') {
            self.markdown.push('\n');
        }
    }

    /// Opens a file of raw results: this one, or one in the folder of results.
    pub fn raw(&self, path: Option<&Path>, kind: &str) -> anyhow::Result<Raw> {
        let path = path.map_or_else(|| folder().join(format!("{kind}-{}.jsonl", self.began_unix_s)), Path::to_owned);
        Raw::create(path)
    }

    /// Prints the report and keeps it.
    pub fn finish(self, kind: &str) -> anyhow::Result<()> {
        let path = folder().join(format!("{kind}-{}.md", self.began_unix_s));
        create(&path)?.write_all(self.markdown.as_bytes()).with_context(|| path.display().to_string())?;
        println!("{}", self.markdown);
        eprintln!("kept in {}", path.display());
        Ok(())
    }
}

/// A file of JSON lines. Each line is written at once, so that an interrupted run keeps what it measured.
pub struct Raw {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Raw {
    fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = BufWriter::new(create(&path)?);
        Ok(Self { path, file })
    }

    /// Adds a result.
    pub fn add(&mut self, result: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(result)?;
        line.push(b'\n');
        self.file.write_all(&line).and_then(|()| self.file.flush()).with_context(|| self.path.display().to_string())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn create(path: &Path) -> anyhow::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    File::create(path).with_context(|| path.display().to_string())
}

/// A Markdown table: its head, then its rows. The first column is text, the others are numbers.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|---{}|\n", head.join(" | "), "|---:".repeat(head.len().saturating_sub(1)));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// A number with as many digits as mean something; a dash for none.
pub fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value.abs() >= 100.0 => thousands(value),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |digits| ("-", digits));
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_large_ones_are_grouped() {
        let texts: Vec<_> = [0.123, 9.876, 12.34, 123.4, 1234.5, 1_234_567.0, -1234.0, f64::NAN].into_iter().map(number).collect();
        assert_eq!(texts, ["0.12", "9.88", "12.3", "123", "1,234", "1,234,567", "-1,234", "–"]);
    }

    #[test]
    fn a_table_has_a_rule_for_every_column() {
        assert_eq!(table(&["case", "µs"], &[vec!["hello".to_owned(), "1".to_owned()]]), "| case | µs |\n|---|---:|\n| hello | 1 |\n");
    }
}
