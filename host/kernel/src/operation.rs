//! What an operation of the control API is, stated once: its route, who may call it, its command, its limits, its errors. The router, the command
//! line, the OpenAPI document and the reference derive from this; what an operation *does* stands with the code that runs it.
//!
//! An operation's request is one flat struct. Those of its fields that the path names come from the path, the rest from the JSON body or from
//! the query; GET and DELETE have no body.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codes::Code;
use crate::meters::Meter;

/// The method of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Reads. Fields come from path and query.
    Get,
    /// Creates, or starts something. Fields come from path and body.
    Post,
    /// Sets. Fields come from path and body.
    Put,
    /// Removes. Fields come from path and query.
    Delete,
}

impl Method {
    /// The method as HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// Whether fields that the path does not name come from a JSON body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put)
    }
}

/// Who may call an operation. A token of another kind, or of an account that does not own what is named, gets the answer for what does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// A token of the account. A token of the scope `read` may call those that are `Method::Get`.
    Account,
    /// As `Account`, and the token of a running worker for the service that `{service}` names.
    Runtime,
    /// A token of the operator.
    Operator,
}

/// One operation.
#[derive(Debug)]
pub struct Operation {
    /// Its name, `<subject>.<act>`, for example `env.set`.
    pub name: &'static str,
    /// One line, beginning with a verb, without a full stop.
    pub summary: &'static str,
    /// What else there is to know, in full sentences; may be empty.
    pub description: &'static str,
    /// The method of its route.
    pub method: Method,
    /// The path of its route, with `{field}` for each field that comes from it. Each stands for one whole segment.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// The status when it succeeds.
    pub status: u16,
    /// Largest body, in bytes.
    pub body_bytes_max: u64,
    /// The codes it can fail with besides those that any route can.
    pub errors: &'static [&'static Code],
    /// The meters that it charges. Over a cap of one of them it fails with `usage_cap_exceeded`.
    pub meters: &'static [Meter],
    /// Its commands, if it has any.
    pub commands: &'static [Command],
    /// Whether its answer goes on: a JSON object for each line.
    pub streams: bool,
}

/// Largest body of an operation that does not say otherwise, in bytes.
pub const BODY_BYTES_MAX: u64 = 1 << 20;

impl Operation {
    /// An operation that anybody with a token of the account may call, without body limit, errors, meters or command of its own.
    pub const fn new(name: &'static str, method: Method, path: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            summary,
            description: "",
            method,
            path,
            access: Access::Account,
            status: 200,
            body_bytes_max: BODY_BYTES_MAX,
            errors: &[],
            meters: &[],
            commands: &[],
            streams: false,
        }
    }

    /// With more to say.
    pub const fn described(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// For others than holders of an account's token.
    pub const fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// With another status than 200.
    pub const fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With another limit for its body, in bytes.
    pub const fn body_bytes_max(mut self, bytes: u64) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Which can fail with these codes.
    pub const fn errors(mut self, errors: &'static [&'static Code]) -> Self {
        self.errors = errors;
        self
    }

    /// Which charges these meters.
    pub const fn meters(mut self, meters: &'static [Meter]) -> Self {
        self.meters = meters;
        self
    }

    /// With these commands.
    pub const fn commands(mut self, commands: &'static [Command]) -> Self {
        self.commands = commands;
        self
    }

    /// Whose answer goes on: a JSON object for each line.
    pub const fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// The type of what it answers with.
    pub fn content_type(&self) -> &'static str {
        if self.streams { "application/x-ndjson" } else { "application/json" }
    }

    /// The fields that come from the path, in its order.
    pub fn path_fields(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }
}

/// The command of an operation: how its request's fields are given on a command line.
#[derive(Debug)]
pub struct Command {
    /// The words after `tovuk`, for example `env set`.
    pub words: &'static str,
    /// Other words for the same, each as above.
    pub aliases: &'static [&'static str],
    /// Whether it also runs when only the first word is given, as `tovuk env` does `tovuk env list`.
    pub default: bool,
    /// Its arguments. `{service}` of the path need not be declared: it is `--service` unless it is given a place here.
    pub arguments: &'static [Argument],
    /// Whole command lines that show its use, without `--json`.
    pub examples: &'static [&'static str],
}

impl Command {
    /// A command without arguments.
    pub const fn new(words: &'static str) -> Self {
        Self { words, aliases: &[], default: false, arguments: &[], examples: &[] }
    }

    /// Which also runs when only its first word is given.
    pub const fn default(mut self) -> Self {
        self.default = true;
        self
    }

    /// With other words for the same.
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// With these arguments.
    pub const fn arguments(mut self, arguments: &'static [Argument]) -> Self {
        self.arguments = arguments;
        self
    }

    /// With these examples.
    pub const fn examples(mut self, examples: &'static [&'static str]) -> Self {
        self.examples = examples;
        self
    }
}

/// One argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// The field of the request that it sets.
    pub field: &'static str,
    /// Where it stands.
    pub place: Place,
    /// How its text becomes the field's value.
    pub form: Form,
    /// Whether the command refuses to run without it.
    pub required: bool,
    /// One line of help.
    pub help: &'static str,
}

/// Where an argument stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Among the words after the command, in the order of declaration.
    Positional,
    /// After `--<name>`; other names for the same flag follow.
    Flag(&'static str, &'static [&'static str]),
    /// Either of both: `service show S` and `service show --service S`.
    Either(&'static str),
}

/// How the text of an argument becomes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The text as it is.
    Text,
    /// An integer.
    Integer,
    /// JSON.
    Json,
    /// All words that are left, joined by one space.
    Words,
    /// All words that are left, as a list.
    List,
    /// The same; one word that is a JSON array, or an object with a member of the argument's name, stands for its strings.
    Keys,
    /// JSON of keys and values: an array of entries as it is, an object with a member of the argument's name as that, any other object as one entry for
    /// each of its members.
    Entries,
    /// JSON of messages: an array of them, or an object with a member of the argument's name, whose other members are fields of the request. What is no
    /// object is the body of a message, and a body that is no text is sent as its JSON.
    Messages,
    /// A folder: its files `*.sql` in the order of their names, as `{name, sql}` each.
    Scripts,
    /// `KEY=value`: the part before the first `=` sets the argument's field, the rest sets the named one.
    KeyValue(&'static str),
    /// A flag without a value, which sets the field to `true`.
    True,
    /// A flag without a value, which sets the field to `false`.
    False,
    /// Not given on the command line: the command always sends this.
    Always(bool),
    /// A flag without a value, which sets the field to `null`.
    Null,
}

impl Argument {
    /// A word after the command that has to be there.
    pub const fn positional(field: &'static str, help: &'static str) -> Self {
        Self { field, place: Place::Positional, form: Form::Text, required: true, help }
    }

    /// A flag with a value.
    pub const fn flag(field: &'static str, flag: &'static str, help: &'static str) -> Self {
        Self { field, place: Place::Flag(flag, &[]), form: Form::Text, required: false, help }
    }

    /// A word or a flag.
    pub const fn either(field: &'static str, flag: &'static str, help: &'static str) -> Self {
        Self { field, place: Place::Either(flag), form: Form::Text, required: true, help }
    }

    /// What the command always sends.
    pub const fn constant(field: &'static str, value: bool) -> Self {
        Self { field, place: Place::Positional, form: Form::Always(value), required: false, help: "" }
    }

    /// A flag that has these other names.
    pub const fn also(mut self, others: &'static [&'static str]) -> Self {
        if let Place::Flag(flag, _) = self.place {
            self.place = Place::Flag(flag, others);
        }
        self
    }

    /// Whose text is read so.
    pub const fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// That can be left out.
    pub const fn optional(mut self) -> Self {
        self.required = false;
        self
    }

    /// That has to be there.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// The arguments of a list that is read in pages.
pub const PAGE_ARGUMENTS: [Argument; 2] = [
    Argument::flag("limit", "limit", "Most entries to return").form(Form::Integer),
    Argument::flag("cursor", "cursor", "Where to go on: `next_cursor` of the page before"),
];

/// The request of an operation.
pub trait Request: DeserializeOwned + JsonSchema + Send + 'static {
    /// The operation.
    const OPERATION: Operation;
    /// What it answers with.
    type Response: Serialize + JsonSchema + Send + 'static;
}
