//! Bindings: who is reached by which name, what each side is told, and what happens when nobody is there.

use serde_json::json;
use tovuk_tests::ServiceConfig;

use crate::{author_host, host};

#[tokio::test]
async fn a_private_service_is_reached_by_name_and_by_url_and_by_nobody_else() {
    let host = host().await;
    host.deploy("private", "echo", |service| service).await;
    host.deploy("by-name", "headers", |service| service.public().binds("NEXT", "private")).await;
    host.deploy("by-url", "outbound_p2", |service| service.public().binds_url("PRIVATE_URL", "private")).await;
    host.deploy("unbound", "outbound_p2", |service| service.public()).await;

    let seen = host.get("by-name", "/").await.json();
    assert_eq!((seen["method"].as_str(), seen["uri"].as_str()), (Some("GET"), Some("/seen-by-next")));
    for scheme in ["http", "https"] {
        let reply = host.get("by-url", &format!("/?url={scheme}%3A%2F%2Fprivate.tovuk.internal%2Fx%3Fq%3D1")).await.json();
        assert_eq!(reply["status"], 200, "{reply}");
        assert!(reply["body"].as_str().unwrap().contains("/x?q=1"), "{reply}");
    }
    let refused = host.get("unbound", "/?url=http%3A%2F%2Fprivate.tovuk.internal%2F").await;
    assert_eq!((refused.status.as_u16(), refused.json()["error"].as_str().unwrap().to_owned()), (502, "destination-not-found".to_owned()));

    // From outside it is no different from a host that does not exist.
    let absent = host.get("absent", "/").await;
    for path in ["/", "/x", "/.tovuk/queues/jobs"] {
        let private = host.get("private", path).await;
        assert_eq!(
            (private.status, private.code(), private.json()["message"].clone()),
            (absent.status, absent.code(), absent.json()["message"].clone())
        );
    }
    assert_eq!((absent.status.as_u16(), absent.code().as_str()), (404, "service_not_found"));
    let host_tricks = [("host", "private.tovuk.internal"), ("x-forwarded-host", "private.localhost"), ("forwarded", "host=private.localhost")];
    for (name, value) in host_tricks {
        let mut request = host.request("by-name", "/status/204");
        if name == "host" {
            request = http::Request::builder().uri("/");
        }
        let reply = host.client().whole(request.header(name, value).body(http_body_util::Full::default()).unwrap()).await;
        assert!(matches!(reply.status.as_u16(), 404 | 204), "{name}: {}", reply.text());
    }
    let url = format!("http://private.localhost:{}/", host.address.port());
    let absolute = http::Request::builder().uri(&url).header("host", format!("private.localhost:{}", host.address.port()));
    assert_eq!(host.client().whole(absolute.body(http_body_util::Full::default()).unwrap()).await.status, 404);
}

#[tokio::test]
async fn a_missing_binding_a_missing_target_and_a_target_without_a_deploy() {
    let host = author_host().await;
    host.deploy("unbound", "chain", |service| service.public()).await;
    let reply = host.get("unbound", "/1").await;
    assert_eq!(reply.json()["error"], "unknown_binding", "{}", reply.text());
    assert!(reply.json()["message"].as_str().unwrap().contains("[[services."), "{}", reply.text());

    host.deploy("dangling", "chain", |service| service.public().binds("NEXT", "gone")).await;
    let reply = host.get("dangling", "/1").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "service_not_deployed"));

    host.add("later", &ServiceConfig::default());
    host.deploy("early", "chain", |service| service.public().binds("NEXT", "later")).await;
    assert_eq!(host.get("early", "/1").await.code(), "service_not_deployed");
    // Targets resolve when they are called.
    host.deploy("later", "hello", |service| service).await;
    assert_eq!(host.get("early", "/1").await.text(), "hello");
}

#[tokio::test]
async fn a_target_that_fails_is_a_response_that_says_why() {
    let host = host().await;
    host.deploy("traps", "trap", |service| service).await;
    host.deploy("spins", "spin", |service| service.limit("cpu_ms", 20)).await;
    for (target, status, code) in [("traps", 500, "worker_trapped"), ("spins", 503, "worker_cpu_exceeded")] {
        let caller = format!("calls-{target}");
        host.deploy(&caller, "outbound", |service| service.public().binds_url("TARGET_URL", target)).await;
        let reply = host.get(&caller, &format!("/?url=http%3A%2F%2F{target}.tovuk.internal%2F")).await.json();
        assert_eq!(reply["status"], status, "{reply}");
        // The guest that called may know everything.
        let body: serde_json::Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["code"], code);
        assert!(body["agent_instruction"].is_string(), "{body}");
        assert_eq!(host.observed.ended(target, 1).await[0].status, Some(status));
    }
}

#[tokio::test]
async fn the_hosts_own_paths_are_closed_over_bindings_too() {
    let host = host().await;
    host.deploy("target", "echo", |service| service).await;
    host.deploy("caller", "outbound", |service| service.public().binds_url("TARGET_URL", "target")).await;
    for path in ["/.tovuk/queues/jobs", "/%2Etovuk/x", "//.tovuk/x", "/a/../.tovuk/x"] {
        let url: String = format!("http://target.tovuk.internal{path}").bytes().map(|byte| format!("%{byte:02X}")).collect();
        let reply = host.get("caller", &format!("/?url={url}")).await.json();
        assert_eq!(reply["status"], 404, "{path}: {reply}");
    }
    assert!(host.observed.records().iter().all(|record| &*record.target.name != "target"));
}

#[tokio::test]
async fn the_environment_names_bindings_and_urls() {
    let host = host().await;
    host.deploy("auth", "hello", |service| service).await;
    host.deploy("env", "env", |service| service.public().env("PLAIN", "value").binds("AUTH_SERVICE", "auth").binds_url("AUTH_URL", "auth")).await;
    let env = host.get("env", "/").await.json();
    assert_eq!(env["TOVUK_BINDING_AUTH_SERVICE"], json!("service_auth"));
    assert_eq!(env["AUTH_URL"], json!("https://auth.tovuk.internal"));
    assert_eq!(env["PLAIN"], json!("value"));
    assert_eq!(env["TOVUK_SERVICE_ID"], json!("service_env"));
}

#[tokio::test]
async fn subrequests_are_counted_and_capped() {
    let host = host().await;
    host.deploy("target", "hello", |service| service).await;
    host.deploy("calls", "outbound", |service| service.public().binds("NEXT", "target").limit("subrequests", 5)).await;
    let tally = host.get("calls", "/calls/8").await.json();
    assert_eq!(tally, json!({"200": 5, "subrequest_limit": 3}));
    assert_eq!(host.observed.ended("target", 5).await.len(), 5);
}

#[tokio::test]
async fn the_hosts_own_front_door_needs_no_allowlist_and_keeps_the_chain() {
    let host = host().await;
    host.deploy("public", "echo", |service| service.public()).await.deploy("private", "echo", |service| service).await;
    host.deploy("calls", "outbound", |service| service.public()).await;
    let at = |service: &str| format!("/?url=http%3A%2F%2F{service}.localhost%3A{}%2Fx", host.address.port());
    let reply = host.get("calls", &at("public")).await.json();
    assert_eq!(reply["status"], 200, "{reply}");
    let record = &host.observed.ended("public", 1).await[0];
    assert_eq!(record.number, 2);
    assert_eq!(host.get("calls", &at("private")).await.json()["status"], 404);
}

#[tokio::test]
async fn each_world_reaches_each_world_in_each_form_and_is_told_its_own_host() {
    let host = host().await;
    host.deploy("lean", "echo", |service| service).await.deploy("wasi", "echo_p2", |service| service).await;
    host.deploy("lean-by-url", "outbound", |service| service.public().binds_url("LEAN_URL", "lean").binds_url("WASI_URL", "wasi")).await;
    host.deploy("wasi-by-url", "outbound_p2", |service| service.public().binds_url("LEAN_URL", "lean").binds_url("WASI_URL", "wasi")).await;
    for target in ["lean", "wasi"] {
        let by_name = format!("to-{target}");
        host.deploy(&by_name, "headers", |service| service.public().binds("NEXT", target)).await;
        // `wasi:http` has it as the authority, and no field of that name.
        let own_host = format!("{target}.tovuk.internal");
        let is_told =
            |seen: &serde_json::Value| seen["authority"] == own_host || seen["headers"].as_array().unwrap().contains(&json!(["host", own_host]));
        let seen = host.get(&by_name, "/").await.json();
        assert!(is_told(&seen), "{target} by name: {seen}");
        for caller in ["lean-by-url", "wasi-by-url"] {
            let reply = host.get(caller, &format!("/?url=https%3A%2F%2F{target}.tovuk.internal%2Fx%3Fq%3D1")).await.json();
            let seen: serde_json::Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
            assert!(is_told(&seen), "{target} from {caller}: {seen}");
            assert_eq!(seen["uri"], "/x?q=1", "{target} from {caller}");
        }
    }
}

#[tokio::test]
async fn nothing_but_the_exact_authority_reaches_a_bound_service() {
    let host = host().await;
    host.deploy("next", "hello", |service| service).await;
    host.deploy("calls", "outbound", |service| service.public().binds_url("NEXT_URL", "next")).await;
    for authority in
        ["next..tovuk.internal", "next.tovuk.internal:99999", "user@next.tovuk.internal", "next.tovuk.internal:8080", "x.next.tovuk.internal"]
    {
        let reply = host.get("calls", &format!("/?url=http%3A%2F%2F{}%2F", authority.replace(':', "%3A").replace('@', "%40"))).await;
        assert_eq!(reply.status, 502, "{authority}: {}", reply.text());
    }
    assert!(host.observed.records().iter().all(|record| &*record.target.name != "next"));
}

#[tokio::test]
async fn the_front_door_tells_a_worker_of_another_account_no_more_than_anybody() {
    let host = host().await;
    host.deploy("victim", "trap", |service| service.public().account("account_2")).await;
    host.deploy("echo", "echo", |service| service.public().account("account_2")).await;
    host.deploy("mallory", "outbound", |service| service.public()).await;
    let at = |service: &str| format!("/?url=http%3A%2F%2F{service}.localhost%3A{}%2F", host.address.port());
    let reply = host.get("mallory", &at("victim")).await.json();
    let body: serde_json::Value = serde_json::from_str(reply["body"].as_str().unwrap()).unwrap();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["code", "message", "request_id"], "{body}");
    let seen = host.get("mallory", &at("echo")).await.json();
    let seen: serde_json::Value = serde_json::from_str(seen["body"].as_str().unwrap()).unwrap();
    let names: Vec<_> = seen["headers"].as_array().unwrap().iter().map(|field| field[0].as_str().unwrap()).collect();
    assert!(!names.contains(&"x-tovuk-caller") && names.contains(&"x-forwarded-for"), "{names:?}");
    // A caller of the same account learns why, and still gets no backtrace, which it might pass on.
    host.deploy("private", "trap", |service| service).await;
    host.deploy("friend", "outbound", |service| service.public().binds_url("PRIVATE_URL", "private")).await;
    let reply = host.get("friend", "/?url=http%3A%2F%2Fprivate.tovuk.internal%2F").await.json();
    let text = reply["body"].as_str().unwrap();
    assert!(text.contains("unreachable") && !text.contains("the_function_that_traps"), "{text}");
}

#[tokio::test]
async fn a_chain_limit_that_a_target_did_not_handle_reaches_its_caller_with_the_true_hops() {
    let host = host().await;
    host.deploy("deep", "chain_p2", |service| service.binds_url("NEXT_URL", "deep")).await;
    host.deploy("calls", "outbound", |service| service.public().binds_url("DEEP_URL", "deep")).await;
    let reply = host.get("calls", "/?url=http%3A%2F%2Fdeep.tovuk.internal%2F40%3Funhandled").await.json();
    assert_eq!(reply["error"], "binding_chain_limit", "{reply}");
    let hops = reply["hops"].as_array().unwrap();
    assert_eq!((hops.len(), hops[0]["service"].as_str(), hops[31]["path"].as_str()), (32, Some("calls"), Some("/10")), "{reply}");
}
