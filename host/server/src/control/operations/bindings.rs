//! Service bindings of a service. Its list is part of `service.resources`.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Deserialize;
use tovuk_kernel::codes;
use tovuk_kernel::names::{check_resource_name, check_variable_name, env_suffix};
use tovuk_kernel::operation::{Argument, Command, Method, Operation, Request};

use super::env::restart_hint;
use super::note;
use super::services::ResourcesResponse;
use crate::control::handler::Handler;
use crate::control::store::services::Service;
use crate::control::store::{bindings, env, services};
use crate::control::{Caller, Control, Refusal, service_of};

/// Binds a service to another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Create {
    /// The service that calls.
    pub service: String,
    /// What its worker calls the binding: letters, digits, `_` and `-`, beginning with a letter. `TOVUK_BINDING_<NAME>` receives the target's id.
    pub binding_name: String,
    /// The service that is called, by id or name.
    pub target_service: String,
    /// A variable that receives the target's private URL.
    pub url_env: Option<String>,
}

impl Request for Create {
    const OPERATION: Operation =
        Operation::new("binding.create", Method::Post, "/v1/services/{service}/service-bindings", "Give a service a private way to another")
            .described("The worker sees the binding from its next deploy or restart on. A service may be bound to itself.")
            .status(201)
            .errors(&[
                &codes::INVALID_NAME,
                &codes::RESOURCE_EXISTS,
                &codes::RESOURCE_LIMIT,
                &codes::BINDING_REFUSED,
                &codes::BINDING_TARGET_NOT_FOUND,
            ])
            .commands(&[Command::new("binding create")
                .arguments(&[
                    Argument::positional("bindingName", "What the worker calls it, for example AUTH_SERVICE"),
                    Argument::either("targetService", "target", "The service that is called, by id or name"),
                    Argument::flag("urlEnv", "url-env", "A variable that receives the target's private URL"),
                ])
                .examples(&["tovuk binding create --service service_1 AUTH_SERVICE --target auth-service"])]);
    type Response = ResourcesResponse;
}

impl Handler for Create {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        let now = control.now_ms();
        control
            .write(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                if let Some(other) = bindings::clash(conn, service.id, &self.binding_name)? {
                    let text = if other == self.binding_name {
                        format!("`{}` has a binding `{other}`", service.name)
                    } else {
                        format!("`{other}` and `{}` would share the variable `TOVUK_BINDING_{}`", self.binding_name, env_suffix(&other))
                    };
                    let command = format!("Run `tovuk binding delete --service {} {other}` first, or choose another name.", service.name);
                    return Err(Refusal::new(&codes::RESOURCE_EXISTS, text).instruct(command));
                }
                ensure(conn, &service, &self.binding_name, &self.target_service, self.url_env.as_deref(), now)?;
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &self.binding_name, now)?;
                let mut response = ResourcesResponse::of(conn, &service)?;
                response.next_actions = restart_hint(&service.name, service.live_deploy_id);
                Ok(response)
            })
            .await?
            .complete(&control)
            .await
    }
}

/// Makes a binding, or gives the one of that name another target, after checking what must hold for any.
pub(crate) fn ensure(conn: &Connection, service: &Service, name: &str, target: &str, url_env: Option<&str>, now_ms: i64) -> Result<(), Refusal> {
    check_resource_name(name)?;
    let target = services::find(conn, service.account_id, target)?.ok_or_else(|| {
        let text = format!("there is no service `{target}` in this account to bind `{name}` of `{}` to", service.name);
        Refusal::new(&codes::BINDING_TARGET_NOT_FOUND, text)
    })?;
    let workerless = [service, &target].into_iter().find(|service| !service.kind.has_worker());
    if let Some(service) = workerless {
        return Err(Refusal::new(&codes::BINDING_REFUSED, format!("`{}` is a static frontend and has no worker", service.name)));
    }
    if let Some(url_env) = url_env {
        check_variable_name(url_env)?;
        let taken = env::list(conn, service.id)?.iter().any(|secret| secret.name == url_env)
            || bindings::list(conn, service.id)?.iter().any(|other| other.name != name && other.url_env.as_deref() == Some(url_env));
        if taken {
            let text = format!("`{url_env}` is a secret or the URL of another binding of `{}`", service.name);
            return Err(Refusal::new(&codes::RESOURCE_EXISTS, text).instruct("Choose another variable."));
        }
    }
    match bindings::clash(conn, service.id, name)? {
        Some(other) if other != name => {
            let text = format!("`{other}` and `{name}` would share the variable `TOVUK_BINDING_{}`", env_suffix(name));
            return Err(Refusal::new(&codes::RESOURCE_EXISTS, text));
        }
        Some(_) => {}
        None => super::resources::check_room(conn, service)?,
    }
    Ok(bindings::put(conn, service.id, name, target.id, url_env, now_ms)?)
}

/// Deletes a binding.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service that calls.
    pub service: String,
    /// The binding's name.
    pub binding: String,
}

impl Request for Delete {
    const OPERATION: Operation =
        Operation::new("binding.delete", Method::Delete, "/v1/services/{service}/service-bindings/{binding}", "Delete a binding")
            .described("Answers with what the service still has.")
            .errors(&[&codes::BINDING_NOT_FOUND])
            .commands(&[Command::new("binding delete")
                .arguments(&[Argument::positional("binding", "The binding's name")])
                .examples(&["tovuk binding delete --service service_1 AUTH_SERVICE"])]);
    type Response = ResourcesResponse;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<ResourcesResponse, Refusal> {
        let now = control.now_ms();
        control
            .write(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                if !bindings::delete(conn, service.id, &self.binding)? {
                    return Err(Refusal::new(&codes::BINDING_NOT_FOUND, format!("`{}` has no binding `{}`", service.name, self.binding)));
                }
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &self.binding, now)?;
                let mut response = ResourcesResponse::of(conn, &service)?;
                response.next_actions = restart_hint(&service.name, service.live_deploy_id);
                Ok(response)
            })
            .await?
            .complete(&control)
            .await
    }
}
