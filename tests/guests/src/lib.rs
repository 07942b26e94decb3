//! What the guests that speak `wasi:http` directly share: answering, reading a body, starting and awaiting a call.
//!
//! It stays close to the interface on purpose: tests of the host need to know which host function a guest calls when. The lean guests need
//! nothing from here, they use the SDK.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::poll::Pollable;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// The decoded value of a query parameter; empty when it has none, `None` when it is absent.
pub fn query(path_with_query: &str, name: &str) -> Option<String> {
    let (_, query) = path_with_query.split_once('?')?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// The path's segments, without the query.
pub fn segments(path_with_query: &str) -> Vec<&str> {
    let path = path_with_query.split('?').next().unwrap_or_default();
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// The first number in the path, else `default`.
pub fn number(path_with_query: &str, default: u64) -> u64 {
    segments(path_with_query).iter().find_map(|segment| segment.parse().ok()).unwrap_or(default)
}

/// The name of a WASI error code as WIT spells it, for example `loop-detected`.
pub fn code_name(code: &ErrorCode) -> String {
    let debug = format!("{code:?}");
    let variant = debug.trim_start_matches("ErrorCode::").split(['(', ' ', '{']).next().unwrap_or_default();
    let mut name = String::new();
    for letter in variant.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Sends the head and returns the body to write.
pub fn head(out: ResponseOutparam, status: u16, content_type: &str) -> OutgoingBody {
    let fields = Fields::new();
    fields.append("content-type", content_type.as_bytes()).unwrap();
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

/// Answers with a whole body.
pub fn respond(out: ResponseOutparam, status: u16, content_type: &str, bytes: &[u8]) {
    let body = head(out, status, content_type);
    let stream = body.write().unwrap();
    // A client that has gone away is no reason to trap.
    let sent = write_all(&stream, bytes);
    drop(stream);
    if sent.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Answers with JSON.
pub fn respond_json(out: ResponseOutparam, status: u16, value: &serde_json::Value) {
    respond(out, status, "application/json", value.to_string().as_bytes());
}

/// Writes as much as the stream takes at a time, waiting when it takes nothing.
pub fn write_all(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let room = stream.check_write()?;
        if room == 0 {
            stream.subscribe().block();
            continue;
        }
        let (now, later) = bytes.split_at(bytes.len().min(room as usize));
        stream.write(now)?;
        bytes = later;
    }
    stream.blocking_flush()
}

/// Reads a stream to its end in pieces of at most 64 KiB.
pub fn for_each_piece(stream: &InputStream, mut take: impl FnMut(&[u8])) -> Result<(), String> {
    loop {
        match stream.blocking_read(65536) {
            Ok(piece) => take(&piece),
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

/// A whole body.
pub fn read_all(body: IncomingBody) -> Result<Vec<u8>, String> {
    let stream = body.stream().map_err(|()| "the body's stream was taken already".to_owned())?;
    let mut bytes = Vec::new();
    for_each_piece(&stream, |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// A request to `http[s]://authority/path`, not sent yet.
pub fn request_to(method: &Method, url: &str, fields: Fields) -> Result<OutgoingRequest, ErrorCode> {
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let request = OutgoingRequest::new(fields);
    request.set_method(method).map_err(|()| ErrorCode::HttpRequestMethodInvalid)?;
    request.set_scheme(Some(&scheme)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request.set_authority(Some(authority)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request.set_path_with_query(Some(&path)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    Ok(request)
}

/// Sends `GET url` and does not wait.
pub fn start_get(url: &str) -> Result<FutureIncomingResponse, ErrorCode> {
    outgoing_handler::handle(request_to(&Method::Get, url, Fields::new())?, None)
}

/// Waits for the head of a response.
pub fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    loop {
        match future.get() {
            Some(result) => return result.unwrap(),
            None => future.subscribe().block(),
        }
    }
}

/// Status and whole body of a response.
pub fn status_and_body(response: IncomingResponse) -> Result<(u16, Vec<u8>), ErrorCode> {
    let body = response.consume().map_err(|()| ErrorCode::InternalError(None))?;
    let bytes = read_all(body).map_err(|text| ErrorCode::InternalError(Some(text)))?;
    Ok((response.status(), bytes))
}

/// Copies one stream into another, a step at a time, holding at most one piece: the memory it needs does not grow with the body.
pub struct Pump {
    input: InputStream,
    output: OutputStream,
}

/// What a step of a [`Pump`] came to.
pub enum Step {
    /// Something moved: step again.
    Moved,
    /// Nothing can move before this is ready.
    Wait(Pollable),
    /// The input has ended and all of it is written.
    Done,
    /// One of the two broke.
    Failed(String),
}

impl Pump {
    /// Copies `input` to `output`.
    pub fn new(input: InputStream, output: OutputStream) -> Self {
        Self { input, output }
    }

    /// Moves what can be moved now.
    pub fn step(&self) -> Step {
        let room = match self.output.check_write() {
            Ok(0) => return Step::Wait(self.output.subscribe()),
            Ok(room) => room.min(65536),
            Err(error) => return Step::Failed(format!("write: {error:?}")),
        };
        match self.input.read(room) {
            Ok(piece) if piece.is_empty() => Step::Wait(self.input.subscribe()),
            Ok(piece) => match self.output.write(&piece) {
                Ok(()) => Step::Moved,
                Err(error) => Step::Failed(format!("write: {error:?}")),
            },
            Err(StreamError::Closed) => match self.output.blocking_flush() {
                Ok(()) => Step::Done,
                Err(error) => Step::Failed(format!("flush: {error:?}")),
            },
            Err(StreamError::LastOperationFailed(error)) => Step::Failed(format!("read: {}", error.to_debug_string())),
        }
    }

    /// Copies to the end.
    pub fn run(&self) -> Result<(), String> {
        loop {
            match self.step() {
                Step::Moved => {}
                Step::Wait(pollable) => pollable.block(),
                Step::Done => return Ok(()),
                Step::Failed(why) => return Err(why),
            }
        }
    }
}

/// FNV-1a, 64 bits: a checksum that a test can compute in three lines and that sees a changed order.
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    }

    /// Sixteen hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:016x}", self.0)
    }
}
