//! How problems of a project file are told: to people with the lines of the file they are in, to programs as the details of a failure.

use std::fmt;
use std::io::IsTerminal;
use std::path::Path;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use serde_json::{Value, json};
use tovuk_kernel::codes;
use tovuk_kernel::project::{Problem, Severity};

use super::LoadError;
use crate::failure::Failure;
use crate::output::{drives_terminal, one_line, printable};

impl LoadError {
    /// The whole message for a person, one or more lines.
    pub fn render(&self, style: Style) -> String {
        let message = printable(&self.to_string());
        match self {
            Self::Missing { .. } => {
                format!("error: {message}\n  help: make a project with `tovuk new <dir>`, or name the folder that has one, as in `tovuk dev <dir>`\n")
            }
            Self::Unreadable { .. } => format!("error: {message}\n  help: the file must be readable and UTF-8\n"),
            Self::Invalid { path, text, problems } => format!("{}{message}\n", render_problems(path, text, problems, style)),
        }
    }
}

/// The same for programs, with all problems and their places.
impl From<&LoadError> for Failure {
    fn from(error: &LoadError) -> Self {
        let message = error.to_string();
        match error {
            LoadError::Missing { .. } => {
                Self::local("missing_project", message).instruct("Make a project with `tovuk new <dir>`, or name the folder that has one.")
            }
            LoadError::Unreadable { .. } => Self::of(&codes::INVALID_CONFIG, message).instruct("Make the file readable and UTF-8."),
            LoadError::Invalid { path, text, problems } => {
                let mut failure = Self::of(&codes::INVALID_CONFIG, message);
                let problems = problems.iter().map(|problem| told(path, text, problem)).collect();
                failure.details.insert("problems".to_owned(), Value::Array(problems));
                failure
            }
        }
    }
}

fn told(path: &Path, text: &str, problem: &Problem) -> Value {
    let before = problem.span.as_ref().and_then(|span| text.get(..span.start));
    let line = before.map(|before| before.matches('\n').count() + 1);
    let column = before.map(|before| before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    json!({
        "severity": severity(problem), "message": problem.message, "help": problem.help, "key": problem.path, "file": path, "line": line, "column": column,
    })
}

fn severity(problem: &Problem) -> &'static str {
    match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

/// How many problems there are, in words.
pub(super) fn count(problems: &[Problem]) -> String {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let warnings = problems.len() - errors;
    let noun = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    if warnings == 0 { noun(errors, "error") } else { format!("{} and {}", noun(errors, "error"), noun(warnings, "warning")) }
}

/// How problems are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// With colours and lines drawn in Unicode.
    Fancy,
    /// In ASCII without colours, for logs and for other programs.
    Plain,
}

impl Style {
    /// What suits standard error: fancy on a terminal unless `NO_COLOR` is set.
    pub fn of_stderr() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stderr().is_terminal() && !no_color { Self::Fancy } else { Self::Plain }
    }
}

/// Shows problems one after another, each with `file:line:column`, the lines of the file it is in, and what to write instead.
pub(super) fn render_problems(path: &Path, text: &str, problems: &[Problem], style: Style) -> String {
    let theme = match style {
        Style::Fancy => GraphicalTheme::unicode(),
        Style::Plain => GraphicalTheme::none(),
    };
    // Messages are written for lines of any length; wrapping them to the terminal would break paths that are meant to be copied.
    let handler = GraphicalReportHandler::new_themed(theme).with_links(false).with_width(400).with_context_lines(1);
    let name = one_line(&path.strip_prefix(".").unwrap_or(path).display().to_string());
    let source = NamedSource::new(&name, harmless(text));
    let mut shown = String::new();
    for problem in problems {
        let diagnostic = Diagnostic { problem, source: &source };
        // Writing into a String cannot fail; should the handler give up, the bare message is still shown.
        if handler.render_report(&mut shown, &diagnostic).is_err() {
            shown.push_str(&printable(&problem.message));
        }
        shown.push('\n');
    }
    shown
}

/// The text without what could drive a terminal, each character replaced by one as long, so that places in it stay where they are.
fn harmless(text: &str) -> String {
    let mask = |letter: char| match letter.len_utf8() {
        1 => '?',
        2 => '¿',
        _ => char::REPLACEMENT_CHARACTER,
    };
    text.chars().map(|letter| if drives_terminal(letter) { mask(letter) } else { letter }).collect()
}

/// A problem as miette wants it.
#[derive(Debug)]
struct Diagnostic<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Diagnostic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", severity(self.problem), printable(&self.problem.message))
    }
}

impl std::error::Error for Diagnostic<'_> {}

impl miette::Diagnostic for Diagnostic<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(printable(help)) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.problem.span.is_some().then_some(self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.problem.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::underline(span))))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn colours_and_unicode_are_for_terminals_only() {
        let problem = Problem { severity: Severity::Error, message: "wrong".to_owned(), help: None, span: Some(0..1), path: String::new() };
        let plain = render_problems(Path::new("tovuk.toml"), "x = 1\n", std::slice::from_ref(&problem), Style::Plain);
        assert!(plain.is_ascii() && plain.contains("tovuk.toml:1:1"), "{plain}");
        let fancy = render_problems(Path::new("tovuk.toml"), "x = 1\n", &[problem], Style::Fancy);
        assert!(fancy.contains("\u{1b}[") && fancy.contains("tovuk.toml:1:1"), "{fancy}");
    }

    #[test]
    fn nothing_in_a_project_file_drives_the_terminal_and_its_problems_keep_their_places() {
        let text = "\"\\u001b[2J\" = 1 # \u{1b}[2J\u{9b}2J\u{202e}\nx = 1\n";
        let problems = tovuk_kernel::project::parse(text).unwrap_err();
        let error = LoadError::Invalid { path: PathBuf::from("a\u{1b}]0;x\u{7}/tovuk.toml"), text: text.to_owned(), problems };
        let shown = error.render(Style::Plain);
        assert!(!shown.chars().any(drives_terminal), "{shown:?}");
        let moved = Problem {
            severity: Severity::Error,
            message: String::new(),
            help: None,
            span: text.find("x = 1").map(|at| at..at + 1),
            path: String::new(),
        };
        let shown = render_problems(Path::new("tovuk.toml"), text, std::slice::from_ref(&moved), Style::Plain);
        assert!(shown.contains("tovuk.toml:2:1"), "{shown}");
        assert_eq!((&told(Path::new("f"), text, &moved)["line"], &told(Path::new("f"), text, &moved)["column"]), (&json!(2), &json!(1)));
    }

    #[test]
    fn a_program_gets_a_code_and_every_problem() {
        let missing = Failure::from(&LoadError::Missing { directory: PathBuf::from("x") });
        assert_eq!((missing.code.as_str(), missing.agent_instruction.is_some()), ("missing_project", true));
        let text = "[services.api]\nrout = [\"/*\"]\n";
        let problems = tovuk_kernel::project::parse(text).unwrap_err();
        let failure = Failure::from(&LoadError::Invalid { path: PathBuf::from("tovuk.toml"), text: text.to_owned(), problems }).to_json();
        assert_eq!(failure["code"], "invalid_config");
        let problem = &failure["problems"][0];
        assert_eq!((&problem["line"], &problem["column"], &problem["file"]), (&json!(2), &json!(1), &json!("tovuk.toml")));
        assert!(problem["message"].as_str().unwrap().contains("rout") && problem["help"].as_str().unwrap().contains("routes"), "{failure}");
    }
}
