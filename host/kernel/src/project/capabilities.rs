//! The 17 capability flags of a service. They say what a service uses; they grant nothing by themselves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::model::{Kind, Service};

macro_rules! capabilities {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Which products a service uses. All flags are always present.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct Capabilities {
            $($(#[$doc])* pub $name: bool,)*
        }

        impl Capabilities {
            /// The flags with their names, in the order of the catalogue.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, bool)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

capabilities! {
    /// Static files are served.
    #[schemars(example = false)]
    static_frontend,
    /// A worker answers requests.
    worker,
    /// SQLite databases.
    #[schemars(example = false)]
    sqlite,
    /// Object storage.
    #[schemars(example = false)]
    object_storage,
    /// KV namespaces.
    #[schemars(example = false)]
    kv,
    /// State classes.
    #[schemars(example = false)]
    state,
    /// Queues.
    #[schemars(example = false)]
    queue,
    /// Cron triggers.
    #[schemars(example = false)]
    cron,
    /// Bindings to other services.
    #[schemars(example = false)]
    service_bindings,
    /// Secrets.
    #[schemars(example = false)]
    secrets,
    /// Domains besides the service's own.
    #[schemars(example = false)]
    custom_domains,
    /// Logs; every service has them.
    logs,
    /// Builds; every service has them.
    builds,
    /// Usage caps; every service has them.
    usage_caps,
    /// Billing; every service has it.
    billing,
    /// Support; every service has it.
    support,
    /// Abuse handling; every service has it.
    abuse,
}

/// Flags that are true for every service.
pub(crate) const ALWAYS: [&str; 6] = ["logs", "builds", "usage_caps", "billing", "support", "abuse"];

impl Capabilities {
    /// The flags of a service of which nothing but its kind is known.
    pub fn of_kind(kind: Kind) -> Self {
        Self::of(&Service { kind: Some(kind), ..Service::default() })
    }

    /// The flags that follow from what a service declares. Custom domains are added through the API and never declared.
    pub fn of(service: &Service) -> Self {
        Self {
            static_frontend: service.kind().has_assets(),
            worker: service.kind().has_worker(),
            sqlite: !service.sqlite.is_empty(),
            object_storage: service.object_storage,
            kv: !service.kv.is_empty(),
            state: !service.state.is_empty(),
            queue: !service.queues.is_empty(),
            cron: !service.crons.is_empty(),
            service_bindings: !service.bindings.is_empty(),
            secrets: !service.secrets.is_empty(),
            custom_domains: false,
            logs: true,
            builds: true,
            usage_caps: true,
            billing: true,
            support: true,
            abuse: true,
        }
    }
}
