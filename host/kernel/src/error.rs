//! The error body: one flat JSON object on every door.

use schemars::JsonSchema;
use serde::Serialize;

use crate::codes::Code;

/// Where the reference documentation of a code is.
pub const DOCS_URL_BASE: &str = "https://docs.tovuk.com/reference/codes#";

/// The body of an error response.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorBody<'a> {
    /// The row of the code table.
    pub code: &'static str,
    /// What happened.
    pub message: &'a str,
    /// The exact next command or edit; absent towards anonymous clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_instruction: Option<&'a str>,
    /// Where to read more; absent towards anonymous clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docs_url: Option<String>,
    /// Names this request in the log.
    pub request_id: &'a str,
    /// The invocations that led here, where the reader may know them.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub hops: &'a [HopBody],
    /// What else a program may want to know, as further keys of the body.
    #[serde(flatten)]
    pub details: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

/// One invocation in an error body.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HopBody {
    /// 1 is the request from outside.
    pub number: u32,
    /// The name of the service.
    pub service: String,
    /// The method.
    pub method: String,
    /// The path without its query.
    pub path: String,
}

impl<'a> ErrorBody<'a> {
    /// What anonymous public traffic may see: the code, its neutral message and the request's id.
    pub fn public(code: &'static Code, request_id: &'a str) -> Self {
        Self { code: code.code, message: code.message, agent_instruction: None, docs_url: None, request_id, hops: &[], details: None }
    }

    /// What the calling worker, the author and the development host may see.
    pub fn detailed(code: &'static Code, message: &'a str, hops: &'a [HopBody], request_id: &'a str) -> Self {
        Self {
            code: code.code,
            message,
            agent_instruction: Some(code.help),
            docs_url: Some(format!("{DOCS_URL_BASE}{}", code.code)),
            request_id,
            hops,
            details: None,
        }
    }

    /// With another instruction than the code's own.
    pub fn instructed(mut self, instruction: Option<&'a str>) -> Self {
        self.agent_instruction = instruction.or(self.agent_instruction);
        self
    }

    /// With further keys.
    pub fn with_details(mut self, details: Option<&'a serde_json::Map<String, serde_json::Value>>) -> Self {
        self.details = details;
        self
    }

    /// The body's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        // Serialising strings and integers into memory cannot fail; an empty body is still a valid response.
        serde_json::to_vec(self).unwrap_or_default()
    }
}
