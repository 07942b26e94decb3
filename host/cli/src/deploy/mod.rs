//! `tovuk deploy`: from project files to live services. First everything is built and checked here, then services that are missing are made, all of them,
//! then each service is sent and followed until it is live. What a deploy does on the host is the host's.

mod account;
pub mod archive;
mod bundle;
mod dry_run;
mod find;
mod follow;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::codes;

use self::account::Account;
use self::bundle::Bundle;
use self::find::Target;
use self::follow::Follow;
use crate::client::{Call, Client, encoded};
use crate::failure::Failure;
use crate::output::{self, one_line};
use crate::project_file::Style;
use crate::session::ClientArgs;

/// How long a build is followed unless it is said otherwise, in seconds.
const WAIT_SECONDS: u64 = 900;

/// `tovuk deploy`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tovuk deploy\n  tovuk deploy examples/shop --dry-run\n  tovuk deploy --service gateway --no-wait\n  tovuk deploy --remote-build\n"
)]
pub struct DeployArgs {
    /// A folder with tovuk.toml, or one with such folders below it
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// Only this service of the project
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Say what would change, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait for the builds on the host to end
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    /// Wait for the builds on the host to end, which is the default
    #[arg(long, hide = true)]
    pub wait: bool,
    /// How long to wait for one build, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS, value_parser = clap::value_parser!(u64).range(1..))]
    pub wait_timeout: u64,
    /// Send the source for the host to build, instead of building here
    #[arg(long)]
    pub remote_build: bool,
    /// Without a database, which every deploy is that declares none
    #[arg(long, hide = true)]
    pub no_database: bool,
    /// Refused: databases are declared
    #[arg(long, hide = true)]
    pub database: bool,
}

/// Deploys what the arguments name.
pub async fn run(deploy: DeployArgs, args: &ClientArgs) -> anyhow::Result<ExitCode> {
    if deploy.database {
        let removed = Failure::local("deploy_database_flag_removed", "`tovuk deploy` has no flag --database: databases are declared in tovuk.toml");
        return Err(removed.instruct("Add `sqlite = { DB = {} }` to the service in tovuk.toml, and run `tovuk deploy` without --database.").into());
    }
    let projects = find::projects(&deploy.path)?;
    projects.iter().for_each(|project| eprint!("{}", project.render_warnings(Style::of_stderr())));
    let declared = find::targets(&projects)?;
    let chosen = choose(&declared, deploy.service.as_deref())?;
    let client = Client::new(args)?;
    let mut account = Account::of(&client, &declared).await?;
    let new: Vec<_> = needed(&declared, &chosen).into_iter().filter(|target| !account.held.contains_key(&target.name)).collect();
    account.check_room(&new)?;
    let mut prepared = Vec::new();
    for target in &chosen {
        prepared.push(((*target).clone(), prepare(target, deploy.remote_build).await?));
    }
    if deploy.dry_run {
        let plan = dry_run::plan(&client, &deploy.path, &account, &prepared).await?;
        output::print(&plan, args.json, dry_run::text);
        return Ok(ExitCode::SUCCESS);
    }
    for target in &new {
        let body = json!({"name": target.name, "kind": target.service.kind()});
        client.call(Call::post("/v1/services", Some(body))).await?;
        account.held.insert(target.name.clone(), account::Held::default());
        eprintln!("{}: the service is made", target.name);
    }
    account.check_secrets(&chosen, client.flag())?;
    unnamed(&account, &chosen, client.flag()).iter().for_each(|line| eprintln!("{line}"));
    let sender = Sender { client: &client, clock: Clock::system(), account: &account, deploy: &deploy, json: args.json };
    let mut results = Vec::new();
    for (target, bundle) in prepared {
        results.push(sender.send(&target, bundle).await?);
    }
    if args.json {
        let whole = if results.len() == 1 { results.pop().unwrap_or_default() } else { json!({"workspace": deploy.path, "deploys": results}) };
        output::print(&whole, true, |_| String::new());
    }
    Ok(ExitCode::SUCCESS)
}

/// All services, or the one that is wanted.
fn choose<'a>(declared: &'a [Target], wanted: Option<&str>) -> Result<Vec<&'a Target>, Failure> {
    let Some(wanted) = wanted else { return Ok(declared.iter().collect()) };
    declared.iter().find(|target| target.name == wanted).map(|target| vec![target]).ok_or_else(|| {
        let names: Vec<_> = declared.iter().map(|target| target.name.as_str()).collect();
        let text = format!("the project has no service `{wanted}`; it has {}", names.join(", "));
        match crate::suggest::nearest(wanted, names.iter().copied()) {
            Some(name) => Failure::of(&codes::SERVICE_NOT_FOUND, text).instruct(format!("Run `tovuk deploy --service {name}`.")),
            None => Failure::of(&codes::SERVICE_NOT_FOUND, text).instruct("Name one of these with --service."),
        }
    })
}

/// The chosen services, and those that they are bound to: both have to exist before the first deploy.
fn needed<'a>(declared: &'a [Target], chosen: &[&'a Target]) -> Vec<&'a Target> {
    let is_needed = |target: &Target| {
        let bound = |other: &&Target| other.service.bindings.iter().any(|binding| binding.service == target.name);
        chosen.iter().any(|other| other.name == target.name) || chosen.iter().any(bound)
    };
    declared.iter().filter(|target| is_needed(target)).collect()
}

async fn prepare(target: &Target, remote_build: bool) -> Result<Bundle, Failure> {
    let bundle = match remote_build {
        true => bundle::source(target).await?,
        false => bundle::built(target, Arc::new(|line| eprintln!("{}", one_line(line)))).await?,
    };
    bundle.skipped.iter().for_each(|skipped| eprintln!("{}: {}", target.name, one_line(skipped)));
    Ok(bundle)
}

/// What the host has and the files no longer name, in a line each: nothing of it is deleted by a deploy.
fn unnamed(account: &Account, chosen: &[&Target], flag: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for target in chosen {
        let resources = account.resources(target);
        let name = &target.name;
        lines.extend(resources.bindings_unnamed.iter().map(|binding| {
            format!("{name}: the binding {binding} is no longer named and stays; `tovuk binding delete --service {name} {binding}{flag}` removes it")
        }));
        lines.extend(resources.data_unnamed.iter().map(|data| format!("{name}: the {data} is no longer named and stays, with what is in it")));
        lines.extend(resources.secrets_unnamed.iter().map(|secret| {
            format!("{name}: the secret {secret} is no longer named and stays; `tovuk env delete {secret} --service {name}{flag}` removes it")
        }));
    }
    if !account.unnamed.is_empty() {
        lines.push(format!("not named here, and left as they are: {}", account.unnamed.join(", ")));
    }
    lines.iter().map(|line| one_line(line)).collect()
}

/// Sends prepared services one after another.
struct Sender<'a> {
    client: &'a Client,
    clock: Clock,
    account: &'a Account,
    deploy: &'a DeployArgs,
    json: bool,
}

impl Sender<'_> {
    /// Sends one service and follows it. Gives what `--json` prints of it.
    async fn send(&self, target: &Target, bundle: Bundle) -> Result<Value, Failure> {
        let name = &target.name;
        let answer = self.client.call(Call::post("/v1/deploy", Some(bundle.body))).await?;
        let text = |pointer: &str| one_line(answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
        let (id, build) = (text("/deploy/id"), text("/build_job/id"));
        eprintln!("{name}: {id} is queued as {build}");
        let mut result = answer.clone();
        set(&mut result, "path", json!(target.project));
        set(&mut result, "kind", json!(target.service.kind()));
        if self.deploy.no_wait {
            if !self.json {
                crate::print(&format!(
                    "{name}: {id} is queued\nnext: Run `tovuk logs --build {build}{}` to see how far it is.\n",
                    self.client.flag()
                ));
            }
            return Ok(result);
        }
        let timeout = Duration::from_secs(self.deploy.wait_timeout);
        let follow = Follow { client: self.client, clock: &self.clock, service: name, build: &build, timeout };
        let ended = follow.to_the_end().await?;
        let promoted = self.client.call(Call::get(format!("/v1/deploys/{}", encoded(&id)))).await?;
        if !self.json {
            let before = self.account.held.get(&target.name).and_then(|held| held.live.as_deref());
            let told = told(target, &text("/service/url"), promoted.get("deploy").unwrap_or(&Value::Null));
            crate::print(&(told + &before.map(|before| way_back(before, self.client.flag())).unwrap_or_default()));
        }
        set(&mut result, "final_build", ended);
        set(&mut result, "deploy", promoted.get("deploy").cloned().unwrap_or_default());
        Ok(result)
    }
}

/// What people are told of a service that is live.
fn told(target: &Target, url: &str, deploy: &Value) -> String {
    let id = one_line(deploy.get("id").and_then(Value::as_str).unwrap_or_default());
    // Static files are public without routes.
    let public = target.service.is_public() || target.service.kind().has_assets();
    let place = if public { format!("at {url}") } else { "and private: it has no routes".to_owned() };
    let mut text = format!("{}: {id} is live {place}\n", target.name);
    let powers = deploy.get("new_powers").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let powers: Vec<_> = powers.iter().filter_map(Value::as_str).map(one_line).collect();
    if !powers.is_empty() {
        text.push_str(&format!("  new powers: {}\n", powers.join(", ")));
    }
    text
}

fn way_back(before: &str, flag: &str) -> String {
    format!("  to go back: tovuk deploy rollback {}{flag}\n", one_line(before))
}

fn set(result: &mut Value, name: &str, value: Value) {
    if let Some(result) = result.as_object_mut() {
        result.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_names_does_not_drive_the_terminal() {
        let evil = "x\u{1b}]0;y\u{7}";
        let service = tovuk_kernel::project::parse("[services.a]\nbuild = \"make\"\n").unwrap().project.services.remove("a").unwrap();
        let target = Target { project: PathBuf::new(), name: "a".to_owned(), service };
        let account = Account {
            usage: Value::Null,
            held: [("a".to_owned(), account::Held { bindings: vec![evil.to_owned()], secrets: vec![evil.to_owned()], ..account::Held::default() })]
                .into(),
            unnamed: vec![evil.to_owned()],
        };
        let lines = unnamed(&account, &[&target], " --api http://h");
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains(" --api http://h`"), "{lines:?}");
        let shown = [lines.concat(), told(&target, "", &json!({"id": evil, "new_powers": [evil]})), way_back(evil, "")].concat();
        assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    }
}
