//! The pages that the host shows to people, over HTTP and in a browser: the reference of the API, and the login that a person approves.

use std::time::Duration;

use bytes::Bytes;
use fantoccini::Locator;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tovuk_server::control::api::operations;
use tovuk_tests::{Browser, Client, Operator, Reply};

use crate::TOVUK;

fn url(operator: &Operator) -> &str {
    &operator.host.urls().api
}

/// The beginning of a request to the address of the API, as any client sends it.
fn request(operator: &Operator, method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", operator.host.api_address().to_string())
}

async fn send(operator: &Operator, request: http::request::Builder, body: &str) -> Reply {
    Client::new(operator.host.api_address()).whole(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()).await
}

async fn get(operator: &Operator, path: &str) -> Reply {
    send(operator, request(operator, "GET", path), "").await
}

/// Begins a login as a device does: its code for people, and its own.
async fn begin(operator: &Operator) -> (String, String) {
    let begun = operator.ok("POST", "/v1/login/device", None).await;
    assert_eq!(begun["loginUrl"], format!("{}/login?code={}", url(operator), begun["userCode"].as_str().unwrap()));
    (begun["userCode"].as_str().unwrap().to_owned(), begun["deviceCode"].as_str().unwrap().to_owned())
}

async fn poll(operator: &Operator, device_code: &str) -> Value {
    get(operator, &format!("/v1/login/device/{device_code}")).await.json()
}

/// Sends a form as a browser does from a page of the host, but for what `change` says.
async fn post(operator: &Operator, path: &str, form: &str, change: impl FnOnce(http::request::Builder) -> http::request::Builder) -> Reply {
    let request = request(operator, "POST", path).header("content-type", "application/x-www-form-urlencoded");
    send(operator, change(request), form).await
}

/// The same from a page of the host itself.
async fn submit(operator: &Operator, path: &str, form: &str, cookie: &str) -> Reply {
    post(operator, path, form, |request| request.header("origin", url(operator)).header("sec-fetch-site", "same-origin").header("cookie", cookie))
        .await
}

/// Signs in; the cookie as it is sent back.
async fn sign_in(operator: &Operator, code: &str, token: &str) -> String {
    let reply = submit(operator, "/login", &format!("code={code}&token={token}"), "").await;
    assert_eq!((reply.status.as_u16(), &reply.headers["location"]), (303, &format!("/login?code={code}").parse().unwrap()), "{}", reply.text());
    let cookie = reply.headers["set-cookie"].to_str().unwrap();
    for attribute in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_person_approves_a_login_in_a_browser() {
    let (operator, browser) = tokio::join!(Operator::start(TOVUK), Browser::start());
    let made = operator.ask("POST", "/v1/operator/accounts", Some(json!({"handle": "ada", "displayName": "Ada <b>Lovelace</b>"}))).await.json();
    let token = made["token"].as_str().unwrap();
    let (code, device_code) = begin(&operator).await;
    assert_eq!(poll(&operator, &device_code).await["status"], "pending");

    let page = &browser.client;
    page.goto(&format!("{}/login?code={code}", url(&operator))).await.unwrap();
    assert_eq!(page.find(Locator::Css(".code")).await.unwrap().text().await.unwrap(), code);
    page.find(Locator::Id("token")).await.unwrap().send_keys(token).await.unwrap();
    page.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
    // The account is named before anything is given to the device.
    let who = page.wait().for_element(Locator::Css(".who")).await.unwrap().text().await.unwrap();
    assert_eq!(who, "ada · Ada <b>Lovelace</b>");
    assert_eq!(poll(&operator, &device_code).await["status"], "pending");
    assert!(!page.source().await.unwrap().contains(token));
    page.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
    page.wait().for_element(Locator::Css(".done")).await.unwrap();
    assert!(!page.current_url().await.unwrap().as_str().contains("tovuk_"));

    let complete = poll(&operator, &device_code).await;
    assert_eq!((&complete["status"], &complete["handle"]), (&json!("complete"), &json!("ada")));
    let account = operator.api("GET", "/v1/account", complete["token"].as_str(), None).await.json();
    assert_eq!((&account["account"]["handle"], &account["token"]["scope"]), (&json!("ada"), &json!("account")));

    // Whoever has signed in only confirms the next one, and for nobody after signing out.
    let (second, second_device) = begin(&operator).await;
    page.goto(&format!("{}/login?code={}", url(&operator), second.to_lowercase())).await.unwrap();
    assert!(page.find(Locator::Id("token")).await.is_err());
    page.find(Locator::Css("select")).await.unwrap().select_by_value("read").await.unwrap();
    page.find(Locator::Css("button")).await.unwrap().click().await.unwrap();
    page.wait().for_element(Locator::Css(".done")).await.unwrap();
    let reader = poll(&operator, &second_device).await["token"].as_str().unwrap().to_owned();
    assert_eq!(operator.api("GET", "/v1/account", Some(&reader), None).await.json()["token"]["scope"], "read");
    page.find(Locator::Css("button.plain")).await.unwrap().click().await.unwrap();
    page.wait().for_element(Locator::Id("code")).await.unwrap();
    let (third, _) = begin(&operator).await;
    page.goto(&format!("{}/login?code={third}", url(&operator))).await.unwrap();
    page.find(Locator::Id("token")).await.unwrap();

    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn the_reference_is_whole_in_a_browser_without_a_network() {
    let (operator, browser) = tokio::join!(Operator::start(TOVUK), Browser::start());
    let page = &browser.client;
    page.goto(url(&operator)).await.unwrap();
    assert_eq!(page.current_url().await.unwrap().as_str(), format!("{}/docs", url(&operator)));
    let shown = |selector: &'static str| async move {
        let script = "return [...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility()).map(e => e.id)";
        let mut ids: Vec<String> = serde_json::from_value(page.execute(script, vec![json!(selector)]).await.unwrap()).unwrap();
        ids.sort();
        ids
    };
    let mut names: Vec<_> = operations().iter().map(|registered| registered.operation.name).collect();
    names.sort_unstable();
    assert_eq!(shown("section[data-search]").await, names);
    let broken = "return [...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.getElementById(a.hash.slice(1))).map(a => a.hash)";
    assert_eq!(page.execute(broken, vec![]).await.unwrap(), json!([]));
    // Wide tables and long lines scroll inside themselves, also on a telephone.
    for width in [1280, 360] {
        browser.devtools("Emulation.setDeviceMetricsOverride", json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false})).await;
        let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(page.execute(overflow, vec![]).await.unwrap(), json!(0), "at {width}");
    }
    browser.devtools("Emulation.clearDeviceMetricsOverride", json!({})).await;

    page.find(Locator::Id("filter")).await.unwrap().send_keys("env set").await.unwrap();
    assert_eq!(shown("section[data-search]").await, ["env.set"]);
    assert_eq!(page.find(Locator::Id("count")).await.unwrap().text().await.unwrap(), "1 shown");

    // Links out of what is shown lead to what was filtered away.
    page.find(Locator::Css("#env\\.set a[href='#type-Secret'], #env\\.set a[href^='#code-']")).await.unwrap().click().await.unwrap();
    assert_eq!(shown("section[data-search]").await, names);

    let background = "return getComputedStyle(document.body).backgroundColor";
    let mut backgrounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.devtools("Emulation.setEmulatedMedia", json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]})).await;
        backgrounds.push(page.execute(background, vec![]).await.unwrap());
    }
    assert_ne!(backgrounds[0], backgrounds[1]);

    let requests = browser.requests().await;
    assert!(requests.iter().any(|url| url.ends_with("/docs")), "{requests:?}");
    // What the browser's own pages ask of the browser itself has another scheme.
    let elsewhere: Vec<_> = requests.iter().filter(|asked| asked.starts_with("http") && !asked.starts_with(url(&operator))).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn pages_need_no_script_and_nothing_from_elsewhere() {
    let operator = Operator::start(TOVUK).await;
    let (code, _) = begin(&operator).await;
    for path in ["/docs", "/login", &format!("/login?code={code}"), "/login?code=XXXX-XXXX"] {
        let reply = get(&operator, path).await;
        let policy = reply.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
        assert_eq!(reply.headers["x-frame-options"], "DENY");
        let text = reply.text();
        assert!(!text.contains("src=\"http") && !text.contains("href=\"http") && !text.contains("style=\""), "{path}");
        if path != "/docs" {
            assert!(!text.contains("<script"), "{path}");
            assert_eq!(reply.headers["cache-control"], "no-store");
        }
    }
    let reference = get(&operator, "/docs").await;
    for registered in operations() {
        assert!(reference.text().contains(&format!("<section id=\"{}\"", registered.operation.name)), "{}", registered.operation.name);
    }
    let again = send(&operator, request(&operator, "GET", "/docs").header("if-none-match", &reference.headers["etag"]), "").await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    assert_eq!(get(&operator, "/docs/absent.css").await.code(), "api_route_not_found");
}

#[tokio::test]
async fn who_cannot_approve_is_told_what_to_do() {
    let operator = Operator::start(TOVUK).await;
    let (code, device_code) = begin(&operator).await;
    let reader = operator.ask("POST", "/v1/tokens", Some(json!({"name": "r", "scope": "read"}))).await.json()["token"].clone();
    let refused =
        [("tovuk_wrong", 401, "the token is not valid"), (reader.as_str().unwrap(), 403, "changes nothing"), ("", 401, "the token is not valid")];
    for (token, status, text) in refused {
        let reply = submit(&operator, "/login", &format!("code={code}&token={token}"), "").await;
        assert_eq!(reply.status.as_u16(), status, "{token}");
        assert!(
            reply.text().contains(text) && reply.text().contains("role=\"alert\"") && !reply.headers.contains_key("set-cookie"),
            "{}",
            reply.text()
        );
        assert!(token.is_empty() || !reply.text().contains(token));
    }
    // Without having signed in, nothing is approved.
    assert_eq!(submit(&operator, "/login", &format!("code={code}"), "tovuk_session=tovuk_wrong").await.status, 401);
    let large = submit(&operator, "/login", &format!("code={code}&token={}", "x".repeat(20_000)), "").await;
    assert_eq!(large.status, 413);
    assert_eq!(send(&operator, request(&operator, "PUT", "/login"), "").await.code(), "method_not_allowed");
    assert_eq!(poll(&operator, &device_code).await["status"], "pending");

    for wrong in ["XXXX-XXXX", "%3Cscript%3E", "B", "é", "'--"] {
        let reply = get(&operator, &format!("/login?code={wrong}")).await;
        assert!(reply.status == 404 && reply.text().contains("tovuk login") && !reply.text().contains("<script"), "{wrong}");
    }
    operator.clock.advance(Duration::from_secs(601));
    assert_eq!(get(&operator, &format!("/login?code={code}")).await.status, 404);
    assert_eq!(submit(&operator, "/login", &format!("code={code}&token={}", operator.token), "").await.status, 404);
}

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    let operator = Operator::start(TOVUK).await;
    let (code, device_code) = begin(&operator).await;
    let cookie = sign_in(&operator, &code, &operator.token).await;
    let host = url(&operator).trim_start_matches("http://");
    let foreign: [&[(&str, &str)]; 8] = [
        &[],
        &[("origin", "null")],
        &[("origin", "http://evil.example")],
        &[("origin", "http://evil.example"), ("sec-fetch-site", "same-origin")],
        &[("origin", url(&operator)), ("sec-fetch-site", "cross-site")],
        &[("origin", url(&operator)), ("sec-fetch-site", "same-site")],
        &[("sec-fetch-site", "none")],
        &[("referer", url(&operator)), ("origin", host)],
    ];
    for headers in foreign {
        for path in ["/login", "/logout"] {
            let add = |request: http::request::Builder| {
                headers.iter().fold(request.header("cookie", &cookie), |request, (name, value)| request.header(*name, *value))
            };
            let reply = post(&operator, path, &format!("code={code}"), add).await;
            assert!(reply.status == 403 && !reply.headers.contains_key("set-cookie"), "{headers:?}: {}", reply.text());
        }
    }
    assert_eq!(poll(&operator, &device_code).await["status"], "pending");
    assert_eq!(submit(&operator, "/login", &format!("code={code}"), &cookie).await.status, 200);
    assert_eq!(poll(&operator, &device_code).await["status"], "complete");
}

#[tokio::test]
async fn a_session_ends_by_signing_out_by_revoking_and_by_itself() {
    let operator = Operator::start(TOVUK).await;
    let (code, _) = begin(&operator).await;
    let page = format!("/login?code={code}");
    let signed_in =
        async |cookie: &str| send(&operator, request(&operator, "GET", &page).header("cookie", cookie), "").await.text().contains("class=\"who\"");
    let cookie = sign_in(&operator, &code, &operator.token).await;
    assert!(signed_in(&cookie).await);
    let out = submit(&operator, "/logout", "", &cookie).await;
    assert!(out.status == 303 && out.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert!(!signed_in(&cookie).await);

    let cookie = sign_in(&operator, &code, &operator.token).await;
    let tokens = operator.ask("GET", "/v1/tokens", None).await.json();
    let session = tokens["tokens"].as_array().unwrap().iter().find(|token| token["name"] == "browser session").unwrap();
    operator.ask("DELETE", &format!("/v1/tokens/{}", session["id"].as_str().unwrap()), None).await;
    assert!(!signed_in(&cookie).await);

    // A token that somebody has put into the cookie by hand is not revoked by signing out.
    submit(&operator, "/logout", "", &format!("tovuk_session={}", operator.token)).await;
    assert_eq!(operator.ask("GET", "/v1/account", None).await.status, 200);

    // The one that has been signed in for longest makes room.
    let first = sign_in(&operator, &code, &operator.token).await;
    for _ in 0..10 {
        sign_in(&operator, &code, &operator.token).await;
    }
    assert!(!signed_in(&first).await);

    let cookie = sign_in(&operator, &code, &operator.token).await;
    operator.clock.advance(Duration::from_secs(12 * 3_600 + 1));
    let (code, _) = begin(&operator).await;
    let page = send(&operator, request(&operator, "GET", &format!("/login?code={code}")).header("cookie", cookie), "").await;
    assert!(page.text().contains("id=\"token\""));
}

#[tokio::test]
async fn under_https_the_cookie_is_for_this_host_and_https_alone() {
    let operator = Operator::with(TOVUK, |config| config.api_url = Some("https://api.example.com".to_owned())).await;
    let begun = operator.ok("POST", "/v1/login/device", None).await;
    let form = format!("code={}&token={}", begun["userCode"].as_str().unwrap(), operator.token);
    // Behind a proxy that ends TLS, the browser's origin is the public one.
    let reply = post(&operator, "/login", &form, |request| request.header("origin", "https://api.example.com")).await;
    let cookie = reply.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("__Host-tovuk_session=tovuk_") && cookie.ends_with("; Secure"), "{cookie}");
}
