//! The OpenAPI document: that it is one, that it has every operation, and that the host answers as it says. The schema of OpenAPI documents beside this
//! file is the OpenAPI Initiative's own, unchanged.

use jsonschema::{Draft, Validator};
use serde_json::{Value, json};
use tovuk_server::control::api::operations;
use tovuk_tests::Operator;

use crate::TOVUK;

const SCHEMA: &str = include_str!("openapi-3.1.schema.json");

async fn document(operator: &Operator) -> Value {
    let reply = operator.api("GET", "/openapi.json", None, None).await;
    assert_eq!((reply.status.as_u16(), &reply.headers["content-type"]), (200, &"application/json".parse().unwrap()));
    reply.json()
}

fn problems(validator: &Validator, value: &Value) -> Vec<String> {
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Every reference in a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_valid_and_whole() {
    let operator = Operator::start(TOVUK).await;
    let document = document(&operator).await;
    let validator = jsonschema::options().with_draft(Draft::Draft202012).build(&serde_json::from_str(SCHEMA).unwrap()).unwrap();
    assert_eq!(problems(&validator, &document), Vec::<String>::new());
    assert_eq!(document["servers"][0]["url"], operator.host.urls().api);

    for registered in operations() {
        let row = registered.operation;
        let described = &document["paths"][row.path][row.method.as_str().to_ascii_lowercase()];
        assert_eq!(described["operationId"], row.name);
        for code in row.errors {
            let listed = &described["responses"][code.status.to_string()]["content"]["application/json"]["schema"]["allOf"][1];
            assert!(listed["properties"]["code"]["enum"].as_array().unwrap().contains(&json!(code.code)), "{}: {}", row.name, code.code);
        }
    }
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.values().map(|methods| methods.as_object().unwrap().len()).sum::<usize>(), operations().len());

    let mut found = Vec::new();
    references(&document, &mut found);
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(jsonschema::draft202012::meta::is_valid(schema), "{name}");
    }
}

/// What a response must look like.
fn response_schema(document: &Value, path: &str, method: &str, status: u16) -> Validator {
    let schema = &document["paths"][path][method]["responses"][status.to_string()]["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} has no response {status}");
    let whole = json!({"allOf": [schema], "components": document["components"]});
    jsonschema::options().with_draft(Draft::Draft202012).build(&whole).unwrap()
}

#[tokio::test]
async fn the_host_answers_as_the_document_says() {
    let operator = Operator::start(TOVUK).await;
    let document = document(&operator).await;
    let asked: [(&str, &str, &str, Option<Value>, u16); 22] = [
        ("GET", "/v1/status", "/v1/status", None, 200),
        ("GET", "/v1/capabilities", "/v1/capabilities", None, 200),
        ("GET", "/v1/account", "/v1/account", None, 200),
        ("PUT", "/v1/account", "/v1/account", Some(json!({"handle": "ada", "displayName": "Ada"})), 200),
        ("PUT", "/v1/account", "/v1/account", Some(json!({"handle": "Not A Handle"})), 400),
        ("POST", "/v1/tokens", "/v1/tokens", Some(json!({"name": "ci", "scope": "read"})), 201),
        ("GET", "/v1/tokens", "/v1/tokens", None, 200),
        ("DELETE", "/v1/tokens/{token}", "/v1/tokens/token_9", None, 404),
        ("POST", "/v1/services", "/v1/services", Some(json!({"name": "shop", "kind": "rust_worker"})), 201),
        ("GET", "/v1/services", "/v1/services", None, 200),
        ("GET", "/v1/services/{service}/overview", "/v1/services/shop/overview", None, 200),
        ("GET", "/v1/services/{service}/overview", "/v1/services/absent/overview", None, 404),
        ("GET", "/v1/services/{service}/resources", "/v1/services/shop/resources", None, 200),
        ("PUT", "/v1/services/{service}/env", "/v1/services/shop/env", Some(json!({"name": "KEY", "value": "hunter22"})), 200),
        ("GET", "/v1/services/{service}/env", "/v1/services/shop/env", None, 200),
        ("GET", "/v1/services/{service}/domains", "/v1/services/shop/domains", None, 200),
        ("GET", "/v1/account/activity", "/v1/account/activity?limit=1", None, 200),
        ("GET", "/v1/account/activity", "/v1/account/activity?cursor=x", None, 400),
        ("GET", "/v1/usage", "/v1/usage", None, 200),
        ("GET", "/v1/operator/nodes", "/v1/operator/nodes", None, 200),
        ("POST", "/v1/login/device", "/v1/login/device", None, 200),
        ("POST", "/v1/billing/portal", "/v1/billing/portal", None, 501),
    ];
    for (method, path, target, body, status) in asked {
        let reply = operator.ask(method, target, body).await;
        assert_eq!(reply.status.as_u16(), status, "{method} {target}: {}", reply.text());
        let schema = response_schema(&document, path, &method.to_ascii_lowercase(), status);
        assert_eq!(problems(&schema, &reply.json()), Vec::<String>::new(), "{method} {target}: {}", reply.text());
    }
    let reply = operator.api("GET", "/v1/account", Some("tovuk_wrong"), None).await;
    assert_eq!(problems(&response_schema(&document, "/v1/account", "get", 401), &reply.json()), Vec::<String>::new(), "{}", reply.text());
}
