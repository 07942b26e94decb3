//! What a host has acknowledged, and clients that make it acknowledge more: deploys, rollbacks, secrets, tokens, bindings and services. The order in which
//! they run is the machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tovuk_kernel::limits::DEPLOYS_KEPT;
use tovuk_tests::{Served, component, component_body, saying};

use super::moment::Answers;

/// Secrets that take turns; a service may have 64.
const SECRETS: usize = 30;
/// Tokens that are kept; an account may have 100.
const TOKENS: usize = 20;

#[derive(Default)]
struct Known {
    /// Counts versions, secrets, tokens and bindings.
    next: usize,
    /// The highest number of each kind of id that was seen.
    highest: BTreeMap<String, u64>,
    /// Builds that were acknowledged, with what they build.
    builds: Vec<(String, String)>,
    /// What may be live: the version that is known to have been, and those that were asked for since.
    candidates: Vec<String>,
    /// Deploys that were live, the newest last, with their versions.
    live: Vec<(String, String)>,
    /// By name: the value that was acknowledged, and one that may have been stored.
    secrets: BTreeMap<String, (Option<String>, Option<String>)>,
    tokens: Vec<String>,
    revoked: Vec<String>,
    bindings: BTreeSet<String>,
    services: BTreeSet<String>,
    summary: BTreeMap<&'static str, u32>,
}

/// What is known of a host over all its lives.
pub struct Model {
    known: Mutex<Known>,
    /// Told of each answer.
    pub answers: Answers,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned()
}

impl Model {
    /// Deploys the first version of the service `shop`, and `config`, which answers its secrets.
    pub async fn begin(host: &Served) -> Self {
        let model = Self { known: Mutex::default(), answers: Answers::new() };
        for (name, component) in [("shop", saying("first")), ("config", component("env"))] {
            let body = component_body(name, &component, json!({"routes": ["/*"]}), "first");
            let made = host.ok("POST", "/v1/deploy", Some(&body)).await;
            assert_eq!(host.built(made["build_job"]["id"].as_str().unwrap()).await["status"], "succeeded");
            if name == "shop" {
                model.known().live.push((text(&made["deploy"]["id"]), "first".to_owned()));
            }
        }
        model.known().candidates = vec!["first".to_owned()];
        model
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// What was done.
    pub fn summary(&self) -> String {
        format!("{:?}", self.known().summary)
    }

    /// Asks for one thing after another, in five places at once, until the host is gone.
    pub async fn work(model: Arc<Self>, api: SocketAddr, token: String) {
        let asker = Asker { model: &model, api, token };
        tokio::join!(asker.deploy(), asker.set_secrets(), asker.make_tokens(), asker.bind(), asker.make_services());
    }

    /// Holds a host that was killed and has started again against what it had acknowledged.
    pub async fn check(&self, host: &Served) {
        let first = host.get("shop", "/").await.text().to_owned();
        let (candidates, builds) = {
            let mut known = self.known();
            (known.candidates.clone(), std::mem::take(&mut known.builds))
        };
        assert!(candidates.contains(&first), "`{first}` is live, of {candidates:?}");
        for (build, version) in &builds {
            let build = host.built(build).await;
            assert_eq!(build["status"], "succeeded", "{version}: {build}");
        }
        self.check_deploys(host).await;
        self.check_rest(host).await;
        let left: Vec<_> = std::fs::read_dir(host.data.join("uploads")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?}");
    }

    async fn check_deploys(&self, host: &Served) {
        let listed = host.ok("GET", "/v1/services/shop/deploys?limit=10", None).await;
        for deploy in listed["deploys"].as_array().unwrap() {
            let build = host.built(deploy["build_job_id"].as_str().unwrap()).await;
            // A rollback that was not acknowledged may have failed; it never leaves half of itself.
            assert!(build["status"] == "succeeded" || (build["status"] == "failed" && deploy["source"] == "rollback"), "{deploy} {build}");
        }
        let seen = host.ok("GET", "/v1/services/shop/overview", None).await;
        let live = &seen["status"]["live_deploy"];
        let version = text(&live["commit_sha"]);
        assert_eq!(host.get("shop", "/").await.text(), version);
        let mut known = self.known();
        let number = |id: &str| id.split('_').nth(1).unwrap().parse::<u64>().unwrap();
        let before = number(&known.live.last().unwrap().0);
        assert!(number(live["id"].as_str().unwrap()) >= before, "deploy_{before} was live before {live}");
        known.candidates = vec![version.clone()];
        known.live.push((text(&live["id"]), version));
        for deploy in listed["deploys"].as_array().unwrap() {
            known.see(&text(&deploy["id"]));
            known.see(&text(&deploy["build_job_id"]));
        }
    }

    async fn check_rest(&self, host: &Served) {
        host.ok("POST", "/v1/services/config/restart", None).await;
        let said = host.get("config", "/").await.json();
        let resources = host.ok("GET", "/v1/services/config/resources", None).await;
        let bound: BTreeSet<_> = resources["serviceBindings"].as_array().unwrap().iter().map(|binding| text(&binding["name"])).collect();
        let listed = host.ok("GET", "/v1/services", None).await;
        let services: BTreeSet<_> = listed["services"].as_array().unwrap().iter().map(|service| text(&service["name"])).collect();
        let (tokens, revoked) = {
            let mut known = self.known();
            for (name, (acknowledged, tried)) in &mut known.secrets {
                let value = said[name].as_str().map(str::to_owned);
                assert!(value == *acknowledged || (value.is_some() && value == *tried), "{name} is {value:?}, of {acknowledged:?} and {tried:?}");
                (*acknowledged, *tried) = (value, None);
            }
            assert!(known.bindings.is_subset(&bound), "{:?} are lost", known.bindings.difference(&bound));
            assert!(known.services.is_subset(&services), "{:?} are lost", known.services.difference(&services));
            (known.tokens.clone(), known.revoked.clone())
        };
        for (tokens, status) in [(tokens, 200), (revoked, 401)] {
            for token in tokens {
                let reply = host.try_api(&token, "GET", "/v1/account", None).await.unwrap();
                assert_eq!(reply.status, status, "{}", reply.text());
            }
        }
    }
}

impl Known {
    /// An id that was told of in a list.
    fn see(&mut self, id: &str) {
        let (kind, number) = id.rsplit_once('_').unwrap();
        let highest = self.highest.entry(kind.to_owned()).or_default();
        *highest = (*highest).max(number.parse().unwrap());
    }

    /// An id that was given out just now: no other may have had it before.
    fn new_id(&mut self, id: &Value) -> String {
        let id = text(id);
        let (kind, number) = id.rsplit_once('_').unwrap();
        let before = self.highest.get(kind).copied().unwrap_or(0);
        assert!(number.parse::<u64>().unwrap() > before, "{id} comes after {kind}_{before}");
        self.see(&id);
        id
    }

    fn count(&mut self, what: &'static str) {
        *self.summary.entry(what).or_default() += 1;
    }

    fn next(&mut self) -> usize {
        self.next += 1;
        self.next
    }
}

/// Asks a host until it is gone. Each task ends with the first question that is not answered.
struct Asker<'a> {
    model: &'a Model,
    api: SocketAddr,
    token: String,
}

impl Asker<'_> {
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<Value> {
        let reply = Served::ask_at(self.api, &self.token, method, path, body.as_ref()).await?;
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.text());
        self.model.answers.add();
        Some(reply.json())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.model.known()
    }

    async fn deploy(&self) -> Option<()> {
        loop {
            // Every third has to be compiled, the others are there already.
            let number = self.known().next();
            let version = if number.is_multiple_of(3) { format!("n{:04}", number % 10_000) } else { format!("v{:04}", number % 4) };
            self.known().candidates.push(version.clone());
            let body = component_body("shop", &saying(&version), json!({"routes": ["/*"]}), &version);
            let made = self.ask("POST", "/v1/deploy", Some(body)).await?;
            let (deploy, build) = {
                let mut known = self.known();
                let (deploy, build) = (known.new_id(&made["deploy"]["id"]), known.new_id(&made["build_job"]["id"]));
                known.builds.push((build.clone(), version.clone()));
                // With a rollback after every other one, this is what the history of a service still has of them.
                let excess = known.builds.len().saturating_sub(DEPLOYS_KEPT as usize / 2);
                known.builds.drain(..excess);
                known.count("deploys");
                (deploy, build)
            };
            while !matches!(
                self.ask("GET", &format!("/v1/builds/{build}?waitSeconds=20"), None).await?["build"]["status"].as_str(),
                Some("succeeded")
            ) {}
            self.live(deploy, version);
            if number.is_multiple_of(2) {
                self.roll_back().await?;
            }
        }
    }

    fn live(&self, deploy: String, version: String) {
        let mut known = self.known();
        known.candidates = vec![version.clone()];
        known.live.push((deploy, version));
    }

    async fn roll_back(&self) -> Option<()> {
        let (earlier, version) = {
            let known = self.known();
            known.live[known.live.len().saturating_sub(3)].clone()
        };
        self.known().candidates.push(version.clone());
        let back = self.ask("POST", &format!("/v1/deploys/{earlier}/rollback"), None).await?;
        let deploy = self.known().new_id(&back["deploy"]["id"]);
        self.known().count("rollbacks");
        self.live(deploy, version);
        Some(())
    }

    async fn set_secrets(&self) -> Option<()> {
        loop {
            let number = self.known().next();
            let (name, value) = (format!("SECRET_{}", number % SECRETS), format!("value {number}"));
            self.known().secrets.entry(name.clone()).or_default().1 = Some(value.clone());
            self.ask("PUT", "/v1/services/config/env", Some(json!({"name": name, "value": value}))).await?;
            self.known().secrets.insert(name, (Some(value), None));
            self.known().count("secrets");
        }
    }

    async fn make_tokens(&self) -> Option<()> {
        loop {
            let number = self.known().next();
            let made = self.ask("POST", "/v1/tokens", Some(json!({"name": format!("token {number}")}))).await?;
            let old = {
                let mut known = self.known();
                let id = known.new_id(&made["details"]["id"]);
                known.tokens.push(text(&made["token"]));
                known.count("tokens");
                (known.tokens.len() > TOKENS).then_some(id)
            };
            if let Some(id) = old {
                // The one that was just made is taken back; until that is acknowledged, it may be either.
                let taken = self.known().tokens.pop();
                self.ask("DELETE", &format!("/v1/tokens/{id}"), None).await?;
                self.known().revoked.extend(taken);
                let excess = self.known().revoked.len().saturating_sub(TOKENS);
                self.known().revoked.drain(..excess);
            }
        }
    }

    async fn bind(&self) -> Option<()> {
        loop {
            let name = format!("bound-{}", self.known().next());
            self.ask("POST", "/v1/services/config/service-bindings", Some(json!({"bindingName": name, "targetService": "shop"}))).await?;
            self.known().bindings.insert(name);
            self.known().count("bindings");
        }
    }

    async fn make_services(&self) -> Option<()> {
        loop {
            let name = format!("service-{}", self.known().next());
            if self.known().services.len() >= 200 {
                return Some(());
            }
            let made = self.ask("POST", "/v1/services", Some(json!({"name": name}))).await?;
            let mut known = self.known();
            known.new_id(&made["service"]["serviceId"]);
            known.services.insert(name);
            known.count("services");
        }
    }
}
