//! What every host has behind its listeners, whoever runs it: log store, runtime, control API and front door, opened in the order in which they need
//! each other. Where they are reached, and by whom, is decided by whoever opens them.

use std::path::PathBuf;
use std::sync::Arc;

use tovuk_kernel::clock::Clock;
use tovuk_kernel::pricing::Pricing;
use tovuk_resources::objects::Place;
use tovuk_resources::stores::Stores;
use tovuk_runtime::compile::Compiler;
use tovuk_runtime::record::Observer;
use tovuk_runtime::runtime::{Runtime, RuntimeConfig};

use super::{SecretKey, StartError};
use crate::control::urls::Urls;
use crate::control::vault::Vault;
use crate::control::{Control, ControlConfig};
use crate::deploy::builds::BuildConfig;
use crate::domains::Resolver;
use crate::edge::routes::Routes;
use crate::edge::{Api, Audience, Edge};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::observed::Observed;
use crate::tls::acme::Acme;
use crate::traces::{self, Otlp, Traces};

/// In what one host differs from another.
pub(super) struct Parts {
    /// The data folder, which is claimed.
    pub data: PathBuf,
    pub vault: Vault,
    pub urls: Urls,
    pub node: String,
    pub builds: BuildConfig,
    pub resolver: Resolver,
    pub pricing: Arc<Pricing>,
    pub acme: Option<Acme>,
    pub runtime: RuntimeConfig,
    /// Where the bytes of objects are.
    pub objects: Place,
    /// Who is told what happens, besides the host itself.
    pub observer: Option<Arc<dyn Observer>>,
    /// Where spans are sent to, besides being kept.
    pub otlp: Option<Otlp>,
    pub audience: Audience,
    /// How the front door knows the control API.
    pub api: fn(Control) -> Api,
}

/// A host that answers nobody yet.
pub(super) struct Opened {
    pub control: Control,
    pub edge: Edge,
}

/// Opens a host and puts on the air what was live.
pub(super) async fn open(parts: Parts, compiler: Compiler, clock: Clock) -> Result<Opened, StartError> {
    let logs = Logs::open(&parts.data, clock.clone())?;
    let traces = Traces::open_with(&parts.data, clock.clone(), traces::Config { otlp: parts.otlp, ..traces::Config::default() })?;
    let observed = Observed { logs, metrics: Metrics::new(clock.clone()), traces, shown: parts.observer };
    let observer = Arc::new(observed.observer());
    let stores = Stores::open(&parts.data, &parts.objects, &clock).await?;
    observed.logs.set_meters(stores.meters.clone());
    let runtime = Runtime::new(parts.runtime, compiler, clock, observer, Some(stores.clone()))?;
    let routes = Routes::default();
    let public_authority = parts.urls.public_authority();
    let config = ControlConfig {
        data: parts.data,
        urls: parts.urls,
        node: parts.node,
        is_development: matches!(parts.audience, Audience::Author),
        builds: parts.builds,
        resolver: parts.resolver,
        pricing: parts.pricing,
        acme: parts.acme,
    };
    let control = Control::open(config, parts.vault, runtime.clone(), stores, routes.clone(), observed).await?;
    let edge = Edge::with_api(runtime, routes, parts.audience, public_authority, (parts.api)(control.clone()));
    Ok(Opened { control, edge })
}

/// Where the bytes of objects are unless something else is said.
pub(super) fn objects_folder(data: &std::path::Path) -> Place {
    Place::Folder(data.join("objects"))
}

/// These prices, or the default ones.
pub(super) fn pricing(given: Option<Pricing>) -> Result<Arc<Pricing>, StartError> {
    let pricing = given.map_or_else(Pricing::standard, Ok).map_err(|error| StartError::Setting(format!("the default prices: {error}")))?;
    Ok(Arc::new(pricing))
}

/// The key of a host whose data folder this is.
pub(super) fn vault(key: &SecretKey, data: &std::path::Path) -> Result<Vault, StartError> {
    Ok(match key {
        SecretKey::Text(text) => Vault::of_text(text, "TOVUK_SECRET_KEY")?,
        SecretKey::File(path) => Vault::of_file(path)?,
        SecretKey::Generated => Vault::of_file(&data.join("secret-key"))?,
    })
}
