//! Puts the words of a command line before its flags: whoever types `tovuk --service shop binding list` names the same command as with the flag at the
//! end, while clap gives a flag to the word that it follows. What the flags mean is decided by the grammar, of which only one thing is asked here: whether
//! the next word is a flag's value.

use std::ffi::OsString;

use clap::{Arg, Command};

/// Flags that are the command.
const VERSION: [&str; 3] = ["--version", "-V", "-v"];

/// The same command line with the words of its command first. What is after them keeps its order.
pub fn first(root: &Command, line: Vec<OsString>) -> Vec<OsString> {
    let mut tokens = line.into_iter().peekable();
    let mut words: Vec<OsString> = tokens.next().into_iter().collect();
    let mut flags = Vec::new();
    let mut command = root;
    while let Some(token) = tokens.peek().and_then(|token| token.to_str()).filter(|token| *token != "--" && !VERSION.contains(token)) {
        if token.starts_with('-') {
            let named = values(root, command, token);
            flags.extend(tokens.next());
            let next = tokens.peek().and_then(|next| next.to_str()).filter(|next| !next.starts_with("--"));
            // A flag with which one command takes a value and another does not has none where a command follows.
            let is_value = next.is_some_and(|next| named.takes && (!named.stands_alone || command.find_subcommand(next).is_none()));
            flags.extend(tokens.next_if(|_| is_value));
        } else {
            let Some(inner) = command.find_subcommand(token) else { break };
            command = inner;
            words.extend(tokens.next());
        }
    }
    words.into_iter().chain(flags).chain(tokens).collect()
}

/// What the commands below one say of a flag's value.
#[derive(Default)]
struct Values {
    takes: bool,
    stands_alone: bool,
}

fn values(root: &Command, command: &Command, flag: &str) -> Values {
    let Some(name) = flag.strip_prefix("--").filter(|name| !name.contains('=')) else { return Values::default() };
    let mut values = Values::default();
    // Those of the root are of every command.
    visit(command, &mut |argument| note(argument, name, &mut values));
    root.get_arguments().for_each(|argument| note(argument, name, &mut values));
    values
}

fn note(argument: &Arg, name: &str, values: &mut Values) {
    if argument.get_long() == Some(name) || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name)) {
        let takes = argument.get_action().takes_values() && argument.get_num_args().is_none_or(|count| count.min_values() > 0);
        values.takes |= takes;
        values.stands_alone |= !takes;
    }
}

fn visit(command: &Command, visitor: &mut impl FnMut(&Arg)) {
    command.get_arguments().for_each(&mut *visitor);
    command.get_subcommands().for_each(|inner| visit(inner, visitor));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(line: &str) -> String {
        let line = line.split(' ').map(OsString::from).collect();
        first(&crate::grammar::command(), line).into_iter().map(|token| token.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_before_and_between_the_words_are_put_behind_them() {
        for (typed, meant) in [
            ("tovuk --service s binding list", "tovuk binding list --service s"),
            ("tovuk binding --service s create X --target t", "tovuk binding create --service s X --target t"),
            (
                "tovuk --json operator --api=http://h account --plan pro create acme",
                "tovuk operator account create --json --api=http://h --plan pro acme",
            ),
            ("tovuk deploy --service s list", "tovuk deploy list --service s"),
            ("tovuk --service env env list", "tovuk env list --service env"),
            ("tovuk --build check .", "tovuk check --build ."),
            ("tovuk --build job_1 logs", "tovuk logs --build job_1"),
            ("tovuk --remote-build deploy .", "tovuk deploy --remote-build ."),
        ] {
            assert_eq!(ordered(typed), meant);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for line in [
            "tovuk",
            "tovuk --version",
            "tovuk -v service",
            "tovuk deploy ./folder list",
            "tovuk binding create --service s X Y",
            "tovuk --service s -- binding list",
            "tovuk --unknown",
            "tovuk env set A=--b --service s",
            "tovuk --service --json",
        ] {
            assert_eq!(ordered(line), line);
        }
    }
}
