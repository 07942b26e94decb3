//! The commands of the table of operations as a tree of words, and that tree as clap's grammar. Which arguments a command has is in `arguments`.

use std::sync::LazyLock;

use clap::ArgMatches;
use tovuk_kernel::operation::{Command, Operation};

use super::arguments;

/// An operation with one of its commands.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The operation.
    pub operation: &'static Operation,
    /// The command.
    pub command: &'static Command,
}

/// What stands under one word.
#[derive(Debug, Default)]
pub struct Node {
    word: &'static str,
    aliases: Vec<&'static str>,
    rows: Vec<Row>,
    /// What runs when only the word itself is given although there are words below it.
    default: Vec<Row>,
    children: Vec<Node>,
}

static TREE: LazyLock<Node> = LazyLock::new(|| {
    let rows = tovuk_server::control::api::operations().iter().flat_map(|registered| {
        let operation = registered.operation;
        operation.commands.iter().map(move |command| Row { operation, command })
    });
    Node::of(rows)
});

/// The commands of this program's table.
pub fn tree() -> &'static Node {
    &TREE
}

/// What is said of a group of commands. One that is not here is described by what it can do.
const GROUPS: [(&str, &str); 15] = [
    ("account", "Show and change the account"),
    ("binding", "Private ways from one service to another"),
    ("clock", "The time by which a host goes"),
    ("cron", "Cron triggers of a service"),
    ("domains", "Custom domains of a service"),
    ("env", "Secrets of a service: environment variables that are written and never read back"),
    ("kv", "KV namespaces of a service"),
    ("nodes", "Nodes of the host, for operators"),
    ("operator", "What operators do"),
    ("queue", "Queues of a service"),
    ("service", "Services of the account"),
    ("sqlite", "SQLite databases of a service"),
    ("state", "State namespaces of a service"),
    ("storage", "Objects of a service"),
    ("token", "Tokens of the account"),
];

impl Node {
    fn of(rows: impl Iterator<Item = Row>) -> Self {
        let mut root = Self::default();
        for row in rows {
            let words: Vec<_> = row.command.words.split(' ').collect();
            root.below(&words).rows.push(row);
            if let (true, Some((first, [_, ..]))) = (row.command.default, words.split_first()) {
                root.below(&[first]).default.push(row);
            }
            for alias in row.command.aliases {
                let alias: Vec<_> = alias.split(' ').collect();
                match (alias.split_last(), words.split_last()) {
                    (Some((alias, group)), Some((_, own))) if group == own => root.below(&words).aliases.push(alias),
                    _ => root.below(&alias).rows.push(row),
                }
            }
        }
        root
    }

    /// The node of these words, made where it is missing.
    fn below(&mut self, words: &[&'static str]) -> &mut Self {
        let Some((word, rest)) = words.split_first() else { return self };
        let at = self.children.iter().position(|child| child.word == *word).unwrap_or_else(|| {
            self.children.push(Self { word, ..Self::default() });
            self.children.len() - 1
        });
        // The position was found or made just now.
        match self.children.get_mut(at) {
            Some(child) => child.below(rest),
            None => unreachable!(),
        }
    }

    fn child(&self, word: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.word == word)
    }

    /// What runs when the words end here.
    fn runs(&self) -> &[Row] {
        if self.rows.is_empty() { &self.default } else { &self.rows }
    }

    /// What these matches of a command below this node mean: the operations, of which the arguments choose one, and the innermost matches. Nothing where
    /// the table knows no such command.
    pub fn find<'a>(&self, matches: &'a ArgMatches) -> Option<(&[Row], &'a ArgMatches)> {
        match matches.subcommand() {
            Some((word, inner)) => self.child(word)?.find(inner),
            None => Some((self.runs(), matches)).filter(|(rows, _)| !rows.is_empty()),
        }
    }

    /// Adds the commands below this node to a command, in place or under one that is there already.
    pub fn add_to(&self, command: clap::Command) -> clap::Command {
        self.children.iter().fold(command, |command, child| {
            if command.find_subcommand(child.word).is_some() {
                command.mut_subcommand(child.word, |existing| child.add_to(existing))
            } else {
                command.subcommand(child.command())
            }
        })
    }

    fn command(&self) -> clap::Command {
        let rows = self.runs();
        let mut command = clap::Command::new(self.word).visible_aliases(self.aliases.clone()).about(self.about());
        if let Some(description) =
            rows.iter().map(|row| row.operation.description).find(|description| !description.is_empty() && self.children.is_empty())
        {
            command = command.long_about(format!("{}\n\n{description}", self.about()));
        }
        let examples: Vec<_> = rows.iter().flat_map(|row| row.command.examples).map(|example| format!("  {example}\n")).collect();
        if !examples.is_empty() {
            command = command.after_help(format!("Examples:\n{}", examples.concat()));
        }
        command = if rows.is_empty() { command.subcommand_required(true).arg_required_else_help(true) } else { arguments::declare(command, rows) };
        self.add_to(command.subcommand_negates_reqs(!self.children.is_empty()))
    }

    fn about(&self) -> String {
        if self.children.is_empty() {
            return self.rows.iter().map(|row| row.operation.summary).next().unwrap_or_default().to_owned();
        }
        match GROUPS.iter().find(|(word, _)| *word == self.word) {
            Some((_, about)) => (*about).to_owned(),
            None => self.children.iter().map(|child| child.word).collect::<Vec<_>>().join(", "),
        }
    }
}
