//! A deploy as it comes in: read, checked against what the account has, and stored. When it is acknowledged, its build begins by itself.

use rusqlite::Connection;
use serde_json::{Value, json};
use tovuk_kernel::codes;
use tovuk_kernel::limits::{BUILDS_OPEN_ACCOUNT_MAX, COMMIT_SHA_BYTES_MAX, UPLOADS_OPEN_ACCOUNT_BYTES_MAX};
use tovuk_kernel::project::{self, Capabilities, Parsed};

use super::migrations::{self, Migrations};
use super::uploads::{self, Upload};
use crate::control::operations::{bindings, cron, note, queue_settings, resources, services, sqlite};
use crate::control::store::deploys::{Build, Deploy, NewDeploy};
use crate::control::store::services::Service;
use crate::control::store::{self, deploys, env};
use crate::control::vault::random;
use crate::control::{Caller, Control, Refusal};

/// A deploy that was asked for.
pub(crate) struct Submission {
    /// The service's table of the project file, or the published client's form.
    pub config: Value,
    /// The service's name; absent where the published form has it.
    pub service: Option<String>,
    /// The commit that the client names.
    pub commit_sha: Option<String>,
    /// Scripts for its databases.
    pub migrations: Migrations,
    /// What came with it.
    pub upload: Upload,
}

/// A deploy that was accepted.
pub(crate) struct Accepted {
    /// The service.
    pub service: Service,
    /// The deploy.
    pub deploy: Deploy,
    /// Its build, which waits.
    pub build: Build,
}

/// One service as its configuration declares it.
#[derive(Clone)]
pub(crate) struct Declared {
    /// Its name.
    pub name: String,
    /// What it declares.
    pub service: project::Service,
    /// The same as JSON, as it is kept.
    pub config: String,
}

impl Declared {
    /// Where the service is once it is live, for its log.
    pub fn place(&self, url: &str) -> String {
        let is_public = self.service.is_public() || self.service.kind().has_assets();
        if is_public { format!("live at {url}") } else { "live and private: it has no routes".to_owned() }
    }
}

/// Reads a service's configuration in either form.
pub(crate) fn declared(config: &Value, service: Option<&str>) -> Result<Declared, Refusal> {
    let invalid = |text: String| Refusal::new(&codes::INVALID_CONFIG, text);
    let published = config.get("name").is_some() && config.get("capabilities").is_some();
    let whole = match (published, service) {
        (true, _) => config.clone(),
        (false, Some(name)) => json!({"services": {name: config}}),
        (false, None) => {
            return Err(invalid("`service` must name the service whose table `config` is".to_owned()).instruct("Send `service` beside `config`."));
        }
    };
    let kept = whole.to_string();
    let parsed = project::parse_value(whole).map_err(|problems| {
        let text: Vec<_> = problems
            .iter()
            .map(|problem| if problem.path.is_empty() { problem.message.clone() } else { format!("{}: {}", problem.path, problem.message) })
            .collect();
        let help = problems.iter().find_map(|problem| problem.help.clone());
        let refusal = invalid(text.join("; "));
        match help {
            Some(help) => refusal.instruct(help),
            None => refusal,
        }
    })?;
    let declared = one(parsed, kept).ok_or_else(|| invalid("the configuration declares no service".to_owned()))?;
    cron::check(&declared.service)?;
    Ok(declared)
}

/// The configuration of a deploy that was accepted before.
pub(crate) fn kept(config: &str) -> Result<Declared, Refusal> {
    let value: Value = serde_json::from_str(config).map_err(Refusal::internal)?;
    let parsed = project::parse_value(value).map_err(|_| Refusal::internal("a stored configuration is no longer valid"))?;
    one(parsed, config.to_owned()).ok_or_else(|| Refusal::internal("a stored configuration declares no service"))
}

fn one(parsed: Parsed, config: String) -> Option<Declared> {
    let (name, service) = parsed.project.services.into_iter().next()?;
    Some(Declared { name, service, config })
}

/// Takes a deploy in.
pub(crate) async fn accept(control: &Control, caller: Caller, submission: Submission) -> Result<Accepted, Refusal> {
    if control.is_draining() {
        return Err(Refusal::new(&codes::HOST_DRAINING, "the node takes no new deploys"));
    }
    let declared = declared(&submission.config, submission.service.as_deref())?;
    check_upload(control, &declared, &submission.upload)?;
    migrations::check(&declared.name, &declared.service, &submission.migrations)?;
    if submission.commit_sha.as_ref().is_some_and(|commit| commit.len() > COMMIT_SHA_BYTES_MAX) {
        return Err(Refusal::new(&codes::INVALID_REQUEST, format!("`commit_sha` may have {COMMIT_SHA_BYTES_MAX} bytes")));
    }
    let source = match &submission.upload {
        Upload { source: Some(_), .. } => "source",
        Upload { component: Some(_), .. } => "component",
        _ => "assets",
    };
    let account = caller.account_number();
    let open = control.read(move |conn| {
        check_open(conn, account)?;
        Ok(deploys::open_uploads(conn, Some(account))?)
    });
    let open = open.await?;
    let name = format!("upload-{}", hex::encode(random::<12>().map_err(Refusal::internal)?));
    // From before the first byte is on disk until a row refers to it.
    let _kept = control.builds().keep(&name).await;
    let mut upload = submission.upload;
    if !submission.migrations.is_empty() {
        upload.migrations = Some(serde_json::to_vec(&submission.migrations).map_err(Refusal::internal)?);
    }
    let (data, folder) = (control.config().data.clone(), name.clone());
    let stored = tovuk_kernel::threads::spawn_blocking(move || {
        check_room(uploads::bytes(&data, &open).saturating_add(upload.bytes()))?;
        uploads::store(&data, &folder, &upload).map_err(uploads::not_stored)
    });
    let accepted = match stored.await.map_err(Refusal::internal)? {
        Ok(()) => record(control, caller, declared, source, submission.commit_sha, Some(name.clone())).await,
        Err(refusal) => Err(refusal),
    };
    match accepted {
        Ok(accepted) => {
            control.builds().begin(control, accepted.service.account_id, accepted.service.id, accepted.deploy.id);
            Ok(accepted)
        }
        Err(refusal) => {
            let data = control.config().data.clone();
            let _ = tovuk_kernel::threads::spawn_blocking(move || uploads::remove(&data, &name)).await;
            Err(refusal)
        }
    }
}

/// Looked at before an upload is written, and again when it is recorded.
fn check_open(conn: &Connection, account: i64) -> Result<(), Refusal> {
    if deploys::count_open(conn, account)? < BUILDS_OPEN_ACCOUNT_MAX {
        return Ok(());
    }
    Err(too_many(format!("{BUILDS_OPEN_ACCOUNT_MAX} builds of the account wait or run")))
}

/// Whether builds of one account may have uploads of this size together. Those that come in at the same moment are not counted against each other; what
/// one account can send at a time is limited as well.
fn check_room(bytes: u64) -> Result<(), Refusal> {
    if bytes <= UPLOADS_OPEN_ACCOUNT_BYTES_MAX {
        return Ok(());
    }
    Err(too_many(format!("builds of the account that wait or run would have uploads of {bytes} bytes; {UPLOADS_OPEN_ACCOUNT_BYTES_MAX} are allowed")))
}

fn too_many(text: String) -> Refusal {
    Refusal::new(&codes::TOO_MANY_REQUESTS, text).instruct("Wait until some have ended, then deploy again.")
}

/// Whether source is static files that are served as they are. The published client writes `:` for a build that does nothing.
pub(super) fn is_plain(service: &project::Service) -> bool {
    !service.kind().has_worker() && service.build.as_deref().is_none_or(|build| matches!(build.trim(), "" | ":" | "true"))
}

/// What must be uploaded follows from what is declared.
fn check_upload(control: &Control, declared: &Declared, upload: &Upload) -> Result<(), Refusal> {
    let refuse = |text: String, instruction: &str| Err(Refusal::new(&codes::INVALID_REQUEST, text).instruct(instruction));
    let kind = declared.service.kind();
    let name = &declared.name;
    if upload.source.is_some() {
        if upload.component.is_some() || upload.assets.is_some() {
            return refuse(format!("`{name}` came both as source and built"), "Send either source, or what was built from it.");
        }
        return if is_plain(&declared.service) { Ok(()) } else { control.builds().check_remote(name) };
    }
    if kind.has_worker() != upload.component.is_some() {
        let text = format!("`{name}` is a `{}` and {} a component", kind.as_str(), if kind.has_worker() { "needs" } else { "has no use for" });
        return refuse(text, "Send `component_base64` for services with a worker, and for no others. `tovuk deploy` does so.");
    }
    if kind.has_assets() != upload.assets.is_some() {
        let text = format!("`{name}` is a `{}` and {} static files", kind.as_str(), if kind.has_assets() { "needs" } else { "has no use for" });
        return refuse(text, "Send `assets_archive_base64` for services with static files, and for no others. `tovuk deploy` does so.");
    }
    Ok(())
}

/// Makes the service if it is new, what the file declares and is missing, and the deploy: all or nothing.
async fn record(
    control: &Control,
    caller: Caller,
    declared: Declared,
    source: &'static str,
    commit_sha: Option<String>,
    upload: Option<String>,
) -> Result<Accepted, Refusal> {
    let now = control.now_ms();
    let nonce = random::<16>().map_err(Refusal::internal)?;
    let air = control.air().await;
    let (service, accepted) = control
        .write(move |conn| {
            let account = caller.account_number();
            check_open(conn, account)?;
            let service = ensure_service(conn, account, &declared, now)?;
            if !service.kind.has_worker() {
                unbound(conn, &service)?;
            }
            if let Err(refusal) = check_secrets(conn, &service, &declared) {
                // The service stays: without it, there would be nothing to set the secrets of.
                return Ok((service, Err(refusal)));
            }
            let made = resources::ensure(conn, &service, &declared.service, now)?;
            for binding in &declared.service.bindings {
                bindings::ensure(conn, &service, binding.name(), &binding.service, binding.env.as_deref(), now)?;
            }
            let new = NewDeploy {
                service_id: service.id,
                source,
                upload: upload.as_deref(),
                commit_sha: commit_sha.as_deref(),
                config: &declared.config,
                rollback_of: None,
                token_nonce: &nonce,
                now_ms: now,
            };
            let (deploy, build) = deploys::create(conn, &new)?;
            note(conn, &caller, "deploy.create", Some(service.id), &format!("deploy_{}", deploy.id), now)?;
            Ok((service.clone(), Ok((Accepted { service, deploy, build }, made, declared))))
        })
        .await?;
    control.live().register(&service);
    drop(air);
    let (accepted, made, declared) = accepted?;
    if let Err(refusal) = sqlite::make(control, &made).await {
        // The build tries again, and fails if it cannot.
        tracing::warn!("a database of {} has no file yet: {refusal}", accepted.service.name);
    }
    if let Err(refusal) = cron::make(control, accepted.service.id, &made, &declared.service).await {
        tracing::warn!("a cron trigger of {} is not there yet: {refusal}", accepted.service.name);
    }
    if let Err(refusal) = queue_settings::make(control, &accepted.service, &declared.service).await {
        tracing::warn!("a queue of {} is not there yet: {refusal}", accepted.service.name);
    }
    Ok(accepted)
}

/// Makes a service that is new, and says of any what it is going to be: its row says what is live, and follows when that is.
pub(super) fn ensure_service(conn: &Connection, account: i64, declared: &Declared, now_ms: i64) -> Result<Service, Refusal> {
    let kind = declared.service.kind();
    let capabilities: Capabilities = declared.service.capabilities();
    match crate::control::store::services::find(conn, account, &declared.name)? {
        Some(service) => Ok(Service { kind, capabilities, ..service }),
        None => services::create(conn, account, &declared.name, kind, &capabilities, now_ms),
    }
}

/// Refuses to make a static frontend of a service that others are bound to, or that is bound itself.
pub(crate) fn unbound(conn: &Connection, service: &Service) -> Result<(), Refusal> {
    let callers = store::bindings::callers(conn, service.id)?;
    let own = store::bindings::list(conn, service.id)?;
    let bindings = own.iter().map(|binding| (&service.name, &binding.name)).chain(callers.iter().map(|(caller, name)| (caller, name)));
    let commands: Vec<_> = bindings.map(|(service, name)| format!("`tovuk binding delete --service {service} {name}`")).collect();
    if commands.is_empty() {
        return Ok(());
    }
    let text = format!("`{}` has bindings or is the target of some, and a static frontend has no worker to bind", service.name);
    Err(Refusal::new(&codes::BINDING_REFUSED, text).instruct(format!("Run {}, then try again.", commands.join(" and "))))
}

fn check_secrets(conn: &Connection, service: &Service, declared: &Declared) -> Result<(), Refusal> {
    let held = env::list(conn, service.id)?;
    let missing: Vec<_> = declared.service.secrets.iter().filter(|name| held.iter().all(|secret| secret.name != **name)).cloned().collect();
    if missing.is_empty() {
        return Ok(());
    }
    let commands: Vec<_> = missing.iter().map(|name| format!("`tovuk env set {name}=<value> --service {}`", service.name)).collect();
    let text = format!("`{}` declares secrets that are not set: {}", service.name, missing.join(", "));
    Err(Refusal::new(&codes::SECRET_MISSING, text).instruct(format!("Run {}, then deploy again.", commands.join(" and "))).detail("missing", missing))
}
