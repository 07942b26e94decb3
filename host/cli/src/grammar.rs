//! The whole grammar of the command line: what `args` declares, and below it what the table of operations has. It also says what is wrong with a command
//! line in the shape in which everything else is said.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, CommandFactory};
use serde_json::json;

use crate::args::Cli;
use crate::failure::Failure;
use crate::{remote, words};

/// The command with all its subcommands.
pub fn command() -> Command {
    remote::tree().add_to(Cli::command()).mut_subcommand("storage", crate::storage::add_to)
}

/// What a command line, the program's name first, says by this grammar.
pub fn matches(line: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    let command = command();
    let line = words::first(&command, line);
    command.try_get_matches_from(line)
}

/// What to do where no service is named.
const MISSING_SERVICE: &str = "Add `--service <name>`: `tovuk service list` shows the names.";

/// A command line that cannot be understood, for programs.
pub fn failure(error: &clap::Error) -> Failure {
    let context = |kind: ContextKind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let code = match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => "unknown_command",
        ErrorKind::UnknownArgument => "unknown_argument",
        ErrorKind::MissingRequiredArgument if context(ContextKind::InvalidArg).iter().any(|argument| argument.starts_with("--service")) => {
            "missing_service"
        }
        ErrorKind::MissingRequiredArgument => "missing_argument",
        _ => "invalid_argument",
    };
    let text = error.to_string();
    let message = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let mut failure = Failure::local(code, message.trim_start_matches("error: "));
    let suggested: Vec<_> = context(ContextKind::SuggestedSubcommand).into_iter().chain(context(ContextKind::SuggestedArg)).collect();
    // The nearest comes last.
    failure = match suggested.last() {
        _ if code == "missing_service" => failure.instruct(MISSING_SERVICE),
        Some(word) => failure.instruct(format!("Did you mean `{word}`? `--help` shows all that there is.")),
        None => failure.instruct("Add `--help` to the command to see what it takes."),
    };
    failure.details.insert("suggestions".to_owned(), json!(suggested));
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_example_of_the_table_is_understood() {
        for registered in tovuk_server::control::api::operations() {
            for example in registered.operation.commands.iter().flat_map(|command| command.examples) {
                let words = shlex::split(example).unwrap();
                let matches = command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{example}: {error}"));
                let (rows, inner) = remote::find(&matches).unwrap_or_else(|| panic!("{example} is none of the table"));
                let names: Vec<_> = rows.iter().map(|row| row.operation.name).collect();
                assert!(names.contains(&registered.operation.name), "{example} runs {names:?}");
                if let Err(failure) = remote::request(rows, inner) {
                    // A folder of the example's own is not there.
                    assert!(failure.to_string().contains("cannot be read"), "{example}: {failure}");
                }
            }
        }
    }

    #[test]
    fn scripts_of_the_published_client_are_understood() {
        for (line, service) in [
            ("tovuk --service s binding list", "s"),
            ("tovuk binding --service s create X t", "s"),
            ("tovuk --json deploy --service=s list", "s"),
            ("tovuk account show --limit 5 --cursor x", ""),
            ("tovuk account --limit 5", ""),
        ] {
            let matches = matches(line.split(' ').map(OsString::from).collect()).unwrap_or_else(|error| panic!("{line}: {error}"));
            let (rows, inner) = remote::find(&matches).unwrap();
            let (_, call) = remote::request(rows, inner).unwrap_or_else(|failure| panic!("{line}: {failure}"));
            assert_eq!(call.target.split('/').nth(3).unwrap_or_default(), service, "{line}");
        }
        for line in ["tovuk new", "tovuk deploy --no-database", "tovuk deploy --database"] {
            matches(line.split(' ').map(OsString::from).collect()).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        let version = matches(vec!["tovuk".into(), "-v".into()]).unwrap_err();
        assert_eq!(version.kind(), ErrorKind::DisplayVersion);
        let help = command().render_long_help().to_string() + &crate::reference();
        assert!(!help.contains("-database`") && !help.contains("-v,"), "{help}");
    }

    #[test]
    fn every_command_says_what_it_does_and_shows_its_use() {
        fn visit(command: &Command, path: &str, silent: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            if command.get_about().is_none_or(|about| about.to_string().is_empty()) {
                silent.push(path.clone());
            }
            command.get_subcommands().for_each(|inner| visit(inner, &path, silent));
        }
        let mut silent = Vec::new();
        visit(&command(), "", &mut silent);
        assert!(silent.is_empty(), "{silent:?}");
    }

    #[test]
    fn what_is_mistyped_gets_the_nearest() {
        let error = |line: &str| failure(&command().try_get_matches_from(line.split(' ')).unwrap_err());
        let mistyped = error("tovuk servic list");
        assert_eq!(mistyped.code, "unknown_command");
        assert!(mistyped.agent_instruction.unwrap().contains("`service`"));
        assert_eq!(error("tovuk service list --jsn").code, "unknown_argument");
        assert_eq!(error("tovuk env list").code, "missing_service");
        assert_eq!(error("tovuk binding create --service s").code, "missing_argument");
    }
}
