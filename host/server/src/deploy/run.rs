//! One build: checks, compilation, files, the health request, promotion. Whatever fails leaves the live deploy as it is.

use std::io::Read;
use std::time::Duration;

use http::{Request, header};
use tokio_util::sync::CancellationToken;
use tovuk_kernel::codes;
use tovuk_kernel::limits::{DEPLOY_BODY_BYTES_MAX, HEALTH_TIMEOUT_MS, Plan};
use tovuk_kernel::meters::Meter;
use tovuk_kernel::project;
use tovuk_kernel::resource::Kind;
use tovuk_runtime::artifacts::{self, Artifact, ArtifactId};
use tovuk_runtime::body::Body;
use tovuk_runtime::component::check_size;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::trace::TraceContext;

use super::files::{self, Files};
use super::kept::Kept;
use super::live::{Ready, Version};
use super::log::BuildLog;
use super::{accept, migrations, powers, uploads};
use crate::control::operations::{cron, queue_settings, sqlite};
use crate::control::store;
use crate::control::store::deploys::{self, BuildStatus, Deploy, Product, Promotion};
use crate::control::store::services::{self, Service};
use crate::control::{Control, Refusal};

/// Builds and promotes a deploy, unless it was cancelled meanwhile.
pub(super) async fn build(control: &Control, id: i64, cancel: &CancellationToken) {
    if control.builds().is_stopping() {
        // It waits in the database and is begun at the next start.
        return;
    }
    let now = control.now_ms();
    let begun = control.write(move |conn| {
        // Gone when its service was deleted.
        let Some((deploy, build)) = deploys::get(conn, id)?.zip(deploys::build_of(conn, id)?) else { return Ok(None) };
        let begun = deploys::start_build(conn, build.id, now)?;
        let version = begun.then(|| Version::of(conn, deploy.clone()));
        Ok(Some((deploy, build.id, version)))
    });
    let (deploy, result) = match begun.await {
        Ok(Some((deploy, build, Some(Ok(version))))) => {
            let log = BuildLog::of(control.logs(), &version, build);
            let attempted = cancel.run_until_cancelled(timed(control, &version.service, attempt(control, &version, &log, cancel))).await;
            let result = match attempted {
                // From here on it is finished or refused, and not left in between.
                Some(Ok(attempted)) => promote(control, id, attempted, &log).await,
                // Its migrations were stopped because the host ends.
                Some(Err(refusal)) if refusal.code == &codes::HOST_DRAINING => return interrupted(control, id).await,
                Some(Err(refusal)) => Err(refusal),
                None if control.builds().is_stopping() => return interrupted(control, id).await,
                None => Err(Refusal::new(&codes::BUILD_FAILED, "the deploy was cancelled")),
            };
            if let Err(refusal) = &result {
                let instruction = refusal.instruction.as_ref().map(|instruction| format!(" {instruction}")).unwrap_or_default();
                log.line(&format!("{}: {}{instruction}", status(cancel).as_str(), refusal.message));
                log.flush().await;
            }
            (deploy, result)
        }
        Ok(Some((deploy, _, Some(Err(refusal))))) => (deploy, Err(refusal)),
        // Cancelled before it began.
        Ok(Some((deploy, _, None))) => (deploy, Ok(())),
        Ok(None) => return,
        Err(refusal) => return tracing::error!("the build of deploy_{id} could not begin: {refusal}"),
    };
    if let Err(refusal) = &result {
        end(control, id, status(cancel), refusal).await;
    }
    finished(control, &deploy).await;
    if result.is_err() {
        // What it has built is no deploy's.
        uploads::sweep(control).await;
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Charges the minutes that a build takes, each when it begins. Where a cap has no room for another, the build ends. One that the host ends with itself is begun
/// again, and costs nothing until then.
async fn timed<T>(control: &Control, service: &Service, build: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    let mut charge = control.bill(service.account_id, service.id).reserve(Meter::BuildMinutes, 1).await?;
    let mut minutes = 1;
    let over = async {
        loop {
            control.clock().sleep(MINUTE).await;
            if let Err(error) = charge.extend(1).await {
                return Refusal::from(error);
            }
            minutes += 1;
        }
    };
    let result = tokio::select! {
        biased;
        result = build => result,
        refusal = over => Err(refusal),
    };
    let is_begun_again = matches!(&result, Err(refusal) if refusal.code == &codes::HOST_DRAINING) || control.builds().is_stopping();
    charge.settle(if is_begun_again { 0 } else { minutes });
    result
}

fn status(cancel: &CancellationToken) -> BuildStatus {
    if cancel.is_cancelled() { BuildStatus::Canceled } else { BuildStatus::Failed }
}

/// A build that the host ends with itself was no attempt.
async fn interrupted(control: &Control, deploy: i64) {
    if let Err(refusal) = control.write(move |conn| Ok(deploys::interrupted(conn, deploy)?)).await {
        tracing::error!("that the build of deploy_{deploy} was stopped could not be stored: {refusal}");
    }
}

async fn end(control: &Control, deploy: i64, status: BuildStatus, refusal: &Refusal) {
    let (now, text) = (control.now_ms(), format!("{}: {}", refusal.code.code, refusal.message));
    if let Err(refusal) = control.write(move |conn| Ok(deploys::end_build(conn, deploy, status, &text, now)?)).await {
        tracing::error!("the end of the build of deploy_{deploy} could not be stored: {refusal}");
    }
}

async fn finished(control: &Control, deploy: &Deploy) {
    if let Some(name) = deploy.upload.clone() {
        let data = control.config().data.clone();
        let _ = tovuk_kernel::threads::spawn_blocking(move || uploads::remove(&data, &name)).await;
    }
}

/// What a build has left, before it is promoted.
pub(super) struct Output {
    pub artifact: Option<Artifact>,
    pub component_bytes: Option<i64>,
    /// The digest that names the folder of static files.
    pub assets: Option<String>,
}

/// Keeps what a build has left until a row refers to it.
type Keeping = Vec<Kept>;

/// A version that was checked and can be promoted.
struct Attempted {
    output: Output,
    keeping: Keeping,
    product: Product,
    started_ms: u64,
}

/// Everything that can fail, before anything changes.
async fn attempt(control: &Control, version: &Version, log: &BuildLog, cancel: &CancellationToken) -> Result<Attempted, Refusal> {
    let started_ms = control.clock().monotonic_ms();
    log.line(&format!("building deploy_{} of {}", version.deploy.id, version.service.name));
    let (output, keeping) = output(control, version, log, cancel).await?;
    let product = product(control, version, &output, log).await?;
    migrate(control, version, log).await?;
    if let Some(path) = &version.declared.service.health {
        let ready = control.live().assemble(version.clone(), output.artifact.clone(), None)?;
        healthy(control, &ready, &version.service.slug, path, log).await?;
    }
    log.flush().await;
    Ok(Attempted { output, keeping, product, started_ms })
}

/// Gives the queues and cron triggers of a service the settings and expressions of the version that is about to go on the air, after the one that is on it.
/// For whoever has the air, so that no other version comes between.
pub(crate) async fn apply_settings(control: &Control, service: &Service, declared: &project::Service) -> Result<(), Refusal> {
    queue_settings::apply(control, service, declared).await?;
    cron::apply(control, service, declared).await
}

/// Brings the databases up to what the new version expects.
async fn migrate(control: &Control, version: &Version, log: &BuildLog) -> Result<(), Refusal> {
    let service = version.service.id;
    let databases = control.read(move |conn| Ok(store::resources::list(conn, service, Kind::Sqlite)?)).await?;
    sqlite::make(control, &databases).await?;
    let Some(name) = version.deploy.upload.clone() else { return Ok(()) };
    let data = control.config().data.clone();
    let read = tovuk_kernel::threads::spawn_blocking(move || uploads::read(&data, &name, uploads::MIGRATIONS).map_err(uploads::not_stored));
    let Some(stored) = read.await.map_err(Refusal::internal)?? else { return Ok(()) };
    let scripts = serde_json::from_slice(&stored).map_err(Refusal::internal)?;
    migrations::apply(control, version.service.id, version.plan, scripts, |line| log.line(line)).await
}

/// Puts what was built on the air, with the secrets, bindings, domains and plan of this moment: those of the build's beginning may be long gone.
async fn promote(control: &Control, id: i64, attempted: Attempted, log: &BuildLog) -> Result<(), Refusal> {
    let Attempted { output, keeping: _until_promoted, product, started_ms } = attempted;
    let gone = || Refusal::new(&codes::BUILD_FAILED, "the deploy was cancelled");
    let _air = control.air().await;
    let version = control.read(move |conn| deploys::get(conn, id)?.map(|deploy| Version::of(conn, deploy)).transpose()).await?;
    let version = version.ok_or_else(gone)?;
    let (deploy, service) = (version.deploy.clone(), version.service.clone());
    let is_promotable = control.read(move |conn| Ok(deploys::is_promotable(conn, id)?)).await?;
    let place = version.declared.place(&control.urls().service(&version.service.slug));
    let (kind, capabilities) = (version.declared.service.kind(), version.declared.service.capabilities());
    let folder = output.assets.as_deref().map(|digest| uploads::assets_folder(&control.config().data, digest));
    if is_promotable {
        // Before it is live, so that it is done once more where the host ends between the two. Not for one that was overtaken or cancelled: its settings would
        // stay, with nothing that says where they are from.
        apply_settings(control, &service, &version.declared.service).await?;
    }
    let ready = control.live().assemble(version, output.artifact, folder)?;
    let now = control.now_ms();
    let promotion = control
        .write(move |conn| {
            let promotion = deploys::promote(conn, &deploy, &product, now)?;
            if promotion == Promotion::Live {
                if !kind.has_worker() {
                    // Bindings can be made while it is built.
                    accept::unbound(conn, &service)?;
                }
                services::describe(conn, deploy.service_id, kind, &capabilities)?;
            }
            Ok(promotion)
        })
        .await?;
    match promotion {
        Promotion::Live => {
            control.live().put(control, ready);
            let took = control.clock().monotonic_ms().saturating_sub(started_ms);
            log.line(&format!("{place}, after {took} ms"));
            Ok(())
        }
        Promotion::Ended => Err(gone()),
        Promotion::Overtaken(later) => Err(Refusal::new(&codes::BUILD_FAILED, format!("deploy_{later}, which was asked for later, is live"))),
    }
}

async fn output(control: &Control, version: &Version, log: &BuildLog, cancel: &CancellationToken) -> Result<(Output, Keeping), Refusal> {
    let data = control.config().data.clone();
    let Some(name) = version.deploy.upload.clone() else { return Err(Refusal::internal("a build without an upload")) };
    let read = tovuk_kernel::threads::spawn_blocking({
        let (data, name) = (data.clone(), name.clone());
        move || {
            uploads::clear_workspace(&data, &name).map_err(uploads::not_stored)?;
            let read = |file| uploads::read(&data, &name, file).map_err(uploads::not_stored);
            Ok::<_, Refusal>((read(uploads::COMPONENT)?, read(uploads::ASSETS)?, read(uploads::SOURCE)?))
        }
    });
    let (component, archive, source) = read.await.map_err(Refusal::internal)??;
    if component.is_none() && archive.is_none() && source.is_none() {
        return Err(Refusal::new(&codes::BUILD_FAILED, "the upload was lost").instruct("Deploy again."));
    }
    let workspace = uploads::workspace(&data, &name);
    let (component, static_files) = match source {
        Some(source) => files::of_source(control, version, &workspace, source, log, cancel).await?,
        None => (component, archive.map(Files::Archive)),
    };
    let mut output = Output { artifact: None, component_bytes: None, assets: None };
    let mut keeping = Keeping::new();
    if let Some(component) = component {
        let (artifact, bytes, kept) = compile(control, version, component, log).await?;
        keeping.push(kept);
        output = Output { artifact: Some(artifact), component_bytes: Some(bytes), assets: None };
    }
    if let Some(static_files) = static_files {
        let (digest, kept) = files::store(control, workspace, static_files, log, cancel).await?;
        keeping.push(kept);
        output.assets = Some(digest);
    }
    Ok((output, keeping))
}

async fn compile(control: &Control, version: &Version, component: Vec<u8>, log: &BuildLog) -> Result<(Artifact, i64, Kept), Refusal> {
    let started = control.clock().monotonic_ms();
    let wasm = if component.starts_with(&[0x1f, 0x8b]) { inflate(component).await? } else { component };
    let (artifact, bytes, kept) = prepare(control, version.plan, wasm).await?;
    let took = control.clock().monotonic_ms().saturating_sub(started);
    log.line(&format!("component of {bytes} bytes, serves {}, compiled in {took} ms", artifact.description.world.interface()));
    Ok((artifact, bytes, kept))
}

/// Checks and compiles a component, which is kept until a row refers to it; the figure is its size.
pub(super) async fn prepare(control: &Control, plan: Plan, wasm: Vec<u8>) -> Result<(Artifact, i64, Kept), Refusal> {
    let refused = |refusal: tovuk_runtime::component::Refusal| Refusal::new(&codes::COMPONENT_REFUSED, refusal.to_string());
    let bytes = i64::try_from(wasm.len()).unwrap_or(i64::MAX);
    let checked = tovuk_kernel::threads::spawn_blocking(move || check_size(&wasm, plan).map(|()| (ArtifactId::of(&wasm), wasm)));
    let (id, wasm) = checked.await.map_err(Refusal::internal)?.map_err(refused)?;
    let kept = control.builds().keep(id.as_str()).await;
    let artifact = control.runtime().artifacts().prepare(&wasm).await.map_err(|error| match error {
        artifacts::Error::Refused(refusal) => refused(refusal),
        other => Refusal::internal(other),
    })?;
    Ok((artifact, bytes, kept))
}

async fn inflate(component: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let inflated = tovuk_kernel::threads::spawn_blocking(move || {
        let mut wasm = Vec::new();
        let mut decoder = flate2::read::MultiGzDecoder::new(&component[..]).take(DEPLOY_BODY_BYTES_MAX + 1);
        decoder.read_to_end(&mut wasm).map(|_| wasm)
    });
    let wasm = inflated.await.map_err(Refusal::internal)?;
    let wasm = wasm.map_err(|error| Refusal::new(&codes::COMPONENT_REFUSED, format!("the component is no valid gzip: {error}")))?;
    if wasm.len() as u64 > DEPLOY_BODY_BYTES_MAX {
        return Err(Refusal::new(&codes::COMPONENT_REFUSED, format!("the component has more than {DEPLOY_BODY_BYTES_MAX} bytes")));
    }
    Ok(wasm)
}

async fn product(control: &Control, version: &Version, output: &Output, log: &BuildLog) -> Result<Product, Refusal> {
    let service = version.service.id;
    let had = control.read(move |conn| powers_of_live(conn, service)).await?;
    let product = product_of(&version.declared.service, &had, output)?;
    let new: Vec<String> = serde_json::from_str(&product.new_powers).unwrap_or_default();
    if !new.is_empty() {
        log.line(&format!("new powers: {}", new.join(", ")));
    }
    Ok(product)
}

/// What the live deploy of a service may do.
pub(super) fn powers_of_live(conn: &rusqlite::Connection, service: i64) -> Result<Vec<String>, Refusal> {
    let live = Version::live(conn, service)?;
    Ok(live.and_then(|live| serde_json::from_str(&live.deploy.powers).ok()).unwrap_or_default())
}

/// What the database keeps of a build's output, after a deploy that could do what `had` says.
pub(super) fn product_of(declared: &tovuk_kernel::project::Service, had: &[String], output: &Output) -> Result<Product, Refusal> {
    let imports = output.artifact.as_ref().map(|artifact| artifact.description.imports.as_slice()).unwrap_or_default();
    let has = powers::of(imports, declared);
    let new: Vec<_> = has.iter().filter(|power| !had.contains(power)).collect();
    Ok(Product {
        artifact: output.artifact.as_ref().map(|artifact| artifact.id.as_str().to_owned()),
        assets: output.assets.clone(),
        component_bytes: output.component_bytes,
        powers: serde_json::to_string(&has).map_err(Refusal::internal)?,
        new_powers: serde_json::to_string(&new).map_err(Refusal::internal)?,
    })
}

/// Asks the version its health request, before anybody else can ask it anything.
async fn healthy(control: &Control, ready: &Ready, slug: &str, path: &str, log: &BuildLog) -> Result<(), Refusal> {
    let Some(alone) = ready.alone(control.runtime().services()) else { return Ok(()) };
    // It may print what it was given.
    control.live().conceal(ready);
    let failed = |text: String| Refusal::new(&codes::HEALTH_CHECK_FAILED, format!("GET {path}: {text}"));
    let host = control.urls().host(slug);
    let request = Request::get(path).header(header::HOST, host).header(header::USER_AGENT, "tovuk-health").body(Body::Empty);
    let request = request.map_err(|error| failed(error.to_string()))?;
    let context = TraceContext::of(request.headers());
    let invocation = control.runtime().invoke(&alone, Event::Http(request), Budget::top_level(context));
    let answered = control.clock().timeout(Duration::from_millis(HEALTH_TIMEOUT_MS), invocation).await;
    match answered {
        None => Err(failed(format!("no answer within {HEALTH_TIMEOUT_MS} ms"))),
        Some(Err(failure)) => Err(failed(format!("{}: {}", failure.code.code, failure.message))),
        Some(Ok(started)) if started.response.status().as_u16() >= 400 => Err(failed(format!("answered {}", started.response.status().as_u16()))),
        Some(Ok(started)) => {
            log.line(&format!("GET {path} answered {}", started.response.status().as_u16()));
            Ok(())
        }
    }
}
