//! Components by the dozen that differ, made from few guests, and their deploys: what tests of many versions and of many services need.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::archive::tar_gz;
use crate::guests;
use crate::operator::Operator;

/// What the guest `hello` answers, as its data has it, and what follows there.
const SAID: &[u8] = b"hellotext/plain";

/// The guest `hello`, answering this text of five letters instead.
pub fn saying(text: &str) -> Vec<u8> {
    assert_eq!(text.len(), 5, "as long as `hello`");
    let mut component = guests::component("hello");
    let at = component.windows(SAID.len()).position(|window| window == SAID).expect("the guest `hello` has its text in its data");
    component[at..at + text.len()].copy_from_slice(text.as_bytes());
    component
}

/// The body of a deploy of a component. The commit is for finding the version again.
pub fn component_body(name: &str, component: &[u8], config: Value, commit: &str) -> Value {
    json!({"service": name, "config": config, "component_base64": STANDARD.encode(component), "commit_sha": commit})
}

/// The body of a deploy of static files: paths and texts.
pub fn files_body(name: &str, files: &[(&str, &str)], config: Value) -> Value {
    let archive = tar_gz(files);
    json!({"service": name, "config": config, "assets_archive_base64": STANDARD.encode(archive)})
}

impl Operator {
    /// Deploys as the operator and waits until it is live; the answer to the deploy.
    pub async fn deployed(&self, body: Value) -> Value {
        let accepted = self.ok("POST", "/v1/deploy", Some(body)).await;
        let build = self.built(&self.token, accepted["build_job"]["id"].as_str().unwrap()).await;
        assert_eq!(build["status"], "succeeded", "{build}");
        accepted
    }
}
