//! Responses: those that a worker answers and those that a call brings.
//!
//! It derives nothing that the host derives: no `content-length`, no `date`.

use serde::Serialize;
use serde::de::Deserialize;

use crate::bindings::tovuk::http::types as wit;
use crate::{Error, Headers, Result};

/// A response with its whole body.
///
/// ```
/// # use tovuk::Response;
/// let created = Response::json(&serde_json::json!({ "id": 7 }))?.with_status(201).with_header("location", "/orders/7");
/// assert_eq!(created.status(), 201);
/// assert_eq!(created.header("content-type"), Some("application/json"));
/// # Ok::<(), tovuk::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl Response {
    /// A response without fields and body.
    pub fn empty(status: u16) -> Self {
        Self { status, headers: Headers::new(), body: Vec::new() }
    }

    /// 200 with these bytes as `application/octet-stream`.
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self::of("application/octet-stream", body.into())
    }

    /// 200 with this text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::of("text/plain; charset=utf-8", body.into().into_bytes())
    }

    /// 200 with this page.
    pub fn html(body: impl Into<String>) -> Self {
        Self::of("text/html; charset=utf-8", body.into().into_bytes())
    }

    /// 200 with `value` as JSON.
    ///
    /// # Errors
    /// When `value` cannot be written as JSON, for example because a map's keys are not text: a 500 whose text goes to the log.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self> {
        match serde_json::to_vec(value) {
            Ok(body) => Ok(Self::of("application/json", body)),
            Err(error) => Err(Error::internal(format_args!("a response could not be written as JSON: {error}"))),
        }
    }

    /// 303 to `location`, which a browser follows with a `GET`. For another kind of redirect add `.with_status(308)`, say.
    pub fn redirect(location: &str) -> Self {
        Self::empty(303).with_header("location", location)
    }

    /// Sets the status, 200 to 599.
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Sets a header field in place of those of the same name.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sets the body and leaves `content-type` as it is.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the status is 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The header fields.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// The header fields, to change: `append` to it where a name must occur twice, as with `set-cookie`.
    pub fn headers_mut(&mut self) -> &mut Headers {
        &mut self.headers
    }

    /// The first value of a header field; `None` when it is absent or not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without copying it.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// The body as text, for a response that a call brought.
    ///
    /// # Errors
    /// A 502 when it is not UTF-8: whoever was called answered what this worker does not understand.
    pub fn body_text(&self) -> Result<&str> {
        std::str::from_utf8(&self.body).map_err(|_| Error::new(502, "a service that this one called answered a body that is not text"))
    }

    /// The body read as JSON, for a response that a call brought. Look at [`is_success`](Self::is_success) first: an error may have another
    /// shape.
    ///
    /// # Errors
    /// A 502 that says what is wrong and in which line and column.
    pub fn body_json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Error::new(502, format!("a service that this one called answered JSON of another shape: {error}")))
    }

    fn of(content_type: &str, body: Vec<u8>) -> Self {
        // Built as a list and not by `with_header`, which would look for a field to replace.
        let mut headers = Headers::new();
        headers.append("content-type", content_type);
        Self { status: 200, headers, body }
    }
}

impl From<wit::Response> for Response {
    fn from(response: wit::Response) -> Self {
        Self { status: response.status, headers: Headers(response.headers), body: response.body }
    }
}

impl From<Response> for wit::Response {
    fn from(response: Response) -> Self {
        Self { status: response.status, headers: response.headers.0, body: response.body }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn constructors_set_status_type_and_body() {
        for (response, status, content_type, body) in [
            (Response::text("t"), 200, Some("text/plain; charset=utf-8"), "t"),
            (Response::html("<p>"), 200, Some("text/html; charset=utf-8"), "<p>"),
            (Response::bytes("b"), 200, Some("application/octet-stream"), "b"),
            (Response::json(&[1, 2]).unwrap(), 200, Some("application/json"), "[1,2]"),
            (Response::empty(204), 204, None, ""),
            (Response::redirect("/next"), 303, None, ""),
        ] {
            assert_eq!((response.status(), response.header("content-type"), response.body()), (status, content_type, body.as_bytes()));
        }
        assert_eq!(Response::redirect("/next").header("location"), Some("/next"));
    }

    #[test]
    fn what_json_cannot_say_is_an_internal_error() {
        let keyed_by_pairs = std::collections::BTreeMap::from([((1, 2), 3)]);
        let error = Response::json(&keyed_by_pairs).unwrap_err();
        assert_eq!((error.status(), error.message()), (500, "internal error"));
    }

    #[test]
    fn a_called_service_that_answers_another_shape_is_a_bad_gateway() {
        assert_eq!(Response::text("no").body_json::<u32>().unwrap_err().status(), 502);
        assert_eq!(Response::bytes(vec![0xff]).body_text().unwrap_err().status(), 502);
        assert_eq!(Response::text("7").body_json::<u32>().unwrap(), 7);
        assert!(Response::empty(204).is_success() && !Response::redirect("/").is_success());
    }
}
