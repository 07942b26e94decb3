//! What must hold in the `[services]` form beyond its structure, one function per rule. It looks at the file alone: whether a folder exists or the
//! account has a service that the file does not declare is found out by those who can look.

use std::collections::BTreeMap;

use super::bindings::check_bindings;
use super::document::{Spans, index, join};
use super::model::{Kind, Project, Service};
use super::{Problem, Severity, paths};
use crate::limits::CRON_TRIGGERS_MAX;
use crate::names::{NameError, check_resource_name, check_service_name, check_variable_name, env_suffix, env_suffix_clashes, nearest};
use crate::outbound::Pattern;

/// Most resources and bindings that one service can have.
pub const BOUND_RESOURCES_MAX: usize = 5_000;

/// Collects problems and finds their places.
pub(crate) struct Report<'a> {
    spans: &'a Spans,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(spans: &'a Spans, problems: &'a mut Vec<Problem>) -> Self {
        Self { spans, problems }
    }

    /// Whether the file has something at this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.spans.contains(path)
    }

    /// An error in the value at `path`. An empty `help` means that the message says it all.
    pub(crate) fn error(&mut self, path: &str, message: String, help: &str) {
        let span = self.spans.value(path);
        self.push(Severity::Error, path, span, message, help);
    }

    /// An error in the key at `path`.
    pub(crate) fn key_error(&mut self, path: &str, message: String, help: &str) {
        let span = self.spans.key(path);
        self.push(Severity::Error, path, span, message, help);
    }

    /// A warning about the value at `path`.
    pub(crate) fn warning(&mut self, path: &str, message: String, help: &str) {
        let span = self.spans.value(path);
        self.push(Severity::Warning, path, span, message, help);
    }

    fn push(&mut self, severity: Severity, path: &str, span: Option<std::ops::Range<usize>>, message: String, help: &str) {
        // A part that the file writes in another form, as databases in an array of names, has the place of what it stands in.
        let span = span.or_else(|| self.spans.nearest(path));
        let path = self.spans.place(path).path;
        self.problems.push(Problem { severity, message, help: (!help.is_empty()).then(|| help.to_owned()), span, path });
    }
}

/// Checks a whole project.
pub(crate) fn check(project: &Project, report: &mut Report<'_>) {
    if project.services.is_empty() && report.has("services") {
        report.error("services", "the project has no services".to_owned(), "declare one, for example with the table [services.hello]");
    }
    for (name, service) in &project.services {
        let path = join("services", name);
        if let Err(error) = check_service_name(name) {
            report.key_error(&path, error.to_string(), "rename the table, for example to [services.auth-service]");
        }
        check_kind(service, &path, report);
        check_paths(service, &path, report);
        check_routes(service, &path, report);
        check_resources(service, &path, report);
        check_queues(service, &path, report);
        check_crons(service, &path, report);
        check_outbound(service, &path, report);
        check_variables(service, &path, report);
        check_bindings(project, name, service, &path, report);
    }
}

fn check_kind(service: &Service, path: &str, report: &mut Report<'_>) {
    let kind = service.kind();
    let kind_path = join(path, "kind");
    if kind.has_assets() && service.assets.is_none() {
        let message = format!("a service of kind `{}` needs `assets`, the folder of its static files", kind.as_str());
        report.error(&kind_path, message, &format!("add assets = \"dist\" to `[{path}]`, or write kind = \"rust_worker\""));
    }
    if kind == Kind::RustWorker && service.assets.is_some() {
        let message = "a service of kind `rust_worker` has no static files".to_owned();
        report.error(&join(path, "assets"), message, "remove `assets`, or write kind = \"fullstack\"");
    }
    if kind == Kind::StaticFrontend && service.declares_worker() {
        let message = "a service of kind `static_frontend` has no worker that could use what is declared".to_owned();
        report.error(&kind_path, message, "write kind = \"fullstack\", or remove what is for a worker");
    }
}

fn check_paths(service: &Service, path: &str, report: &mut Report<'_>) {
    let mut check = |key: &str, root: &str, value: Option<&str>| {
        let Some((value, reason)) = value.and_then(|value| Some((value, paths::refuse(root, value)?))) else { return };
        let path = format!("{path}.{key}");
        report.error(&path, format!("`{path}` {reason}: \"{value}\""), "write a path inside the project's folder");
    };
    let root = service.root();
    check("root", ".", service.root.as_deref());
    check("component", root, service.component.as_deref());
    check("assets", root, service.assets.as_deref());
    for (name, database) in &service.sqlite {
        check(&format!("{}.migrations", join("sqlite", name)), root, database.migrations.as_deref());
    }
}

fn check_routes(service: &Service, path: &str, report: &mut Report<'_>) {
    let mut seen = Vec::new();
    for (position, route) in service.routes.iter().enumerate() {
        let path = index(&join(path, "routes"), position);
        if let Some((message, help)) = refuse_route(route) {
            report.error(&path, message, &help);
        }
        if seen.contains(&route) {
            report.error(&path, format!("the route `{route}` is declared twice"), "remove one of the two");
        }
        seen.push(route);
    }
    if let Some(health) = service.health.as_deref() {
        let path = join(path, "health");
        if !health.starts_with('/') {
            report.error(&path, format!("`{path}` must start with `/`"), &format!("write \"/{health}\""));
        } else if is_private(health) {
            report.error(&path, "`/.tovuk` is the host's own and answers nothing".to_owned(), "write a path of the worker's, such as \"/healthz\"");
        }
    }
}

/// Why a route is refused, and what to write instead.
fn refuse_route(route: &str) -> Option<(String, String)> {
    if !route.starts_with('/') {
        return Some((format!("the route `{route}` does not start with `/`"), format!("write \"/{}\"", route.trim_start_matches("./"))));
    }
    if is_private(route) {
        return Some((format!("the route `{route}` lies in `/.tovuk`, which is never public"), "choose another path".to_owned()));
    }
    let prefix = route.strip_suffix('*').unwrap_or(route);
    if prefix.contains('*') || (route.ends_with('*') && !route.ends_with("/*")) {
        let help = "write \"/api/*\" for everything below a path, or \"/api\" for the path alone".to_owned();
        return Some((format!("the route `{route}` has a `*` that is not its last part"), help));
    }
    let strange = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '\\' | '%' | ';');
    if prefix.contains(strange) || prefix.contains("//") || prefix.split('/').any(|part| part == "." || part == "..") {
        return Some((format!("the route `{route}` is not a plain path"), "write it without query, escapes, `//` and dot parts".to_owned()));
    }
    None
}

fn is_private(path: &str) -> bool {
    path.split('/').nth(1).is_some_and(|first| first.eq_ignore_ascii_case(".tovuk"))
}

fn check_resources(service: &Service, path: &str, report: &mut Report<'_>) {
    let at = |kind: &str, names: &[String]| -> Vec<(String, String)> {
        let array = join(path, kind);
        names.iter().enumerate().map(|(position, name)| (name.clone(), index(&array, position))).collect()
    };
    let keys = |kind: &str, names: Vec<&String>| -> Vec<(String, String)> {
        let table = join(path, kind);
        names.into_iter().map(|name| (name.clone(), join(&table, name))).collect()
    };
    let kinds = [
        ("sqlite", keys("sqlite", service.sqlite.keys().collect())),
        ("kv", at("kv", &service.kv)),
        ("state", at("state", &service.state)),
        ("queue", keys("queues", service.queues.keys().collect())),
        ("cron", keys("crons", service.crons.keys().collect())),
    ];
    for (kind, names) in &kinds {
        for (name, path) in names {
            if let Err(error) = check_resource_name(name) {
                report.key_error(path, error.to_string(), name_help(&error));
            }
        }
        for (first, second) in env_suffix_clashes(names.iter().map(|(name, _)| name.as_str())) {
            let place = names.iter().rev().find(|(name, _)| name == second).map_or(path, |(_, path)| path);
            let variable = format!("TOVUK_{}_{}", kind.to_ascii_uppercase(), env_suffix(second));
            let message = format!("`{first}` and `{second}` would share the environment variable `{variable}`");
            report.key_error(place, message, "rename one of the two");
        }
    }
    let bound = service.sqlite.len() + service.kv.len() + service.queues.len() + service.state.len() + service.bindings.len();
    if bound > BOUND_RESOURCES_MAX {
        let message = format!("the service has {bound} databases, namespaces, queues, State classes and bindings; {BOUND_RESOURCES_MAX} are allowed");
        report.key_error(path, message, "move some of them into another service");
    }
}

pub(crate) fn name_help(error: &NameError) -> &'static str {
    match error {
        NameError::LooksLikeId { .. } => "choose a name that does not end with `_` and a number after the word for a kind",
        _ => "choose a name such as CACHE or failed-jobs",
    }
}

fn check_queues(service: &Service, path: &str, report: &mut Report<'_>) {
    let table = join(path, "queues");
    for (name, queue) in &service.queues {
        let Some(target) = &queue.dead_letter_queue else { continue };
        let path = format!("{}.dead_letter_queue", join(&table, name));
        if target == name {
            let message = format!("the queue `{name}` cannot be its own dead-letter queue");
            report.error(&path, message, "name another queue of the service, or remove the line");
        } else if !service.queues.contains_key(target) {
            let help = match nearest(target, service.queues.keys().map(String::as_str).filter(|other| other != name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("declare it with the table [{}]", join(&table, target)),
            };
            report.warning(
                &path,
                format!("the dead-letter queue `{target}` is not declared in the file; a pull queue of that name is assumed"),
                &help,
            );
            if let Err(error) = check_resource_name(target) {
                report.error(&path, error.to_string(), name_help(&error));
            }
        } else if let Some(circle) = circle_of(service, name) {
            let message = format!("dead letters of the queue `{name}` would come back to it: {circle}");
            report.error(&path, message, "let the last of them have no dead-letter queue");
        }
    }
}

/// The way that dead letters of a queue would take back to it, for the first of its names.
fn circle_of(service: &Service, name: &str) -> Option<String> {
    let next = |queue: &&str| service.queues.get(*queue)?.dead_letter_queue.as_deref();
    let way: Vec<&str> = std::iter::successors(Some(name), next).take(service.queues.len() + 1).collect();
    let back = way.iter().skip(1).position(|queue| *queue == name)? + 1;
    let circle = way.get(..=back)?;
    // Each circle is told of once.
    circle.iter().all(|other| *other >= name).then(|| circle.join(" → "))
}

fn check_crons(service: &Service, path: &str, report: &mut Report<'_>) {
    let strange = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | ',' | '-' | '#'));
    let table = join(path, "crons");
    if service.crons.len() > CRON_TRIGGERS_MAX {
        let message = format!("the service has {} cron triggers; {CRON_TRIGGERS_MAX} are allowed", service.crons.len());
        report.key_error(&table, message, "move some of them into another service");
    }
    for (name, expression) in &service.crons {
        let path = join(&table, name);
        let fields: Vec<&str> = expression.split_whitespace().collect();
        if fields.len() != 5 {
            let message = format!("the cron expression \"{expression}\" has {} fields instead of five", fields.len());
            report.error(&path, message, "write minute, hour, day of month, month and weekday in UTC, for example \"0 0 * * *\"");
        } else if let Some(field) = fields.iter().find(|field| field.contains(strange)) {
            let message = format!("the cron expression \"{expression}\" has a field that is none: `{field}`");
            report.error(&path, message, "use numbers, names, `*`, `,`, `-`, `/`, `L`, `W` and `#`");
        }
    }
}

fn check_outbound(service: &Service, path: &str, report: &mut Report<'_>) {
    for (position, entry) in service.outbound.iter().enumerate() {
        if let Err(error) = entry.parse::<Pattern>() {
            let path = index(&join(path, "outbound"), position);
            // The error says itself what to write.
            report.error(&path, error.to_string(), "");
        }
    }
}

/// Secrets and the variables of bindings share one environment, whose names must be valid and differ.
fn check_variables(service: &Service, path: &str, report: &mut Report<'_>) {
    let secrets = service.secrets.iter().enumerate().map(|(position, name)| (name, index(&join(path, "secrets"), position)));
    let array = join(path, "bindings");
    let urls = service.bindings.iter().enumerate().filter_map(|(position, binding)| {
        let name = binding.env.as_ref()?;
        Some((name, format!("{}.env", index(&array, position))))
    });
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for (name, path) in secrets.chain(urls) {
        if let Err(error) = check_variable_name(name) {
            report.error(&path, error.to_string(), "choose a name such as STRIPE_KEY or AUTH_INTERNAL_URL");
        }
        match seen.get(name.as_str()) {
            Some(first) => {
                report.error(&path, format!("the environment variable `{name}` is declared already, at `{first}`"), "rename one of the two")
            }
            None => {
                seen.insert(name, path);
            }
        }
    }
}
