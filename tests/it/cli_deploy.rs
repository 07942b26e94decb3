//! `tovuk deploy` against `tovuk serve`: what goes live, what a dry run says, what a failed build changes, and how it is undone.

use serde_json::json;
use tovuk_tests::{Project, Serve, component, repository};

use crate::TOVUK;

const HELLO: &str = "[services.hello]\ncomponent = \"w.wasm\"\nroutes = [\"/*\"]\n";

#[tokio::test]
async fn the_shop_goes_live_whole_and_its_private_services_stay_private() {
    let mut host = Serve::start(TOVUK).await;
    let shop = repository().join("examples/shop");
    let deployed = host.cli(&["deploy", shop.to_str().unwrap()]).ok();
    for part in ["gateway: deploy_", "is live at http://gateway.localhost:", "auth: deploy_", "and private", "new powers: "] {
        assert!(deployed.stdout.contains(part), "{part}: {deployed:?}");
    }
    // Those that are called go first.
    let place = |name: &str| deployed.stdout.find(&format!("{name}: deploy_")).unwrap();
    assert!(place("billing") < place("auth") && place("auth") < place("gateway"), "{}", deployed.stdout);
    let found = host.get("gateway", "/orders/42", &[("authorization", "Bearer demo")]).await;
    assert!(found.text().contains("\"total_cents\":8358"), "{}", found.text());
    for private in ["auth", "billing"] {
        assert_eq!(host.get(private, "/", &[]).await.code(), "service_not_found");
    }
    // What an invocation has cost is written once it is over, which is after its answer.
    while !host.line("tovuk logs --service gateway").ok().stdout.contains("GET /orders/42 200") {}
    let shown = host.line("tovuk service show gateway").ok().stdout;
    assert!(shown.contains("live deploy") && shown.contains("succeeded"), "{shown}");
    assert!(host.stop().await.success(), "{}", host.program.text());
}

#[tokio::test]
async fn a_deploy_is_planned_made_replaced_and_undone() {
    let host = Serve::start(TOVUK).await;
    let project = Project::new(&[("tovuk.toml", HELLO)]).with_guest("w.wasm", "hello");
    let folder = project.path().to_owned();
    let path = folder.to_str().unwrap();
    let planned = host.cli(&["deploy", path, "--dry-run", "--json"]).ok().json();
    assert_eq!((&planned["services"][0]["new"], &planned["services"][0]["new_powers"]), (&json!(true), &json!([])));
    assert_eq!(host.line("tovuk service list --json").ok().json()["services"], json!([]), "a dry run makes nothing");

    let first = host.cli(&["deploy", path, "--json"]).ok().json();
    assert_eq!(first["final_build"]["status"], "succeeded");
    assert_eq!(host.get("hello", "/", &[]).await.text(), "hello");

    let changed = format!("{HELLO}outbound = [\"https://api.example.com\"]\n[services.hello.limits]\ncpu_ms = 40\n");
    project.write("tovuk.toml", changed);
    project.write("w.wasm", component("own_api"));
    let planned = host.cli(&["deploy", path, "--dry-run"]).ok().stdout;
    for part in [
        "hello: would replace deploy_1",
        "limits: nothing becomes {\"cpu_ms\":40}",
        "new powers: ",
        "outgoing HTTP to https://api.example.com",
        "nothing was sent",
    ] {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    let second = host.cli(&["deploy", project.path().to_str().unwrap()]).ok();
    assert!(second.stdout.contains("to go back: tovuk deploy rollback deploy_1"), "{second:?}");
    assert_ne!(host.get("hello", "/", &[]).await.text(), "hello");
    host.line("tovuk deploy rollback deploy_1").ok();
    assert_eq!(host.get("hello", "/", &[]).await.text(), "hello");
    let listed = host.line("tovuk deploy list --service hello --json").ok().json();
    assert_eq!(listed["deploys"].as_array().unwrap().len(), 3);
    assert!(host.line("tovuk deploy show deploy_2").ok().stdout.contains("deploy_2"));
    assert!(host.line("tovuk logs --build job_1").ok().stdout.contains("live at"));
}

#[tokio::test]
async fn what_cannot_go_live_is_told_and_what_was_live_stays() {
    let host = Serve::start(TOVUK).await;
    let project = Project::new(&[("tovuk.toml", HELLO)]).with_guest("w.wasm", "hello");
    let folder = project.path().to_owned();
    let path = folder.to_str().unwrap();
    host.cli(&["deploy", path]).ok();

    // A health request that is not answered is found out by the host.
    project.write("tovuk.toml", format!("{HELLO}health = \"/healthz\"\n"));
    project.write("w.wasm", component("trap"));
    let failed = host.cli(&["deploy", path, "--json"]).refused();
    let failure: serde_json::Value = serde_json::from_str(&failed.stderr[failed.stderr.find("{\n").unwrap()..]).unwrap();
    assert_eq!((&failure["code"], &failure["final_build"]["status"]), (&json!("build_failed"), &json!("failed")));
    assert!(failure["log_tail"].as_array().is_some_and(|lines| !lines.is_empty()), "{failure}");
    assert!(host.cli(&["deploy", path]).refused().stderr.contains("tovuk logs --build job_"));
    assert_eq!(host.get("hello", "/", &[]).await.text(), "hello");

    // What this machine can find out is not sent.
    project.write("w.wasm", component("unknown_import"));
    let refused = host.cli(&["deploy", path, "--json"]).refused();
    assert!(refused.stderr.contains("component_refused"), "{refused:?}");
    project.write("tovuk.toml", HELLO.replace("routes", "route"));
    let refused = host.cli(&["deploy", path]).refused();
    assert!(refused.stderr.contains("did you mean `routes`"), "{refused:?}");
    let listed = host.line("tovuk deploy list --json").ok().json();
    assert_eq!(listed["deploys"].as_array().unwrap().len(), 3);

    // A secret that is not set stops everything before it is sent.
    project.write("tovuk.toml", format!("{HELLO}secrets = [\"STRIPE_KEY\"]\n"));
    project.write("w.wasm", component("hello"));
    let refused = host.cli(&["deploy", path]).refused();
    assert!(refused.stderr.contains("`tovuk env set STRIPE_KEY=<value> --service hello`"), "{refused:?}");
    host.line("tovuk env set STRIPE_KEY=x --service hello").ok();
    host.cli(&["deploy", path]).ok();
    project.write("tovuk.toml", HELLO);
    assert!(host.cli(&["deploy", path]).ok().stderr.contains("the secret STRIPE_KEY is no longer named and stays"));
    let mistyped = host.cli(&["deploy", path, "--service", "helo", "--json"]).refused();
    assert!(mistyped.stderr.contains("--service hello"), "{mistyped:?}");
    assert_eq!(host.cli(&["deploy", "/nowhere", "--json"]).refused().failure()["code"], "missing_project");
}

#[tokio::test]
async fn files_are_deployed_beside_a_worker_or_alone() {
    let host = Serve::start(TOVUK).await;
    let toml = "[services.site]\nassets = \"public\"\n[services.both]\ncomponent = \"w.wasm\"\nroutes = [\"/*\"]\nassets = \"public\"\n";
    let project = Project::new(&[("tovuk.toml", toml), ("public/index.html", "<p>hi"), ("public/.env", "SECRET=1")]).with_guest("w.wasm", "hello");
    std::os::unix::fs::symlink("index.html", project.path().join("public/\u{1b}[2Jlink")).unwrap();
    let deployed = host.cli(&["deploy", project.path().to_str().unwrap()]).ok();
    assert!(deployed.stderr.contains(".env is left out"), "{deployed:?}");
    assert!(deployed.stderr.contains("link is left out") && !deployed.stderr.contains('\u{1b}'), "{deployed:?}");
    for service in ["site", "both"] {
        assert_eq!(host.get(service, "/", &[]).await.text(), "<p>hi");
        assert_ne!(host.get(service, "/.env", &[]).await.text(), "SECRET=1");
    }
    assert_eq!(host.get("both", "/api/x", &[]).await.text(), "hello");
    // Files that need no build are taken as source by every host; what has to be compiled only where the operator allows it.
    host.cli(&["deploy", project.path().to_str().unwrap(), "--service", "site", "--remote-build"]).ok();
    assert_eq!(host.get("site", "/", &[]).await.text(), "<p>hi");
    let refused = host.cli(&["deploy", project.path().to_str().unwrap(), "--service", "both", "--remote-build"]).refused();
    assert!(refused.stderr.contains("--remote-build"), "{refused:?}");
    let whole = host.cli(&["deploy", project.path().to_str().unwrap(), "--json"]).ok().json();
    let deploys: Vec<_> = whole["deploys"].as_array().unwrap().iter().map(|deploy| &deploy["final_build"]["status"]).collect();
    assert_eq!(deploys, ["succeeded", "succeeded"]);
    let queued = host.cli(&["deploy", project.path().to_str().unwrap(), "--service", "site", "--no-wait"]).ok();
    assert!(queued.stdout.contains("next: Run `tovuk logs --build job_"), "{queued:?}");
    // What is suggested asks the same host.
    let queued = host.cli(&["deploy", project.path().to_str().unwrap(), "--service", "site", "--no-wait", "--api", &host.api]).ok();
    assert!(queued.stdout.contains(&format!(" --api {}` to see", host.api)), "{queued:?}");
}
