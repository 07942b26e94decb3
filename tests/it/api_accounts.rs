//! Accounts, their tokens, logins by device code, and what has happened.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tovuk_kernel::limits::{LOGINS_OPEN_CLIENT_MAX, LOGINS_OPEN_MAX};
use tovuk_tests::Operator;

use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn a_handle_is_checked_and_belongs_to_one_account() {
    let host = Operator::start(TOVUK).await;
    let (alice, _bob) = (host.account("alice").await, host.account("bob").await);
    let shown = host.ok_as(&alice, "GET", "/v1/account?limit=5&cursor=x", None).await;
    assert_eq!((&shown["account"]["handle"], &shown["account"]["plan"]), (&json!("alice"), &json!("pro")));
    assert_eq!(shown["token"]["scope"], "account");
    let changed = host.ok_as(&alice, "PUT", "/v1/account", Some(json!({"handle": "ada", "displayName": "Ada Lovelace"}))).await;
    assert_eq!((&changed["account"]["handle"], &changed["account"]["displayName"]), (&json!("ada"), &json!("Ada Lovelace")));
    let same = host.ok_as(&alice, "PUT", "/v1/account", Some(json!({"handle": "ada"}))).await;
    assert_eq!(same["account"]["displayName"], "ada", "the handle stands in for a name");
    let rename = async |handle: &str| host.refused(&alice, "PUT", "/v1/account", Some(json!({"handle": handle}))).await;
    assert_eq!(rename("bob").await, "handle_taken");
    for handle in ["", "-a", "Ada", "a_b", "account", "v1", "docs", "login", "account_1", "..", &"a".repeat(64), "ä"] {
        assert_eq!(rename(handle).await, "invalid_name", "{handle}");
    }
    let long = json!({"handle": "ada", "displayName": "x".repeat(101)});
    assert_eq!(host.refused(&alice, "PUT", "/v1/account", Some(long)).await, "invalid_name");
    assert_eq!(host.refused(&host.token, "POST", "/v1/operator/accounts", Some(json!({"handle": "ada"}))).await, "handle_taken");
    host.ok("POST", "/v1/operator/accounts", Some(json!({"handle": "alice"}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_reaches_as_far_as_it_says_for_as_long_as_it_says() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    let make = async |body| host.ok_as(&alice, "POST", "/v1/tokens", Some(body)).await;
    let read = make(json!({"name": "read", "scope": "read"})).await;
    let short = make(json!({"name": "short", "expiresInSeconds": 60})).await;
    let (read_text, short_text) = (read["token"].as_str().unwrap(), short["token"].as_str().unwrap());
    assert!(read_text.starts_with("tovuk_") && read_text.len() >= 6 + 43, "256 bits: {read_text}");
    assert_eq!(host.refused(&alice, "POST", "/v1/tokens", Some(json!({"name": "up", "scope": "operator"}))).await, "token_scope");
    assert_eq!(host.refused(read_text, "POST", "/v1/tokens", Some(json!({"name": "up", "scope": "account"}))).await, "token_scope");
    for name in ["", "  ", &"x".repeat(101)] {
        assert_eq!(host.refused(&alice, "POST", "/v1/tokens", Some(json!({"name": name}))).await, "invalid_name");
    }
    assert_eq!(host.refused(&alice, "POST", "/v1/tokens", Some(json!({"name": "x", "scope": "all"}))).await, "invalid_request");

    let listed = host.ok_as(read_text, "GET", "/v1/tokens", None).await;
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 3);
    for text in [read_text, short_text, &alice, &host.token] {
        assert!(!listed.to_string().contains(text), "a token is shown once");
    }

    host.ok_as(short_text, "GET", "/v1/account", None).await;
    host.clock.advance(Duration::from_secs(59));
    host.ok_as(short_text, "GET", "/v1/account", None).await;
    host.clock.advance(Duration::from_secs(1));
    assert_eq!(host.refused(short_text, "GET", "/v1/account", None).await, "unauthorized");

    let id = read["details"]["id"].as_str().unwrap();
    assert_eq!(host.refused(&host.token, "DELETE", &format!("/v1/tokens/{id}"), None).await, "token_not_found");
    host.ok_as(&alice, "DELETE", &format!("/v1/tokens/{id}"), None).await;
    assert_eq!(host.refused(read_text, "GET", "/v1/account", None).await, "unauthorized");
    assert_eq!(host.refused(&alice, "DELETE", &format!("/v1/tokens/{id}"), None).await, "token_not_found");

    let tokens = [read_text.to_owned(), short_text.to_owned(), alice.clone()];
    let host = host.restart().await;
    host.ok_as(&alice, "GET", "/v1/account", None).await;
    for token in &tokens[..2] {
        assert_eq!(host.refused(token, "GET", "/v1/account", None).await, "unauthorized");
    }
    for token in &tokens {
        assert!(host.files_with(token.as_bytes()).is_empty(), "only digests are stored");
    }
    let admin: Vec<_> = host.files_with(host.token.as_bytes());
    assert_eq!(admin, [host.data.join("admin-token")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_has_so_many_tokens_and_no_more() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    for number in 1..100 {
        host.ok_as(&alice, "POST", "/v1/tokens", Some(json!({"name": format!("t{number}")}))).await;
    }
    assert_eq!(host.refused(&alice, "POST", "/v1/tokens", Some(json!({"name": "more"}))).await, "token_limit");
    let started = host.api("POST", "/v1/login/device", None, None).await.json();
    let approve = json!({"userCode": started["userCode"]});
    assert_eq!(host.refused(&alice, "POST", "/v1/login/approve", Some(approve)).await, "token_limit", "a login is a token as well");
    let listed = host.ok_as(&alice, "GET", "/v1/tokens", None).await;
    let last = listed["tokens"][99]["id"].as_str().unwrap();
    host.ok_as(&alice, "DELETE", &format!("/v1/tokens/{last}"), None).await;
    host.ok_as(&alice, "POST", "/v1/tokens", Some(json!({"name": "more"}))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_approved_once_and_ends() {
    let host = Operator::start(TOVUK).await;
    let alice = host.account("alice").await;
    let started = host.api("POST", "/v1/login/device", None, None).await.json();
    let (device, code) = (started["deviceCode"].as_str().unwrap(), started["userCode"].as_str().unwrap());
    assert_eq!((&started["expiresInSeconds"], &started["intervalSeconds"]), (&json!(600), &json!(5)));
    assert_eq!(started["loginUrl"], format!("{}/login?code={code}", host.host.urls().api));
    let poll = async |device: &str| {
        let reply = host.api("GET", &format!("/v1/login/device/{device}"), None, None).await;
        assert_eq!(reply.status, 200, "an answer that is no 2xx would end the login: {}", reply.text());
        reply.json()
    };
    assert_eq!(poll(device).await["status"], "pending");
    assert_eq!(poll("nonsense").await["status"], "expired");
    let approve = async |token: &str, body| host.api("POST", "/v1/login/approve", Some(token), Some(body)).await.code();
    assert_eq!(approve(&alice, json!({"userCode": "BBBB-BBBB"})).await, "login_not_found");
    assert_eq!(approve(&alice, json!({"userCode": code, "scope": "operator"})).await, "token_scope");
    assert_eq!(approve(&alice, json!({"userCode": format!(" {} ", code.to_lowercase())})).await, "200");
    assert_eq!(approve(&alice, json!({"userCode": code})).await, "login_not_found", "it was approved before");
    let complete = poll(device).await;
    assert_eq!((&complete["status"], &complete["handle"]), (&json!("complete"), &json!("alice")));
    let token = complete["token"].as_str().unwrap().to_owned();
    assert_eq!(host.ok_as(&token, "GET", "/v1/account", None).await["account"]["handle"], "alice");
    assert_eq!(poll(device).await["token"], token, "a lost answer loses nothing");
    assert!(host.files_with(token.as_bytes()).is_empty() && host.files_with(device.as_bytes()).is_empty());

    let waiting = host.api("POST", "/v1/login/device", None, None).await.json();
    host.clock.advance(Duration::from_secs(600));
    assert_eq!(poll(device).await["status"], "expired");
    assert_eq!(poll(waiting["deviceCode"].as_str().unwrap()).await["status"], "expired");
    assert_eq!(approve(&alice, json!({"userCode": waiting["userCode"]})).await, "login_not_found");
    host.ok_as(&token, "GET", "/v1/account", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_nobody_approves_do_not_pile_up() {
    let host = Operator::start(TOVUK).await;
    let start = async || host.api("POST", "/v1/login/device", None, None).await.code();
    for _ in 0..LOGINS_OPEN_CLIENT_MAX {
        assert_eq!(start().await, "200");
    }
    assert_eq!(start().await, "too_many_requests");
    let start_from = async |client: [u8; 4]| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((client, 0).into()).unwrap();
        let mut stream = socket.connect(host.host.api_address()).await.unwrap();
        stream.write_all(b"POST /v1/login/device HTTP/1.1\r\nhost: api\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    };
    for client in 1..u8::try_from(LOGINS_OPEN_MAX / LOGINS_OPEN_CLIENT_MAX).unwrap() {
        for _ in 0..LOGINS_OPEN_CLIENT_MAX {
            assert_eq!(start_from([127, 0, 1, client]).await, "200", "another client can");
        }
    }
    assert_eq!(start_from([127, 0, 2, 1]).await, "429", "all together have a limit");
    host.clock.advance(Duration::from_secs(600));
    assert_eq!(start().await, "200");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_is_read_in_pages_from_the_newest() {
    let host = Operator::start(TOVUK).await;
    let (alice, bob) = (host.account("alice").await, host.account("bob").await);
    for number in 0..7 {
        host.ok_as(&alice, "POST", "/v1/services", Some(json!({"name": format!("s{number}")}))).await;
    }
    host.ok_as(&bob, "POST", "/v1/services", Some(json!({"name": "bobs"}))).await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = host.ok_as(&alice, "GET", &format!("/v1/account/activity?limit=3{cursor}"), None).await;
        seen.extend(page["activity"].as_array().unwrap().iter().map(|entry| entry["subject"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break assert_eq!(page["has_more"], false),
        }
        assert_eq!(page["has_more"], true);
    }
    assert_eq!(seen, ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]);
    let entry = &host.ok_as(&bob, "GET", "/v1/account/activity", None).await["activity"][0];
    assert_eq!((&entry["action"], &entry["subject"]), (&json!("service.create"), &json!("bobs")));
    assert!(entry["tokenId"].is_string() && entry["serviceId"].is_string() && entry["at"].as_str().unwrap().ends_with('Z'), "{entry}");
}
