//! Deploys of what its author has built on this machine, for `tovuk dev`: without an upload, a queue and stored secrets. The rows are those of any other
//! deploy, so that the API says the same of them; components are compiled and kept alike, and static files are served from where they are.
//!
//! It knows no project file: which services there are, and when one is built, is told by the development loop.

use std::collections::BTreeMap;
use std::path::PathBuf;

use rusqlite::Connection;
use serde_json::json;
use tovuk_kernel::{codes, project};

use super::accept::{self, Declared};
use super::live::{Local, Ready, Version};
use super::log::BuildLog;
use super::migrations::{self, Migrations};
use super::run::{self, Output};
use crate::control::operations::bindings::ensure;
use crate::control::operations::{cron, queue_settings, resources, sqlite};
use crate::control::store::accounts::Account;
use crate::control::store::deploys::{self, LOCAL, NewDeploy};
use crate::control::store::services::Service;
use crate::control::store::{accounts, bindings, env, services};
use crate::control::vault::random;
use crate::control::{Control, Refusal, service_of};

/// A service that was built on this machine.
pub struct LocalDeploy {
    /// Its name.
    pub name: String,
    /// What it declares.
    pub service: project::Service,
    /// Its component, for a service with a worker.
    pub component: Option<Vec<u8>>,
    /// Its folder of static files, for a service that has them.
    pub assets: Option<PathBuf>,
    /// Scripts for its databases.
    pub migrations: Migrations,
    /// Its secrets. Those that were stored through the API are beside them; a name that both have is this one's.
    pub secrets: Vec<(String, String)>,
}

/// What a service declares and does not have. It runs all the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Secrets without a value.
    pub secrets: Vec<String>,
    /// Bindings whose target is not there: the binding's name and the target's. Calls of them fail.
    pub targets: Vec<(String, String)>,
}

/// Makes the services that are new, gives each the slug that is its name, and takes those off the air that were deployed from here and are named no
/// longer; their names. Rows and data of those stay. Bindings find the rest from now on, whether it is built or not.
pub async fn declare(control: &Control, services: &BTreeMap<String, project::Service>) -> Result<Vec<String>, Refusal> {
    let declared = services.iter().map(|(name, service)| declared(name, service)).collect::<Result<Vec<_>, _>>()?;
    let (now, host) = (control.now_ms(), control.clone());
    let _air = control.air().await;
    let census = control.write(move |conn| {
        let account = account(conn)?;
        let (mut made, mut queues) = (Vec::new(), Vec::new());
        for declared in &declared {
            let service = accept::ensure_service(conn, account.id, declared, now)?;
            services::describe(conn, service.id, service.kind, &service.capabilities)?;
            made.extend(resources::ensure(conn, &service, &declared.service, now)?);
            queues.push((service, declared.service.clone()));
        }
        services::name_slugs(conn, account.id)?;
        let mut census = Vec::new();
        for service in services::list(conn, account.id)? {
            let live = service.live_deploy_id.map(|id| deploys::get(conn, id)).transpose()?.flatten();
            let declared = declared.iter().find(|declared| declared.name == service.name).map(|declared| declared.service.clone());
            // What an earlier run of the loop has left live is not on the air any more.
            let is_local = live.as_ref().is_some_and(|deploy| deploy.source == LOCAL);
            let is_ours = is_local && host.live().local(service.id).is_some();
            if is_local && !(is_ours && declared.is_some()) {
                deploys::retire(conn, service.id, now)?;
            }
            census.push(Counted { is_up: is_ours || (live.is_some() && !is_local), is_local, service, declared });
        }
        Ok((census, made, queues))
    });
    let (census, made, queues) = census.await?;
    sqlite::make(control, &made).await?;
    for (service, declared) in queues {
        queue_settings::make(control, &service, &declared).await?;
    }
    let mut gone = Vec::new();
    for Counted { service, declared, is_up, is_local } in census {
        match declared {
            Some(declared) => {
                cron::apply(control, &service, &declared).await?;
                control.live().register(&service);
                if !is_up {
                    control.live().announce(&service, &declared);
                }
            }
            // One that was deployed through the API has no need of the project file.
            None if is_up && !is_local => {}
            None => {
                control.live().remove(&service);
                gone.extend(is_local.then_some(service.name));
            }
        }
    }
    Ok(gone)
}

/// A service of the account, and what is to become of it.
struct Counted {
    service: Service,
    declared: Option<project::Service>,
    is_up: bool,
    is_local: bool,
}

/// A deploy that is on the air.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deployed {
    /// What it lacks.
    pub missing: Missing,
    /// What was done to its databases, in a line for each script.
    pub applied: Vec<String>,
}

/// Deploys what was built. On failure what ran before still runs; scripts that were applied stay.
pub async fn put(control: &Control, deploy: LocalDeploy) -> Result<Deployed, Refusal> {
    let declared = declared(&deploy.name, &deploy.service)?;
    let live = declared.clone();
    let account = control.read(account).await?;
    let mut output = Output { artifact: None, component_bytes: None, assets: None };
    let mut keeping = None;
    if let Some(wasm) = deploy.component {
        let (artifact, bytes, kept) = run::prepare(control, account.plan, wasm).await?;
        keeping = Some(kept);
        output = Output { artifact: Some(artifact), component_bytes: Some(bytes), assets: None };
    }
    migrations::check(&declared.name, &declared.service, &deploy.migrations)?;
    let (id, name) = (account.id, declared.name.clone());
    let service = control.read(move |conn| service_of(conn, id, &name)).await?;
    let applied = migrate(control, &account, &service, deploy.migrations).await?;
    let _air = control.air().await;
    queue_settings::apply(control, &service, &declared.service).await?;
    let local = Local { assets: deploy.assets, secrets: deploy.secrets };
    let nonce = random::<16>().map_err(Refusal::internal)?;
    let recorded = control.write({
        let (control, local) = (control.clone(), local.clone());
        move |conn| record(&control, conn, &account, &declared, output, local, &nonce)
    });
    let Recorded { service, ready, log, missing } = recorded.await?;
    drop(keeping);
    control.live().set_local(service.id, local);
    control.live().put(control, ready);
    applied.iter().for_each(|line| log.line(line));
    log.line(&live.place(&control.urls().service(&service.slug)));
    Ok(Deployed { missing, applied })
}

async fn migrate(control: &Control, account: &Account, service: &Service, migrations: Migrations) -> Result<Vec<String>, Refusal> {
    let mut applied = Vec::new();
    if !migrations.is_empty() {
        migrations::apply(control, service.id, account.plan, migrations, |line| applied.push(line.to_owned())).await?;
    }
    Ok(applied)
}

/// Gives a service that is live other secrets. One that is not gets them with its next deploy.
pub async fn refresh(control: &Control, name: &str, secrets: Vec<(String, String)>) -> Result<Missing, Refusal> {
    let name = name.to_owned();
    let _air = control.air().await;
    let found = control.read(move |conn| Ok(services::find(conn, account(conn)?.id, &name)?)).await?;
    let Some((service, local)) = found.and_then(|service| Some((service.id, control.live().local(service.id)?))) else {
        return Ok(Missing::default());
    };
    let local = Local { secrets, ..local };
    let given = local.clone();
    let live = control.read(move |conn| {
        let Some(version) = Version::live(conn, service)? else { return Ok(None) };
        let missing = Missing { secrets: missing_secrets(conn, &version.service, &version.declared, &given)?, targets: Vec::new() };
        Ok(Some((version, missing)))
    });
    let Some((version, missing)) = live.await? else { return Ok(Missing::default()) };
    let ready = control.live().ready_with(control, version, Some(local.clone()))?;
    control.live().set_local(service, local);
    control.live().put(control, ready);
    Ok(missing)
}

/// The one account of a development host.
fn account(conn: &Connection) -> Result<Account, Refusal> {
    accounts::list(conn)?.into_iter().next().ok_or_else(|| Refusal::internal("a development host without an account"))
}

/// A service as a deploy would bring it.
fn declared(name: &str, service: &project::Service) -> Result<Declared, Refusal> {
    let config = match &service.published {
        Some(manifest) => json!(manifest),
        None => json!(service),
    };
    accept::declared(&config, Some(name))
}

struct Recorded {
    service: Service,
    ready: Ready,
    log: BuildLog,
    missing: Missing,
}

/// Makes the service if it is new, its bindings, and a deploy that is live at once: all or nothing.
fn record(
    control: &Control,
    conn: &Connection,
    account: &Account,
    declared: &Declared,
    output: Output,
    local: Local,
    nonce: &[u8],
) -> Result<Recorded, Refusal> {
    let now = control.now_ms();
    let Service { id, kind, capabilities, .. } = accept::ensure_service(conn, account.id, declared, now)?;
    services::describe(conn, id, kind, &capabilities)?;
    services::name_slugs(conn, account.id)?;
    let service = services::get(conn, id)?.ok_or_else(|| Refusal::no_service(&declared.name))?;
    let before = deploys::last_local(conn, id)?;
    let targets = bind(control, conn, &service, declared, before.as_ref(), now)?;
    let missing = Missing { secrets: missing_secrets(conn, &service, declared, &local)?, targets };
    let had: Vec<String> = before.and_then(|deploy| serde_json::from_str(&deploy.powers).ok()).unwrap_or_default();
    let product = run::product_of(&declared.service, &had, &output)?;
    let new = NewDeploy {
        service_id: id,
        source: LOCAL,
        upload: None,
        commit_sha: None,
        config: &declared.config,
        rollback_of: None,
        token_nonce: nonce,
        now_ms: now,
    };
    let (deploy, build) = deploys::create(conn, &new)?;
    deploys::start_build(conn, build.id, now)?;
    deploys::promote(conn, &deploy, &product, now)?;
    let version = Version::of(conn, deploy)?;
    let log = BuildLog::of(control.logs(), &version, build.id);
    let ready = control.live().assemble_with(version, output.artifact, None, Some(local))?;
    Ok(Recorded { service, ready, log, missing })
}

/// Makes the bindings that are declared, and removes those that were and are no more; others were made through the API and stay. The declared ones whose
/// target is not there.
fn bind(
    control: &Control,
    conn: &Connection,
    service: &Service,
    declared: &Declared,
    before: Option<&deploys::Deploy>,
    now_ms: i64,
) -> Result<Vec<(String, String)>, Refusal> {
    let wanted = &declared.service.bindings;
    // What an older version of the program accepted and this one does not has no say.
    if let Some(Ok(before)) = before.map(|before| accept::kept(&before.config)) {
        // All of them first: a name or a variable can have gone from one binding to another.
        for old in before.service.bindings.iter().filter(|old| !wanted.contains(old)) {
            bindings::delete(conn, service.id, old.name())?;
        }
    }
    let mut absent = Vec::new();
    for binding in wanted {
        let target = services::find(conn, service.account_id, &binding.service)?;
        if target.is_some() {
            ensure(conn, service, binding.name(), &binding.service, binding.env.as_deref(), now_ms)?;
        }
        if target.is_none_or(|target| control.runtime().services().get(&target.service_id()).is_none()) {
            absent.push((binding.name().to_owned(), binding.service.clone()));
        }
    }
    Ok(absent)
}

/// The declared secrets that neither the author nor the database has.
fn missing_secrets(conn: &Connection, service: &Service, declared: &Declared, local: &Local) -> Result<Vec<String>, Refusal> {
    let has = |name: &str| local.secrets.iter().any(|(other, _)| other == name);
    for binding in bindings::list(conn, service.id)? {
        if let Some(variable) = binding.url_env.filter(|variable| has(variable)) {
            let text = format!("`{variable}` is both a secret of `{}` and the variable with the URL of its binding `{}`", service.name, binding.name);
            let command = format!("Rename the secret, or run `tovuk binding delete --service {} {}`.", service.name, binding.name);
            return Err(Refusal::new(&codes::RESOURCE_EXISTS, text).instruct(command));
        }
    }
    let stored = env::list(conn, service.id)?;
    let missing = declared.service.secrets.iter().filter(|name| !has(name) && stored.iter().all(|secret| secret.name != **name));
    Ok(missing.cloned().collect())
}
