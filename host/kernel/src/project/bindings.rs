//! Rules for `[[services.<name>.bindings]]`.

use super::document::{index, join};
use super::model::{Kind, Project, Service};
use super::rules::{Report, name_help};
use crate::names::{check_resource_name, check_service_name, env_suffix, nearest};

/// Checks the bindings of one service. `path` is the service's.
pub(crate) fn check_bindings(project: &Project, service_name: &str, service: &Service, path: &str, report: &mut Report<'_>) {
    let array = join(path, "bindings");
    let mut seen: Vec<(String, &str)> = Vec::new();
    for (position, binding) in service.bindings.iter().enumerate() {
        let path = index(&array, position);
        check_target(project, service_name, &binding.service, &join(&path, "service"), report);
        if binding.format.is_some() && binding.env.is_none() {
            let message = "a binding with `format` needs `env`, the environment variable for the URL".to_owned();
            report.error(&join(&path, "format"), message, &format!("add env = \"{}_INTERNAL_URL\"", env_suffix(&binding.service)));
        }
        if binding.name.is_none() && binding.env.is_none() {
            let message = "the binding has neither a name nor an environment variable".to_owned();
            report.error(&path, message, &format!("add name = \"{}\"", env_suffix(&binding.service)));
            continue;
        }
        let name_path = join(&path, if binding.name.is_some() { "name" } else { "env" });
        if let Err(error) = check_resource_name(binding.name()) {
            report.error(&name_path, error.to_string(), name_help(&error));
        }
        let suffix = env_suffix(binding.name());
        match seen.iter().find(|(other, _)| *other == suffix) {
            Some((_, first)) if *first == binding.name() => {
                report.error(&name_path, format!("two bindings are named `{first}`"), "rename one of the two");
            }
            Some((_, first)) => {
                let second = binding.name();
                let message = format!("`{first}` and `{second}` would share the environment variable `TOVUK_BINDING_{suffix}`");
                report.error(&name_path, message, "rename one of the two");
            }
            None => seen.push((suffix, binding.name())),
        }
    }
    if service.kind() == Kind::StaticFrontend && !service.bindings.is_empty() {
        let message = "a static frontend has no worker that could call a binding".to_owned();
        report.error(&array, message, "move the binding to a service with a worker");
    }
}

fn check_target(project: &Project, service_name: &str, target: &str, path: &str, report: &mut Report<'_>) {
    if let Err(error) = check_service_name(target) {
        report.error(path, error.to_string(), "name a service as its table is named");
        return;
    }
    match project.services.get(target) {
        Some(service) if service.kind() == Kind::StaticFrontend => {
            let message = format!("`{target}` is a static frontend; a binding leads to a worker");
            report.error(path, message, "bind to a service with a worker");
        }
        Some(_) => {}
        None => {
            let others = project.services.keys().map(String::as_str).filter(|name| *name != service_name);
            let help = match nearest(target, others) {
                Some(near) => format!("did you mean `{near}`? Otherwise `tovuk deploy` looks for `{target}` among the account's services"),
                None => format!("add [services.{target}] to the file; without it `tovuk deploy` looks for `{target}` among the account's services"),
            };
            report.warning(path, format!("the file declares no service `{target}`"), &help);
        }
    }
}
