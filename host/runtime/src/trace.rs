//! W3C trace context: the `traceparent` header, read from whoever sent a request and written for whoever gets one.

use std::fmt;

use http::{HeaderMap, HeaderValue};

/// The header.
pub const TRACEPARENT: http::HeaderName = http::HeaderName::from_static("traceparent");

/// Names one request from outside and all it caused. Never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

impl TraceId {
    /// A new one. It need not be secret, only unlikely to occur twice.
    pub fn random() -> Self {
        Self(fastrand::u128(1..))
    }

    /// The id that is written so: 32 digits, as in the header.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        u128::from_str_radix(text, 16).ok().filter(|id| digits && *id != 0).map(Self)
    }

    /// The id that is kept as these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The id as it is kept.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a request from outside stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: TraceId,
    /// The span that the request came from; 0 when it began the trace.
    pub parent_span: u64,
}

impl TraceContext {
    /// What the request says, or a new trace.
    pub fn of(headers: &HeaderMap) -> Self {
        parse(headers).map_or_else(|| Self { trace: TraceId::random(), parent_span: 0 }, |(trace, parent_span)| Self { trace, parent_span })
    }
}

/// A new span id. Never zero.
pub fn random_span() -> u64 {
    fastrand::u64(1..)
}

/// Trace and parent span of a request, if its header is valid.
fn parse(headers: &HeaderMap) -> Option<(TraceId, u64)> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let text = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let mut parts = text.split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lower_hex = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    // Later versions may append fields; this one may not.
    let fits = lower_hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
    if !fits || !lower_hex(trace, 32) || !lower_hex(span, 16) || !lower_hex(flags, 2) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((TraceId(trace), span))
}

/// The header of a request that this span sends.
pub fn header(trace: TraceId, span: u64) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let mut write = |start: usize, digits: usize, value: u128| {
        for (at, byte) in text.iter_mut().skip(start).take(digits).enumerate() {
            let nibble = (value >> (4 * (digits - 1 - at))) & 0xf;
            *byte = HEX.get(nibble as usize).copied().unwrap_or(b'0');
        }
    };
    write(3, 32, trace.0);
    write(36, 16, u128::from(span));
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(TRACEPARENT, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn what_is_written_can_be_read() {
        let (trace, span) = (TraceId::random(), random_span());
        let written = header(trace, span);
        assert_eq!(written.to_str().unwrap(), format!("00-{trace}-{span:016x}-01"));
        assert_eq!(parse(&HeaderMap::from_iter([(TRACEPARENT, written)])), Some((trace, span)));
    }

    #[test]
    fn what_is_not_a_trace_context_is_ignored() {
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(parse(&headers(bad)), None, "{bad}");
        }
        assert!(parse(&headers("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later")).is_some());
    }
}
