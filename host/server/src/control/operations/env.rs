//! Secrets of a service: environment variables whose values go in and never come out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{ENV_VALUE_BYTES_MAX, ENV_VARIABLES_MAX};
use tovuk_kernel::names::check_variable_name;
use tovuk_kernel::operation::{Argument, Command, Form, Method, Operation, Request};

use super::services::ResourcesResponse;
use super::{note, timestamp};
use crate::control::handler::Handler;
use crate::control::store::{bindings, env};
use crate::control::{Caller, Control, Refusal, service_of};

/// A secret without its value.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// The variable.
    pub name: String,
    /// When it was first set.
    pub created_at: String,
    /// When it was last set.
    pub updated_at: String,
}

impl From<env::Secret> for Secret {
    fn from(secret: env::Secret) -> Self {
        Self { name: secret.name, created_at: timestamp(secret.created_ms), updated_at: timestamp(secret.updated_ms) }
    }
}

/// The secrets of a service.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Secrets {
    /// The secrets, without values.
    pub env: Vec<Secret>,
    /// What has to be done for a change to be seen.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub next_actions: Vec<String>,
}

/// Lists the secrets.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct List {
    /// The service.
    pub service: String,
}

impl Request for List {
    const OPERATION: Operation =
        Operation::new("env.list", Method::Get, "/v1/services/{service}/env", "List the names of a service's secrets; values are never shown")
            .commands(&[Command::new("env list").default().examples(&["tovuk env list --service shop"])]);
    type Response = Secrets;
}

impl Handler for List {
    async fn run(self, control: Control, caller: Caller) -> Result<Secrets, Refusal> {
        let secrets = control.read(move |conn| Ok(env::list(conn, service_of(conn, caller.account_number(), &self.service)?.id)?)).await?;
        Ok(Secrets { env: secrets.into_iter().map(Secret::from).collect(), next_actions: Vec::new() })
    }
}

/// Sets a secret.
#[derive(Deserialize, JsonSchema)]
pub struct Set {
    /// The service.
    pub service: String,
    /// The variable: letters, digits and `_`, not beginning with a digit or `TOVUK_`.
    pub name: String,
    /// The value, at most 5 KiB; may be empty.
    pub value: String,
}

impl Request for Set {
    const OPERATION: Operation = Operation::new("env.set", Method::Put, "/v1/services/{service}/env", "Set a secret")
        .described("The value is sealed before it is stored. Workers see it from the next deploy or restart on.")
        .errors(&[&codes::INVALID_NAME, &codes::ENV_LIMIT, &codes::RESOURCE_EXISTS])
        .commands(&[Command::new("env set")
            .arguments(&[Argument::positional("name", "The variable and its value").form(Form::KeyValue("value"))])
            .examples(&["tovuk env set STRIPE_KEY=sk_live_123 --service shop"])]);
    type Response = Secrets;
}

impl Handler for Set {
    async fn run(self, control: Control, caller: Caller) -> Result<Secrets, Refusal> {
        check_variable_name(&self.name)?;
        if self.value.len() > ENV_VALUE_BYTES_MAX || self.value.contains('\0') {
            let text = format!("the value of `{}` may have {ENV_VALUE_BYTES_MAX} bytes and no NUL", self.name);
            return Err(Refusal::new(&codes::INVALID_REQUEST, text));
        }
        let (now, vault) = (control.now_ms(), control.vault().clone());
        let (service, secrets) = control
            .write(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                if bindings::list(conn, service.id)?.iter().any(|binding| binding.url_env.as_deref() == Some(&self.name)) {
                    let text = format!("`{}` holds the URL of a binding of `{}`", self.name, service.name);
                    return Err(Refusal::new(&codes::RESOURCE_EXISTS, text).instruct("Choose another name for the secret."));
                }
                let held = env::list(conn, service.id)?;
                if held.len() as u64 >= ENV_VARIABLES_MAX && held.iter().all(|secret| secret.name != self.name) {
                    return Err(Refusal::new(&codes::ENV_LIMIT, format!("`{}` has {ENV_VARIABLES_MAX} secrets", service.name)));
                }
                let sealed = vault.seal(&context(service.id, &self.name), self.value.as_bytes()).map_err(Refusal::internal)?;
                env::put(conn, service.id, &self.name, &sealed, now)?;
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &self.name, now)?;
                let secrets = env::list(conn, service.id)?;
                Ok((service, secrets))
            })
            .await?;
        // A value that a worker may already have printed under its old form stays hidden: the log hides both until the next deploy.
        Ok(Secrets { env: secrets.into_iter().map(Secret::from).collect(), next_actions: restart_hint(&service.name, service.live_deploy_id) })
    }
}

/// Deletes a secret.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct Delete {
    /// The service.
    pub service: String,
    /// The variable.
    pub name: String,
}

/// What a service still has.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "SecretDeleted")]
pub struct Deleted {
    /// The secrets that are left.
    pub env: Vec<Secret>,
    /// The resources of the service, with what has to be done for its worker to see the change.
    #[serde(flatten)]
    pub resources: ResourcesResponse,
}

impl Request for Delete {
    const OPERATION: Operation = Operation::new("env.delete", Method::Delete, "/v1/services/{service}/env/{name}", "Delete a secret")
        .errors(&[&codes::ENV_NOT_FOUND])
        .commands(&[Command::new("env delete")
            .arguments(&[Argument::positional("name", "The variable")])
            .examples(&["tovuk env delete STRIPE_KEY --service shop"])]);
    type Response = Deleted;
}

impl Handler for Delete {
    async fn run(self, control: Control, caller: Caller) -> Result<Deleted, Refusal> {
        let now = control.now_ms();
        let (secrets, resources) = control
            .write(move |conn| {
                let service = service_of(conn, caller.account_number(), &self.service)?;
                if !env::delete(conn, service.id, &self.name)? {
                    return Err(Refusal::new(&codes::ENV_NOT_FOUND, format!("`{}` has no secret `{}`", service.name, self.name)));
                }
                note(conn, &caller, Self::OPERATION.name, Some(service.id), &self.name, now)?;
                let secrets = env::list(conn, service.id)?;
                let mut resources = ResourcesResponse::of(conn, &service)?;
                resources.next_actions = restart_hint(&service.name, service.live_deploy_id);
                Ok((secrets, resources))
            })
            .await?;
        let env = secrets.into_iter().map(Secret::from).collect();
        Ok(Deleted { env, resources: resources.complete(&control).await? })
    }
}

/// Under what a secret is sealed: a value that is copied to another row does not open there.
pub(crate) fn context(service: i64, name: &str) -> String {
    format!("env service_{service} {name}")
}

/// What has to be done for a running worker to see a change.
pub(crate) fn restart_hint(service: &str, live_deploy: Option<i64>) -> Vec<String> {
    live_deploy
        .map(|_| format!("Run `tovuk service restart {service}` or deploy again: running workers keep what they began with."))
        .into_iter()
        .collect()
}
