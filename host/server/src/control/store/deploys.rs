//! Deploys and their builds.

use rusqlite::{Connection, OptionalExtension, Row, params};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tovuk_kernel::limits::{DEPLOYS_KEPT, LOCAL_DEPLOYS_KEPT};

/// The source of a deploy that nobody uploaded: the author's own build, whose files are served from where it left them.
pub const LOCAL: &str = "local";

/// Where a deploy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeployStatus {
    /// Its build has not begun or not ended.
    Building,
    /// It serves.
    Live,
    /// It has served.
    Superseded,
    /// Its build has failed.
    Failed,
    /// It was cancelled.
    Canceled,
}

/// Where a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// It waits for its turn.
    Queued,
    /// It runs.
    Running,
    /// What it has built was promoted.
    Succeeded,
    /// It has failed, and what was live still is.
    Failed,
    /// It was cancelled.
    Canceled,
}

macro_rules! names {
    ($type:ident { $($variant:ident = $name:literal),* }) => {
        impl $type {
            /// The name in the database and in the API.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            fn named(name: &str) -> Self {
                match name { $($name => Self::$variant,)* _ => Self::Failed }
            }
        }
    };
}
names!(DeployStatus { Building = "building", Live = "live", Superseded = "superseded", Failed = "failed", Canceled = "canceled" });
names!(BuildStatus { Queued = "queued", Running = "running", Succeeded = "succeeded", Failed = "failed", Canceled = "canceled" });

/// A deploy.
#[derive(Clone, Debug)]
pub struct Deploy {
    /// Its number.
    pub id: i64,
    /// The service.
    pub service_id: i64,
    /// Where it stands.
    pub status: DeployStatus,
    /// What was uploaded: `component`, `assets`, `source`, `local` or `rollback`.
    pub source: String,
    /// The folder of what was uploaded, until the build has ended.
    pub upload: Option<String>,
    /// The commit that the client named.
    pub commit_sha: Option<String>,
    /// The service's table of the project file, as JSON.
    pub config: String,
    /// The component that was built or uploaded.
    pub artifact: Option<String>,
    /// The folder of static files, by content.
    pub assets: Option<String>,
    /// Bytes of the component.
    pub component_bytes: Option<i64>,
    /// What the component's imports let it do, as JSON.
    pub powers: String,
    /// Which of these the deploy that was live before did not have, as JSON.
    pub new_powers: String,
    /// Why it failed, or what to look at.
    pub message: String,
    /// The deploy that this one brings back.
    pub rollback_of: Option<i64>,
    /// What the token of its worker is derived from.
    pub token_nonce: Vec<u8>,
    /// When it was asked for.
    pub created_ms: i64,
    /// When it went live.
    pub promoted_ms: Option<i64>,
    /// When it stopped being live, failed or was cancelled.
    pub ended_ms: Option<i64>,
}

/// A build.
#[derive(Clone, Debug)]
pub struct Build {
    /// Its number.
    pub id: i64,
    /// Its deploy.
    pub deploy_id: i64,
    /// Where it stands.
    pub status: BuildStatus,
    /// Why it failed, or what it does now.
    pub message: String,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was asked for.
    pub created_ms: i64,
    /// When it was begun.
    pub started_ms: Option<i64>,
    /// When it ended.
    pub ended_ms: Option<i64>,
}

fn deploy(row: &Row<'_>) -> rusqlite::Result<Deploy> {
    Ok(Deploy {
        id: row.get("id")?,
        service_id: row.get("service_id")?,
        status: DeployStatus::named(&row.get::<_, String>("status")?),
        source: row.get("source")?,
        upload: row.get("upload")?,
        commit_sha: row.get("commit_sha")?,
        config: row.get("config")?,
        artifact: row.get("artifact")?,
        assets: row.get("assets")?,
        component_bytes: row.get("component_bytes")?,
        powers: row.get("powers")?,
        new_powers: row.get("new_powers")?,
        message: row.get("message")?,
        rollback_of: row.get("rollback_of")?,
        token_nonce: row.get("token_nonce")?,
        created_ms: row.get("created_ms")?,
        promoted_ms: row.get("promoted_ms")?,
        ended_ms: row.get("ended_ms")?,
    })
}

fn build(row: &Row<'_>) -> rusqlite::Result<Build> {
    Ok(Build {
        id: row.get("id")?,
        deploy_id: row.get("deploy_id")?,
        status: BuildStatus::named(&row.get::<_, String>("status")?),
        message: row.get("message")?,
        attempts: row.get("attempts")?,
        created_ms: row.get("created_ms")?,
        started_ms: row.get("started_ms")?,
        ended_ms: row.get("ended_ms")?,
    })
}

/// What a new deploy begins with.
#[derive(Debug)]
pub struct NewDeploy<'a> {
    /// The service.
    pub service_id: i64,
    /// What was uploaded.
    pub source: &'a str,
    /// The folder of what was uploaded.
    pub upload: Option<&'a str>,
    /// The commit that the client named.
    pub commit_sha: Option<&'a str>,
    /// The service's table as JSON.
    pub config: &'a str,
    /// The deploy that it brings back.
    pub rollback_of: Option<i64>,
    /// What the token of its worker is derived from.
    pub token_nonce: &'a [u8],
    /// Now.
    pub now_ms: i64,
}

/// Makes a deploy with a build that waits.
pub fn create(conn: &Connection, new: &NewDeploy<'_>) -> rusqlite::Result<(Deploy, Build)> {
    let sql = "insert into deploys (service_id, status, source, commit_sha, config, rollback_of, token_nonce, created_ms, upload)
        values (?1, 'building', ?2, ?3, ?4, ?5, ?6, ?7, ?8) returning *";
    let row = params![new.service_id, new.source, new.commit_sha, new.config, new.rollback_of, new.token_nonce, new.now_ms, new.upload];
    let deploy = conn.prepare_cached(sql)?.query_row(row, deploy)?;
    let sql = "insert into builds (deploy_id, status, created_ms) values (?1, 'queued', ?2) returning *";
    let build = conn.prepare_cached(sql)?.query_row(params![deploy.id, new.now_ms], build)?;
    // Here and not where one goes live: those that always fail are history as well.
    prune(conn, new.service_id, new.source)?;
    Ok((deploy, build))
}

/// The deploy of this number.
pub fn get(conn: &Connection, id: i64) -> rusqlite::Result<Option<Deploy>> {
    conn.prepare_cached("select * from deploys where id = ?1")?.query_row([id], deploy).optional()
}

/// The account's deploy of this number.
pub fn find(conn: &Connection, account_id: i64, id: i64) -> rusqlite::Result<Option<Deploy>> {
    let sql = "select d.* from deploys d join services s on s.id = d.service_id where s.account_id = ?1 and d.id = ?2";
    conn.prepare_cached(sql)?.query_row(params![account_id, id], deploy).optional()
}

/// The account's build of this number.
pub fn find_build(conn: &Connection, account_id: i64, id: i64) -> rusqlite::Result<Option<Build>> {
    let sql =
        "select b.* from builds b join deploys d on d.id = b.deploy_id join services s on s.id = d.service_id where s.account_id = ?1 and b.id = ?2";
    conn.prepare_cached(sql)?.query_row(params![account_id, id], build).optional()
}

/// The build of a deploy.
pub fn build_of(conn: &Connection, deploy_id: i64) -> rusqlite::Result<Option<Build>> {
    conn.prepare_cached("select * from builds where deploy_id = ?1")?.query_row([deploy_id], build).optional()
}

/// The newest deploys before a place, the newest first: of a service, or of all services of the account.
pub fn page(conn: &Connection, account_id: i64, service_id: Option<i64>, before: i64, limit: u32) -> rusqlite::Result<Vec<Deploy>> {
    match service_id {
        Some(service_id) => conn
            .prepare_cached("select * from deploys where service_id = ?1 and id < ?2 order by id desc limit ?3")?
            .query_map(params![service_id, before, limit], deploy)?
            .collect(),
        None => conn
            .prepare_cached(
                "select d.* from deploys d join services s on s.id = d.service_id where s.account_id = ?1 and d.id < ?2 order by d.id desc limit ?3",
            )?
            .query_map(params![account_id, before, limit], deploy)?
            .collect(),
    }
}

/// Builds that have not ended, the oldest first.
pub fn open_builds(conn: &Connection) -> rusqlite::Result<Vec<Build>> {
    conn.prepare("select * from builds where status in ('queued', 'running') order by id")?.query_map([], build)?.collect()
}

/// The deploys of a service whose builds have not ended.
pub fn building(conn: &Connection, service_id: i64) -> rusqlite::Result<Vec<i64>> {
    let sql = "select d.id from deploys d join builds b on b.deploy_id = d.id where d.service_id = ?1 and b.status in ('queued', 'running')";
    conn.prepare_cached(sql)?.query_map([service_id], |row| row.get(0))?.collect()
}

/// How many builds of an account have not ended.
pub fn count_open(conn: &Connection, account_id: i64) -> rusqlite::Result<u64> {
    let sql = "select count(*) from builds b join deploys d on d.id = b.deploy_id join services s on s.id = d.service_id
        where b.status in ('queued', 'running') and s.account_id = ?1";
    conn.prepare_cached(sql)?.query_row([account_id], |row| row.get(0)).map(i64::cast_unsigned)
}

/// The uploads of builds that have not ended: of one account, or of all.
pub fn open_uploads(conn: &Connection, account_id: Option<i64>) -> rusqlite::Result<Vec<String>> {
    let sql = "select d.upload from builds b join deploys d on d.id = b.deploy_id join services s on s.id = d.service_id
        where b.status in ('queued', 'running') and d.upload is not null and (?1 is null or s.account_id = ?1)";
    conn.prepare_cached(sql)?.query_map([account_id], |row| row.get(0))?.collect()
}

/// Puts a build that the host has stopped back where it was before it began.
pub fn interrupted(conn: &Connection, deploy_id: i64) -> rusqlite::Result<()> {
    let sql = "update builds set status = 'queued', attempts = attempts - 1, started_ms = null where deploy_id = ?1 and status = 'running'";
    conn.prepare_cached(sql)?.execute([deploy_id]).map(drop)
}

/// Begins a build; false when it has ended meanwhile.
pub fn start_build(conn: &Connection, id: i64, now_ms: i64) -> rusqlite::Result<bool> {
    let sql = "update builds set status = 'running', attempts = attempts + 1, started_ms = ?2 where id = ?1 and status in ('queued', 'running')";
    Ok(conn.execute(sql, params![id, now_ms])? == 1)
}

/// Ends a build and its deploy without success; false when they had ended.
pub fn end_build(conn: &Connection, deploy_id: i64, status: BuildStatus, message: &str, now_ms: i64) -> rusqlite::Result<bool> {
    let sql = "update builds set status = ?2, message = ?3, ended_ms = ?4 where deploy_id = ?1 and status in ('queued', 'running')";
    let ended = conn.execute(sql, params![deploy_id, status.as_str(), message, now_ms])? == 1;
    if ended {
        let deploy = if status == BuildStatus::Canceled { DeployStatus::Canceled } else { DeployStatus::Failed };
        let sql = "update deploys set status = ?2, message = ?3, ended_ms = ?4 where id = ?1";
        conn.execute(sql, params![deploy_id, deploy.as_str(), message, now_ms])?;
    }
    Ok(ended)
}

/// What a build has left.
#[derive(Clone, Debug, Default)]
pub struct Product {
    /// The component.
    pub artifact: Option<String>,
    /// The folder of static files.
    pub assets: Option<String>,
    /// Bytes of the component.
    pub component_bytes: Option<i64>,
    /// What the component's imports let it do, as JSON.
    pub powers: String,
    /// Which of these are new, as JSON.
    pub new_powers: String,
}

/// What has become of a deploy that was to be promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// It is live.
    Live,
    /// Its build had ended otherwise: it was cancelled. Nothing has changed.
    Ended,
    /// A later deploy is live, so this one's build has ended as cancelled.
    Overtaken(i64),
}

/// Whether [`promote`] would make a deploy the live one of its service: its build has not ended, and no later one is live.
pub fn is_promotable(conn: &Connection, deploy: i64) -> rusqlite::Result<bool> {
    let sql = "select exists (select 1 from builds where deploy_id = d.id and status in ('queued', 'running'))
            and coalesce((select live_deploy_id from services where id = d.service_id), 0) <= d.id
        from deploys d where d.id = ?1";
    Ok(conn.prepare_cached(sql)?.query_row([deploy], |row| row.get(0)).optional()?.unwrap_or(false))
}

/// Makes a deploy the live one of its service and ends its build.
pub fn promote(conn: &Connection, deploy: &Deploy, product: &Product, now_ms: i64) -> rusqlite::Result<Promotion> {
    let live: Option<i64> =
        conn.prepare_cached("select live_deploy_id from services where id = ?1")?.query_row([deploy.service_id], |row| row.get(0))?;
    if let Some(later) = live.filter(|live| *live > deploy.id) {
        let text = format!("deploy_{later}, which was asked for later, is live");
        let ended = end_build(conn, deploy.id, BuildStatus::Canceled, &text, now_ms)?;
        return Ok(if ended { Promotion::Overtaken(later) } else { Promotion::Ended });
    }
    let sql = "update builds set status = 'succeeded', message = '', ended_ms = ?2 where deploy_id = ?1 and status in ('queued', 'running')";
    if conn.execute(sql, params![deploy.id, now_ms])? == 0 {
        return Ok(Promotion::Ended);
    }
    let sql = "update deploys set status = 'superseded', ended_ms = ?3 where service_id = ?1 and status = 'live' and id <> ?2";
    conn.execute(sql, params![deploy.service_id, deploy.id, now_ms])?;
    let sql = "update deploys set status = 'live', artifact = ?2, assets = ?3, component_bytes = ?4, powers = ?5, new_powers = ?6, promoted_ms = ?7
        where id = ?1";
    let Product { artifact, assets, component_bytes, powers, new_powers } = product;
    conn.execute(sql, params![deploy.id, artifact, assets, component_bytes, powers, new_powers, now_ms])?;
    conn.execute("update services set live_deploy_id = ?2 where id = ?1", params![deploy.service_id, deploy.id])?;
    Ok(Promotion::Live)
}

/// Forgets the oldest deploys of a service beyond those that are kept.
fn prune(conn: &Connection, service_id: i64, source: &str) -> rusqlite::Result<()> {
    let kept = if source == LOCAL { LOCAL_DEPLOYS_KEPT } else { DEPLOYS_KEPT };
    let sql = "delete from deploys where service_id = ?1 and status in ('superseded', 'failed', 'canceled')
        and id not in (select id from deploys where service_id = ?1 order by id desc limit ?2)";
    conn.prepare_cached(sql)?.execute(params![service_id, kept]).map(drop)
}

/// Leaves a service without a live deploy.
pub fn retire(conn: &Connection, service_id: i64, now_ms: i64) -> rusqlite::Result<()> {
    conn.execute("update deploys set status = 'superseded', ended_ms = ?2 where service_id = ?1 and status = 'live'", params![service_id, now_ms])?;
    conn.execute("update services set live_deploy_id = null where id = ?1", [service_id]).map(drop)
}

/// What the service's author last deployed on this machine.
pub fn last_local(conn: &Connection, service_id: i64) -> rusqlite::Result<Option<Deploy>> {
    let sql = "select * from deploys where service_id = ?1 and source = ?2 order by id desc limit 1";
    conn.prepare_cached(sql)?.query_row(params![service_id, LOCAL], deploy).optional()
}

/// The names of all components and folders of files that any deploy refers to.
pub fn referenced(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "select artifact from deploys where artifact is not null union select assets from deploys where assets is not null";
    conn.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}
