//! What a command failed with, in the shape in which the API says it, so that people and programs read the failures of both sides alike. What went wrong
//! is known elsewhere; here is how it is told.

use std::process::ExitCode;

use serde_json::{Map, Value, json};
use tovuk_kernel::codes::Code;
use tovuk_kernel::error::DOCS_URL_BASE;

use crate::new::NewError;
use crate::output::printable;
use crate::project_file::LoadError;

/// A command that was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The status of the API's answer; 0 when there was none.
    pub status: u16,
    /// What happened, for programs.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// The exact next command or edit.
    pub agent_instruction: Option<String>,
    /// Where to read more.
    pub docs_url: Option<String>,
    /// What else the API has said.
    pub details: Box<Map<String, Value>>,
}

/// The exit code of a host that failed.
const HOST_FAILED: u8 = 2;

impl Failure {
    /// A failure on this side.
    pub fn local(code: &str, message: impl Into<String>) -> Self {
        Self { status: 0, code: code.to_owned(), message: message.into(), agent_instruction: None, docs_url: None, details: Box::default() }
    }

    /// A failure on this side that has a row in the code table.
    pub fn of(code: &'static Code, message: impl Into<String>) -> Self {
        Self { docs_url: Some(format!("{DOCS_URL_BASE}{}", code.code)), ..Self::local(code.code, message).instruct(code.help) }
    }

    /// With the exact next command or edit.
    pub fn instruct(mut self, instruction: impl Into<String>) -> Self {
        self.agent_instruction = Some(instruction.into());
        self
    }

    /// What an answer that is no success says.
    pub fn of_answer(status: u16, body: &[u8]) -> Self {
        let parsed = serde_json::from_slice::<Map<String, Value>>(body).ok();
        let told = parsed.and_then(|mut body| {
            let mut text = |key: &str| match body.remove(key) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let (code, message) = (text("code")?, text("message")?);
            let (agent_instruction, docs_url) = (text("agent_instruction"), text("docs_url"));
            Some(Self { status, code, message, agent_instruction, docs_url, details: Box::new(body) })
        });
        told.unwrap_or_else(|| {
            let message = format!("the answer has the status {status} and is none of a tovuk host");
            Self { status, ..Self::local("api_error", message) }
                .instruct("Check that --api or TOVUK_API_BASE_URL names the control API of a tovuk host, and try again.")
        })
    }

    /// 1 where the command was refused or failed, 2 where the host did.
    pub fn exit_code(&self) -> ExitCode {
        if self.status >= 500 { ExitCode::from(HOST_FAILED) } else { ExitCode::FAILURE }
    }

    /// The failure for a program: all keys, also those without a value.
    pub fn to_json(&self) -> Value {
        let mut body = (*self.details).clone();
        body.entry("checkout_url").or_insert(Value::Null);
        body.insert("code".to_owned(), json!(self.code));
        body.insert("message".to_owned(), json!(self.message));
        body.insert("agent_instruction".to_owned(), json!(self.agent_instruction));
        body.insert("docs_url".to_owned(), json!(self.docs_url));
        Value::Object(body)
    }

    /// The failure for a person.
    pub fn to_text(&self) -> String {
        let mut text = format!("error: {}\n", printable(&self.message));
        for (label, value) in [("agent_instruction", &self.agent_instruction), ("docs", &self.docs_url)] {
            if let Some(value) = value.as_deref().filter(|value| !value.is_empty()) {
                text.push_str(&format!("{label}: {}\n", printable(value)));
            }
        }
        text
    }

    /// Tells it on standard error.
    pub fn report(&self, json: bool) {
        match json {
            true => eprintln!("{:#}", self.to_json()),
            false => eprint!("{}", self.to_text()),
        }
    }
}

/// What a command has failed with, whoever knows of it.
impl From<&anyhow::Error> for Failure {
    fn from(error: &anyhow::Error) -> Self {
        let known = error.downcast_ref::<Self>().cloned();
        let known = known.or_else(|| error.downcast_ref::<LoadError>().map(Self::from));
        let known = known.or_else(|| error.downcast_ref::<NewError>().map(Self::from));
        known.unwrap_or_else(|| Self::local("command_failed", format!("{error:#}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_with_all_that_it_says() {
        let failure =
            Failure::of_answer(409, br#"{"code":"service_in_use","message":"m","agent_instruction":"do","request_id":"r","used_by":["a"]}"#);
        assert_eq!(failure.to_text(), "error: m\nagent_instruction: do\n");
        let json = failure.to_json();
        assert_eq!(
            (&json["used_by"][0], &json["docs_url"], &json["checkout_url"], &json["request_id"]),
            (&json!("a"), &Value::Null, &Value::Null, &json!("r"))
        );
    }

    #[test]
    fn what_is_no_error_of_a_host_is_said_to_be_none() {
        for body in [&b""[..], b"<html>", b"[]", b"{\"code\":1,\"message\":\"m\"}"] {
            let failure = Failure::of_answer(502, body);
            assert_eq!(failure.code, "api_error");
            assert!(failure.message.contains("502"));
        }
    }
}
