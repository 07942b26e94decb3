//! Requests: those that a worker receives and those that it sends.
//!
//! The fields are those of the component boundary, moved and not converted: what a handler does not look at costs nothing. Methods are text
//! and not an enum for the same reason.

use std::str::FromStr;

use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};

use crate::bindings::tovuk::http::types as wit;
use crate::{Error, Headers, Result};

/// A request with its whole body.
///
/// Received: [`path`](Self::path), [`query`](Self::query), [`param`](Self::param), [`header`](Self::header), [`json`](Self::json). Sent:
/// [`Request::get`], [`Request::post`] and the `with_…` methods.
///
/// ```
/// # use tovuk::Request;
/// let req = Request::post("/orders?dry=1").with_bearer_token("demo").with_body("[1, 2]");
/// assert_eq!(req.path(), "/orders");
/// assert_eq!(req.query_param("dry").as_deref(), Some("1"));
/// assert_eq!(req.bearer_token(), Some("demo"));
/// let items: Vec<u32> = req.json()?;
/// assert_eq!(items, [1, 2]);
/// # Ok::<(), tovuk::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    method: String,
    uri: String,
    headers: Headers,
    body: Vec<u8>,
    /// What the router matched: names from the pattern, decoded values from the path.
    params: Vec<(String, String)>,
}

impl Request {
    /// A request without fields and body. `uri` is a path with its query for a bound service, and an absolute URL for
    /// [`fetch`](crate::fetch).
    pub fn new(method: &str, uri: impl Into<String>) -> Self {
        Self { method: method.to_ascii_uppercase(), uri: uri.into(), headers: Headers::new(), body: Vec::new(), params: Vec::new() }
    }

    /// `GET uri`.
    pub fn get(uri: impl Into<String>) -> Self {
        Self::new("GET", uri)
    }

    /// `POST uri`.
    pub fn post(uri: impl Into<String>) -> Self {
        Self::new("POST", uri)
    }

    /// `PUT uri`.
    pub fn put(uri: impl Into<String>) -> Self {
        Self::new("PUT", uri)
    }

    /// `PATCH uri`.
    pub fn patch(uri: impl Into<String>) -> Self {
        Self::new("PATCH", uri)
    }

    /// `DELETE uri`.
    pub fn delete(uri: impl Into<String>) -> Self {
        Self::new("DELETE", uri)
    }

    /// Sets a header field in place of those of the same name. The host drops fields named `x-tovuk-…`.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets `authorization: Bearer <token>`.
    #[must_use]
    pub fn with_bearer_token(self, token: &str) -> Self {
        self.with_header("authorization", format!("Bearer {token}"))
    }

    /// Sets the body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value` as JSON, and `content-type`.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON, for example because a map's keys are not text: a 500 whose text goes to the log.
    pub fn with_json<T: Serialize + ?Sized>(self, value: &T) -> Result<Self> {
        let body =
            serde_json::to_vec(value).map_err(|error| Error::internal(format_args!("a request body could not be written as JSON: {error}")))?;
        Ok(self.with_header("content-type", "application/json").with_body(body))
    }

    /// The method in upper case, for example `GET`.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Path and query as received, for example `/users?limit=10`; for a request to be sent, what it was made with.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The path, still percent-encoded. Values from [`param`](Self::param) are decoded.
    pub fn path(&self) -> &str {
        let target = self.path_and_query();
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    /// What follows `?`, still encoded; empty when nothing does.
    pub fn query_string(&self) -> &str {
        self.path_and_query().split_once('?').map_or("", |(_, query)| query)
    }

    /// The first query parameter of this name, decoded.
    pub fn query_param(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query_string().as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }

    /// The query as a type of yours; a field that is a `Vec` takes all parameters of its name.
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// struct Page { limit: u32, tag: Vec<String> }
    /// let page: Page = tovuk::Request::get("/users?limit=10&tag=a&tag=b").query()?;
    /// assert_eq!((page.limit, page.tag.len()), (10, 2));
    /// # Ok::<(), tovuk::Error>(())
    /// ```
    ///
    /// # Errors
    /// A 400 that says which parameter is missing or wrong.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T> {
        serde_html_form::from_str(self.query_string())
            .map_err(|error| Error::bad_request(format!("the query string is not valid for this route: {error}")))
    }

    /// A path parameter that the [`Router`](crate::Router) matched, parsed: `let id: u64 = req.param("id")?`.
    ///
    /// # Errors
    /// A 400 when the value does not parse. A 500 when the route's pattern has no parameter of this name, because that is a mistake in the
    /// worker and not in the request.
    pub fn param<T: FromStr>(&self, name: &str) -> Result<T> {
        let Some((_, value)) = self.params.iter().find(|(key, _)| key == name) else {
            return Err(Error::internal(format_args!(
                "the handler asked for the path parameter `{name}`, which the matched pattern does not have: write `{{{name}}}` in the pattern"
            )));
        };
        value.parse().map_err(|_| {
            let wanted = std::any::type_name::<T>();
            Error::bad_request(format!(
                "the path parameter `{name}` is `{value}`, which is not a valid {}",
                wanted.rsplit("::").next().unwrap_or(wanted)
            ))
        })
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The header fields, to change.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// The first value of a header field; `None` when it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The token of `authorization: Bearer <token>`.
    pub fn bearer_token(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// The id of the service that made this call through a binding; `None` for a request from outside. The host sets it, nobody else can.
    pub fn caller(&self) -> Option<&str> {
        self.header("x-tovuk-caller")
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without copying it.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The body as text.
    ///
    /// # Errors
    /// A 400 when it is not UTF-8, saying at which byte.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body)
            .map_err(|error| Error::bad_request(format!("the request body is not UTF-8 text: byte {} is wrong", error.valid_up_to())))
    }

    /// The body, read as JSON. It may borrow from the request.
    ///
    /// # Errors
    /// A 400 that says what is wrong and in which line and column.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            if self.body.is_empty() {
                return Error::bad_request("this route needs a JSON body, and the request has none");
            }
            Error::bad_request(format!("the request body is not valid JSON for this route: {error}"))
        })
    }

    /// The body, read as an HTML form (`a=1&b=2`).
    ///
    /// # Errors
    /// A 400 that says which field is missing or wrong.
    pub fn form<T: DeserializeOwned>(&self) -> Result<T> {
        serde_html_form::from_bytes(&self.body).map_err(|error| Error::bad_request(format!("the form is not valid for this route: {error}")))
    }

    pub(crate) fn set_params(&mut self, params: Vec<(String, String)>) {
        self.params = params;
    }

    /// The URI without scheme and authority.
    fn path_and_query(&self) -> &str {
        let uri = self.uri.split_once('#').map_or(self.uri.as_str(), |(uri, _)| uri);
        if uri.starts_with('/') {
            return uri;
        }
        let Some((_, rest)) = uri.split_once("://") else { return uri };
        rest.find(['/', '?']).and_then(|at| rest.get(at..)).unwrap_or("/")
    }
}

impl From<wit::Request> for Request {
    fn from(request: wit::Request) -> Self {
        Self { method: request.method, uri: request.uri, headers: Headers(request.headers), body: request.body, params: Vec::new() }
    }
}

impl From<Request> for wit::Request {
    fn from(request: Request) -> Self {
        Self { method: request.method, uri: request.uri, headers: request.headers.0, body: request.body }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn path_and_query_of_every_form_of_uri() {
        for (uri, path, query) in [
            ("/", "/", ""),
            ("/a/b?x=1?y", "/a/b", "x=1?y"),
            ("/to/http://x?q", "/to/http://x", "q"),
            ("https://api.example.com", "/", ""),
            ("https://api.example.com?q=1", "", "q=1"),
            ("https://api.example.com:8443/v1/x?q=1#part", "/v1/x", "q=1"),
            ("*", "*", ""),
        ] {
            let req = Request::get(uri);
            assert_eq!((req.path(), req.query_string()), (path, query), "{uri}");
        }
    }

    #[test]
    fn query_values_are_decoded_and_a_wrong_one_is_named() {
        #[derive(serde::Deserialize, Debug)]
        struct Page {
            limit: u32,
        }
        let req = Request::get("/x?name=a%20b+c&limit=ten&name=second");
        assert_eq!(req.query_param("name").as_deref(), Some("a b c"));
        assert_eq!(req.query_param("none"), None);
        let error = req.query::<Page>().unwrap_err();
        assert_eq!(error.status(), 400);
        let missing = Request::get("/x").query::<Page>().unwrap_err();
        assert!(missing.message().contains("limit"), "{missing}");
        assert_eq!(Request::get("/x?limit=7").query::<Page>().unwrap().limit, 7);
    }

    #[test]
    fn a_json_error_says_where_and_is_the_callers() {
        let error = Request::post("/").with_body("{\n  \"a\": }").json::<serde_json::Value>().unwrap_err();
        assert_eq!(error.status(), 400);
        assert!(error.message().contains("line 2 column 8"), "{error}");
        let empty = Request::post("/").json::<serde_json::Value>().unwrap_err();
        assert!(empty.message().contains("has none"), "{empty}");
    }

    #[test]
    fn forms_and_text() {
        #[derive(serde::Deserialize)]
        struct Login {
            user: String,
        }
        let req = Request::post("/").with_body("user=J%C3%B8rn");
        assert_eq!(req.form::<Login>().unwrap().user, "Jørn");
        assert_eq!(req.text().unwrap(), "user=J%C3%B8rn");
        let error = Request::post("/").with_body(vec![b'a', 0xff]).text().unwrap_err();
        assert!(error.message().contains("byte 1"), "{error}");
    }

    #[test]
    fn only_bearer_credentials_are_a_bearer_token() {
        assert_eq!(Request::get("/").bearer_token(), None);
        assert_eq!(Request::get("/").with_header("authorization", "Basic abc").bearer_token(), None);
        assert_eq!(Request::get("/").with_header("Authorization", "bearer  abc ").bearer_token(), Some("abc"));
    }
}
