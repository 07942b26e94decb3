//! One build: checks, compilation, files, the health request, promotion. Whatever fails leaves the live deploy as it is.

use std::io::Read;
use std::time::Duration;

use http::{Request, header};
use tokio_util::sync::CancellationToken;
use tovuk_kernel::codes;
use tovuk_kernel::limits::{DEPLOY_BODY_BYTES_MAX, HEALTH_TIMEOUT_MS};
use tovuk_runtime::artifacts::{self, Artifact};
use tovuk_runtime::body::Body;
use tovuk_runtime::component::check_size;
use tovuk_runtime::invoke::{Budget, Event};
use tovuk_runtime::trace::TraceContext;

use super::live::{Ready, Version};
use super::files::{self, Files};
use super::log::BuildLog;
use super::{powers, uploads};
use crate::control::store::deploys::{self, BuildStatus, Deploy, Product};
use crate::control::{Control, Refusal};

/// Builds and promotes a deploy, unless it was cancelled meanwhile.
pub(super) async fn build(control: &Control, id: i64, cancel: CancellationToken) {
    let now = control.now_ms();
    let begun = control.write(move |conn| {
        let build = id_of_build(conn, id)?;
        let begun = deploys::start_build(conn, build, now)?;
        Ok(begun.then(|| deploys::get(conn, id)).transpose()?.flatten().map(|deploy| Ok((Version::of(conn, deploy)?, build))))
    });
    let (version, build) = match begun.await {
        Ok(Some(Ok(begun))) => begun,
        Ok(Some(Err(refusal))) => return end(control, id, BuildStatus::Failed, &refusal).await,
        // Cancelled before it began.
        Ok(None) => return,
        Err(refusal) => return tracing::error!("the build of deploy_{id} could not begin: {refusal}"),
    };
    let deploy = version.deploy.clone();
    let log = BuildLog::of(control.logs(), &version, build);
    let result = cancel.run_until_cancelled(attempt(control, version, &log, &cancel)).await;
    let refusal = match result {
        Some(Ok(())) => {
            finished(control, &deploy).await;
            return;
        }
        // What the host stopped is begun again.
        None if control.builds().is_stopping() => return,
        None => Refusal::new(&codes::BUILD_FAILED, "the deploy was cancelled"),
        Some(Err(refusal)) => refusal,
    };
    let status = if cancel.is_cancelled() { BuildStatus::Canceled } else { BuildStatus::Failed };
    let text = match &refusal.instruction {
        Some(instruction) => format!("{} {instruction}", refusal.message),
        None => refusal.message.clone(),
    };
    log.line(&format!("{}: {text}", status.as_str()));
    log.flush().await;
    end(control, id, status, &refusal).await;
    finished(control, &deploy).await;
}

/// A deploy and its build are made together; their numbers need not be equal.
fn id_of_build(conn: &rusqlite::Connection, deploy: i64) -> Result<i64, Refusal> {
    let build = deploys::build_of(conn, deploy)?;
    build.map(|build| build.id).ok_or_else(|| Refusal::internal(format!("deploy_{deploy} has no build")))
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
        // One that stays behind is swept at the next start.
        let _ = tokio::task::spawn_blocking(move || uploads::remove(&data, &name)).await;
    }
}

/// What a build has left, before it is promoted.
struct Output {
    artifact: Option<Artifact>,
    component_bytes: Option<i64>,
    /// The digest that names the folder of static files.
    assets: Option<String>,
}

async fn attempt(control: &Control, version: Version, log: &BuildLog, cancel: &CancellationToken) -> Result<(), Refusal> {
    let started = control.clock().monotonic_ms();
    log.line(&format!("building deploy_{} of {}", version.deploy.id, version.service.name));
    let output = output(control, &version, log, cancel).await?;
    let product = product(control, &version, &output, log).await?;
    let folder = output.assets.as_deref().map(|digest| uploads::assets_folder(&control.config().data, digest));
    let health = version.declared.service.health.clone();
    let (deploy, service) = (version.deploy.clone(), version.service.clone());
    let ready = control.live().assemble(version, output.artifact, folder)?;
    if let Some(path) = health {
        healthy(control, &ready, &service.slug, &path, log).await?;
    }
    let now = control.now_ms();
    log.flush().await;
    let promoted = control.write(move |conn| Ok(deploys::promote(conn, &deploy, &product, now)?)).await?;
    if !promoted {
        return Err(Refusal::new(&codes::BUILD_FAILED, "the deploy was cancelled"));
    }
    control.live().put(control, ready);
    log.line(&format!("live at {} after {} ms", control.urls().service(&service.slug), control.clock().monotonic_ms().saturating_sub(started)));
    Ok(())
}

async fn output(control: &Control, version: &Version, log: &BuildLog, cancel: &CancellationToken) -> Result<Output, Refusal> {
    let data = control.config().data.clone();
    let Some(name) = version.deploy.upload.clone() else { return Err(Refusal::internal("a build without an upload")) };
    let read = tokio::task::spawn_blocking({
        let (data, name) = (data.clone(), name.clone());
        move || {
            let read = |file| uploads::read(&data, &name, file).map_err(uploads::not_stored);
            Ok::<_, Refusal>((read(uploads::COMPONENT)?, read(uploads::ASSETS)?, read(uploads::SOURCE)?))
        }
    });
    let (component, archive, source) = read.await.map_err(Refusal::internal)??;
    if component.is_none() && archive.is_none() && source.is_none() {
        return Err(Refusal::new(&codes::BUILD_FAILED, "the upload was lost").instruct("Deploy again."));
    }
    let (component, static_files) = match source {
        Some(source) => files::of_source(control, version, source, log, cancel).await?,
        None => (component, archive.map(Files::Archive)),
    };
    let (artifact, component_bytes) = match component {
        Some(component) => {
            let (artifact, bytes) = compile(control, version, component, log).await?;
            (Some(artifact), Some(bytes))
        }
        None => (None, None),
    };
    let assets = match static_files {
        Some(static_files) => Some(files::store(&data, static_files, log, cancel).await?),
        None => None,
    };
    Ok(Output { artifact, component_bytes, assets })
}

async fn compile(control: &Control, version: &Version, component: Vec<u8>, log: &BuildLog) -> Result<(Artifact, i64), Refusal> {
    let started = control.clock().monotonic_ms();
    let wasm = if component.starts_with(&[0x1f, 0x8b]) { inflate(component).await? } else { component };
    let refused = |refusal: tovuk_runtime::component::Refusal| Refusal::new(&codes::COMPONENT_REFUSED, refusal.to_string());
    let (plan, bytes) = (version.plan, i64::try_from(wasm.len()).unwrap_or(i64::MAX));
    let wasm = tokio::task::spawn_blocking(move || check_size(&wasm, plan).map(|()| wasm)).await.map_err(Refusal::internal)?.map_err(refused)?;
    let artifact = control.runtime().artifacts().prepare(&wasm).await.map_err(|error| match error {
        artifacts::Error::Refused(refusal) => refused(refusal),
        other => Refusal::internal(other),
    })?;
    let took = control.clock().monotonic_ms().saturating_sub(started);
    log.line(&format!("component of {bytes} bytes, serves {}, compiled in {took} ms", artifact.description.world.interface()));
    Ok((artifact, bytes))
}

async fn inflate(component: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let inflated = tokio::task::spawn_blocking(move || {
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
    let imports = output.artifact.as_ref().map(|artifact| artifact.description.imports.as_slice()).unwrap_or_default();
    let has = powers::of(imports, &version.declared.service);
    let service = version.service.id;
    let before = control.read(move |conn| Ok(Version::live(conn, service)?.map(|live| live.deploy.powers))).await?;
    let had: Vec<String> = before.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default();
    let new: Vec<_> = has.iter().filter(|power| !had.contains(power)).collect();
    if !new.is_empty() {
        let list: Vec<_> = new.iter().map(|power| power.as_str()).collect();
        log.line(&format!("new powers: {}", list.join(", ")));
    }
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
    let Some(alone) = ready.alone() else { return Ok(()) };
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
