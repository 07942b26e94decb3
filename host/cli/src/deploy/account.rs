//! What the account has, compared with what the project files declare: what is missing, and what they no longer name. Nothing here changes anything.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use tovuk_kernel::codes;
use tovuk_kernel::resource::Kind;

use super::find::Target;
use crate::client::{Call, Client, encoded};
use crate::failure::Failure;

/// The account before the deploy.
pub struct Account {
    /// What `GET /v1/usage` says.
    pub usage: Value,
    /// What there is of the services that are to be deployed, by name.
    pub held: BTreeMap<String, Held>,
    /// Services that no project names.
    pub unnamed: Vec<String>,
}

/// A service that exists.
#[derive(Default)]
pub struct Held {
    /// The deploy that serves.
    pub live: Option<String>,
    /// What that deploy may do.
    pub powers: Vec<String>,
    /// What was declared for it.
    pub config: Option<Value>,
    /// Names of its secrets.
    pub secrets: Vec<String>,
    /// Names of its bindings.
    pub bindings: Vec<String>,
    /// Its databases and namespaces.
    pub data: Vec<(Kind, String)>,
}

/// What of a service's resources differs from what is declared.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Bindings that a deploy makes.
    pub bindings_missing: Vec<String>,
    /// Bindings that are no longer named. They stay.
    pub bindings_unnamed: Vec<String>,
    /// Databases and namespaces that a deploy makes, for example `KV namespace CACHE`.
    pub data_missing: Vec<String>,
    /// Databases and namespaces that are no longer named. They stay, with what is in them.
    pub data_unnamed: Vec<String>,
    /// Secrets that are declared and not set. A deploy is refused.
    pub secrets_unset: Vec<String>,
    /// Secrets that are no longer named. They stay.
    pub secrets_unnamed: Vec<String>,
}

impl Account {
    /// Asks for what concerns these services.
    pub async fn of(client: &Client, targets: &[Target]) -> Result<Self, Failure> {
        let usage = client.call(Call::get("/v1/usage")).await?;
        let services = client.call(Call::get("/v1/services")).await?;
        let names = services.get("services").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(|service| service.get("name")?.as_str()).collect();
        let mut held = BTreeMap::new();
        for target in targets.iter().filter(|target| names.contains(&target.name.as_str())) {
            held.insert(target.name.clone(), Held::of(client, &target.name).await?);
        }
        let unnamed = names.iter().filter(|name| !targets.iter().any(|target| target.name == **name)).map(|name| (*name).to_owned()).collect();
        Ok(Self { usage, held, unnamed })
    }

    /// Refuses new services that the plan has no room for.
    pub fn check_room(&self, new: &[&Target]) -> Result<(), Failure> {
        let number = |pointer: &str| self.usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let (count, most) = (number("/usage/serviceCount"), number("/limits/projects"));
        if new.is_empty() || count + new.len() as u64 <= most {
            return Ok(());
        }
        let names: Vec<_> = new.iter().map(|target| target.name.as_str()).collect();
        let text = format!("the account has {count} services and may have {most}; this would make {} more: {}", new.len(), names.join(", "));
        Err(Failure::of(&codes::SERVICE_LIMIT, text))
    }

    /// How the resources of a service differ from what it declares.
    pub fn resources(&self, target: &Target) -> Resources {
        let nothing = Held::default();
        let held = self.held.get(&target.name).unwrap_or(&nothing);
        let bindings: Vec<String> = target.service.bindings.iter().map(|binding| binding.name().to_owned()).collect();
        let data: Vec<(Kind, String)> = target.service.data().map(|(kind, name)| (kind, name.to_owned())).collect();
        let without = |some: &[String], others: &[String]| some.iter().filter(|name| !others.contains(name)).cloned().collect();
        Resources {
            bindings_missing: without(&bindings, &held.bindings),
            bindings_unnamed: without(&held.bindings, &bindings),
            data_missing: differing(&data, &held.data),
            data_unnamed: differing(&held.data, &data),
            secrets_unset: without(&target.service.secrets, &held.secrets),
            secrets_unnamed: without(&held.secrets, &target.service.secrets),
        }
    }

    /// Refuses services whose secrets are not set, all of them at once.
    pub fn check_secrets(&self, targets: &[&Target], flag: &str) -> Result<(), Failure> {
        let unset: Vec<_> =
            targets.iter().flat_map(|target| self.resources(target).secrets_unset.into_iter().map(|secret| (target.name.as_str(), secret))).collect();
        if unset.is_empty() {
            return Ok(());
        }
        let list: Vec<_> = unset.iter().map(|(service, secret)| format!("{secret} of `{service}`")).collect();
        let commands: Vec<_> = unset.iter().map(|(service, secret)| format!("`tovuk env set {secret}=<value> --service {service}{flag}`")).collect();
        let failure = Failure::of(&codes::SECRET_MISSING, format!("secrets are declared and not set: {}", list.join(", ")));
        Err(failure.instruct(format!("Run {}, then deploy again.", commands.join(" and "))))
    }
}

/// What of `some` is not among `others`, in words.
fn differing(some: &[(Kind, String)], others: &[(Kind, String)]) -> Vec<String> {
    some.iter().filter(|data| !others.contains(data)).map(|(kind, name)| format!("{} {name}", kind.noun())).collect()
}

/// Where a service's overview has what it holds of each kind.
const HELD: [(Kind, &str); 5] = [
    (Kind::Sqlite, "/resources/sqliteDatabases"),
    (Kind::Kv, "/resources/kvNamespaces"),
    (Kind::Queue, "/resources/queues"),
    (Kind::Cron, "/resources/cronTriggers"),
    (Kind::State, "/resources/stateNamespaces"),
];

impl Held {
    async fn of(client: &Client, name: &str) -> Result<Self, Failure> {
        let overview = client.call(Call::get(format!("/v1/services/{}/overview", encoded(name)))).await?;
        let names = |pointer: &str| -> Vec<String> {
            let list = overview.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            list.iter().filter_map(|entry| entry.get("name")?.as_str()).map(str::to_owned).collect()
        };
        let live = overview.pointer("/status/live_deploy/id").and_then(Value::as_str).map(str::to_owned);
        let powers = overview.pointer("/status/live_deploy/powers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let config = match &live {
            Some(id) => client.call(Call::get(format!("/v1/deploys/{}", encoded(id)))).await?.get("config").cloned(),
            None => None,
        };
        Ok(Self {
            powers: powers.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            secrets: names("/env"),
            bindings: names("/resources/serviceBindings"),
            data: HELD.into_iter().flat_map(|(kind, pointer)| names(pointer).into_iter().map(move |name| (kind, name))).collect(),
            live,
            config,
        })
    }
}
