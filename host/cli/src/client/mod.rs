//! Asks a control API: one request, one answer, as JSON. Nothing is repeated by itself, because the client cannot know what a request whose answer was
//! lost has done; redirects are not followed, because a token is for the host that it was given for.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tovuk_kernel::operation::{Access, Method, Operation};

use crate::failure::Failure;
use crate::session::{ApiUrl, ClientArgs};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer may take, without what was sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The slowest upload that is waited for, in bytes per second.
const UPLOAD_BYTES_PER_SECOND: u64 = 100_000;
/// The largest answer. Lists come in pages; what is larger comes from no tovuk host.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// What the paths of operations on services and on what was deployed begin with.
const OF_A_PROJECT: [&str; 7] = ["/v1/services", "/v1/deploys", "/v1/builds", "/v1/clock", "/v1/traces", "/v1/top", "/v1/usage"];

/// What stands for itself in a segment of a path and in a value of a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Speaks to one API, as somebody or as nobody.
pub struct Client {
    api: ApiUrl,
    flag: String,
    token: Option<String>,
    http: hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// The path and the query.
    pub target: String,
    /// The body.
    pub body: Option<Value>,
}

impl Call {
    /// A GET of this path.
    pub fn get(target: impl Into<String>) -> Self {
        Self { method: Method::Get, target: target.into(), body: None }
    }

    /// A POST to this path.
    pub fn post(target: impl Into<String>, body: Option<Value>) -> Self {
        Self { method: Method::Post, target: target.into(), body }
    }
}

/// Text as one segment of a path, or one value of a query.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

impl Client {
    /// A client as these arguments say, for operations that need a token.
    pub fn new(args: &ClientArgs) -> Result<Self, Failure> {
        let api = args.api()?;
        let token = args.token(&api)?;
        Ok(Self { flag: args.flag(), ..Self::of(api, Some(token))? })
    }

    /// The same for operations that need none. None is sent then, so that a stale one does no harm.
    pub fn anonymous(args: &ClientArgs) -> Result<Self, Failure> {
        Self::of(args.api()?, None)
    }

    /// A client for this operation. What concerns services and their deploys is asked of the `tovuk dev` that runs in this folder, if one does.
    pub fn for_operation(args: &ClientArgs, operation: &Operation) -> Result<Self, Failure> {
        let is_of_a_project = OF_A_PROJECT.iter().any(|path| operation.path.starts_with(path));
        if let Some((api, token)) = args.dev().filter(|_| is_of_a_project) {
            eprintln!("asking the `tovuk dev` of this folder, {api}; --api names another host");
            return Self::of(api, Some(token));
        }
        if operation.access == Access::Public { Self::anonymous(args) } else { Self::new(args) }
    }

    fn of(api: ApiUrl, token: Option<String>) -> Result<Self, Failure> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let builder = hyper_rustls::HttpsConnectorBuilder::new();
        // Reading the system's certificates takes longer than a request to this machine does.
        let https = if api.as_str().starts_with("https:") {
            builder.with_native_roots().map_err(|error| {
                let failure = Failure::local("api_unreachable", format!("the system's root certificates cannot be read: {error}"));
                failure.instruct("Install the package `ca-certificates`, or name a PEM file in SSL_CERT_FILE.")
            })?
        } else {
            builder.with_tls_config(rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        };
        let https = https.https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self { api, flag: String::new(), token, http: hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https) })
    }

    /// The API that it speaks to.
    pub fn api(&self) -> &ApiUrl {
        &self.api
    }

    /// What a suggested command carries to ask the same API.
    pub fn flag(&self) -> &str {
        &self.flag
    }

    /// Asks, and returns what a success says.
    pub async fn call(&self, call: Call) -> Result<Value, Failure> {
        let body = call.body.as_ref().map(ToString::to_string).unwrap_or_default();
        let upload = Duration::from_secs(body.len() as u64 / UPLOAD_BYTES_PER_SECOND);
        let request = self.request(&call, body)?;
        let answer = async {
            let (parts, body) = self.http.request(request).await.map_err(|error| self.unreachable(&error))?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| self.failed(&format!("the answer of {} did not arrive whole: {error}", self.api)))?.to_bytes();
            if !parts.status.is_success() {
                return Err(Failure::of_answer(parts.status.as_u16(), &body));
            }
            Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
        };
        match tokio::time::timeout(ANSWER_TIMEOUT + upload, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.failed(&format!("{} has not answered within {} s", self.api, (ANSWER_TIMEOUT + upload).as_secs()))),
        }
    }

    /// Asks for an answer that goes on, and hands over each of its lines that is not empty, for as long as that wants more. Returns when the
    /// host has ended it.
    pub async fn follow(&self, call: Call, mut line: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<ControlFlow<()>, Failure> {
        let silent = || self.failed(&format!("{} has said nothing for {} s", self.api, ANSWER_TIMEOUT.as_secs()));
        let request = self.http.request(self.request(&call, String::new())?);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, request).await.map_err(|_| silent())?;
        let (parts, mut body) = answer.map_err(|error| self.unreachable(&error))?.into_parts();
        if !parts.status.is_success() {
            let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            return Err(Failure::of_answer(parts.status.as_u16(), &text));
        }
        let mut rest = Vec::new();
        // The host says something now and then, also where there is nothing to say.
        while let Some(frame) = tokio::time::timeout(ANSWER_TIMEOUT, body.frame()).await.map_err(|_| silent())? {
            let frame = frame.map_err(|error| self.failed(&format!("the answer of {} broke off: {error}", self.api)))?;
            let Some(data) = frame.data_ref() else { continue };
            rest.extend_from_slice(data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = rest.drain(..=end).collect();
                let text = whole.trim_ascii_end();
                if !text.is_empty() && line(text).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if rest.len() > ANSWER_BYTES_MAX {
                return Err(self.failed(&format!("{} sends a line without an end", self.api)));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn request(&self, call: &Call, body: String) -> Result<Request<Full<Bytes>>, Failure> {
        let url = format!("{}{}", self.api, call.target);
        let mut request = Request::builder().method(call.method.as_str()).uri(&url).header(header::ACCEPT, "application/json");
        request = request.header(header::USER_AGENT, concat!("tovuk-cli/", env!("CARGO_PKG_VERSION")));
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Failure::local("invalid_argument", "the token has characters that no token has").instruct("Copy it again from where it was shown.")
            })?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        request.body(Full::from(body)).map_err(|error| Failure::local("invalid_argument", format!("{url}: {error}")))
    }

    fn unreachable(&self, error: &hyper_util::client::legacy::Error) -> Failure {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            text = cause.to_string();
            source = cause.source();
        }
        self.failed(&format!("{} cannot be reached: {text}", self.api))
    }

    fn failed(&self, message: &str) -> Failure {
        let instruction = "Check that the host runs and that --api or TOVUK_API_BASE_URL names it; `tovuk doctor` looks at each step.";
        Failure::local("api_unreachable", message).instruct(instruction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_encoded_byte_by_byte() {
        assert_eq!(encoded("user:1/a b~-_.é"), "user%3A1%2Fa%20b~-_.%C3%A9");
    }
}
