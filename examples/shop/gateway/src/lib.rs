//! The public service: asks `auth` who is calling and answers with what the private services said.

use serde::{Deserialize, Serialize};
use tovuk::{Env, Request, Response, Result, Router};

/// What `auth` answers.
#[derive(Deserialize)]
struct Checked {
    user: String,
    billing: serde_json::Value,
}

#[derive(Serialize)]
struct Order {
    order: u64,
    auth: User,
    billing: serde_json::Value,
}

#[derive(Serialize)]
struct User {
    user: String,
}

#[tovuk::handler]
pub fn handle(req: Request, env: Env) -> Result<Response> {
    Router::new()
        .get("/", |_| Ok(Response::text("try /orders/42 with the header authorization: Bearer demo\n")))
        .get("/orders/{id}", |req| order(&req, env))
        .run(req)
}

fn order(req: &Request, env: Env) -> Result<Response> {
    let id: u64 = req.param("id")?;
    let mut check = Request::get(format!("/check?order={id}"));
    if let Some(token) = req.bearer_token() {
        check = check.with_bearer_token(token);
    }
    let answer = env.service("AUTH_SERVICE").fetch(check)?;
    if !answer.is_success() {
        // What auth says about the credentials or the order is meant for the client.
        return Ok(answer);
    }
    let checked: Checked = answer.body_json()?;
    tovuk::log::info!("order {id} for {}", checked.user);
    Response::json(&Order { order: id, auth: User { user: checked.user }, billing: checked.billing })
}

#[cfg(test)]
mod tests {
    use tovuk::CallError;
    use tovuk::testing::TestEnv;

    use super::*;

    /// The three workers, wired as tovuk.toml says.
    fn shop() -> TestEnv {
        let auth_env = TestEnv::new()
            .var("BILLING_URL", "http://billing.tovuk.internal")
            .url("http://billing.tovuk.internal", |req| Ok(TestEnv::new().run(billing::handle, req)));
        TestEnv::new().service("AUTH_SERVICE", move |req| Ok(auth_env.run(auth::handle, req)))
    }

    #[test]
    fn an_order_shows_what_auth_and_billing_said() {
        let response = shop().run(handle, Request::get("/orders/42").with_bearer_token("demo"));
        assert_eq!(
            (response.status(), response.body_text().unwrap()),
            (200, r#"{"order":42,"auth":{"user":"ada"},"billing":{"customer":"ada","order":42,"status":"paid","total_cents":8358}}"#)
        );
    }

    #[test]
    fn what_the_private_services_refuse_reaches_the_client() {
        assert_eq!(shop().run(handle, Request::get("/orders/42")).status(), 401);
        assert_eq!(shop().run(handle, Request::get("/orders/1001").with_bearer_token("demo")).status(), 404);
        assert_eq!(shop().run(handle, Request::get("/orders/many").with_bearer_token("demo")).status(), 400);
    }

    #[test]
    fn an_auth_service_that_does_not_answer_is_the_hosts_to_report() {
        let env = TestEnv::new().service("AUTH_SERVICE", |_| Err(CallError::Timeout));
        assert_eq!(env.run(handle, Request::get("/orders/42")).status(), 504);
    }
}
