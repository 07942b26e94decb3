//! Deploys through the control API: accepted, built, promoted, brought back.

use serde_json::json;
use tovuk_tests::Operator;

use crate::TOVUK;

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_answers_and_survives_a_start_anew() {
    let host = Operator::start(TOVUK).await;
    let token = host.token.clone();
    let accepted = host.deploy(&token, "shop", "hello", json!({"routes": ["/*"]})).await;
    assert_eq!(accepted["service"]["name"], "shop");
    assert_eq!(host.get("shop", "/").await.text(), "hello");
    let shown = host.ok("GET", "/v1/services/shop/overview", None).await;
    assert_eq!(shown["status"]["service"]["runtime_status"], "running");
    let host = host.restart().await;
    assert_eq!(host.get("shop", "/").await.text(), "hello");
}
