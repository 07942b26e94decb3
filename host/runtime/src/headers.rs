//! Header fields that a worker, or whoever speaks to one, may not set.

use http::{HeaderMap, HeaderName};

/// Fields that only the host sets begin so.
const HOST_PREFIX: &str = "x-tovuk-";
/// Fields of one connection. A worker's response may go over another.
const CONNECTION_FIELDS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Drops what only the host may say. Public traffic and guests are treated alike.
pub(crate) fn strip_host_fields(headers: &mut HeaderMap) {
    strip(headers, is_host_field);
}

/// Drops what belongs to a connection or to the host from a worker's response.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    strip(headers, |name| is_host_field(name) || CONNECTION_FIELDS.contains(&name.as_str()));
}

/// One look at each name, and nothing more for the many messages that have none of them.
fn strip(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    if headers.keys().any(&unwanted) {
        let names: Vec<_> = headers.keys().filter(|name| unwanted(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Some software reads `_` in a name as `-`, so it counts as one.
fn is_host_field(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.len() > HOST_PREFIX.len() && name.bytes().zip(HOST_PREFIX.bytes()).all(|(byte, wanted)| byte == wanted || (byte == b'_' && wanted == b'-'))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn fields_of_the_host_and_of_connections_are_dropped_in_any_dress() {
        let names = ["x-tovuk-caller", "x_tovuk_caller", "x-tovuk_event", "connection", "transfer-encoding", "x-tovukx", "x-other"];
        let all: HeaderMap = names.into_iter().map(|name| (HeaderName::from_static(name), HeaderValue::from_static("1"))).collect();
        let (mut request, mut response) = (all.clone(), all);
        strip_host_fields(&mut request);
        clean_response(&mut response);
        let left = |headers: &HeaderMap| headers.keys().map(|name| name.as_str().to_owned()).collect::<std::collections::BTreeSet<_>>();
        assert_eq!(left(&request), ["connection", "transfer-encoding", "x-tovukx", "x-other"].map(str::to_owned).into());
        assert_eq!(left(&response), ["x-tovukx", "x-other"].map(str::to_owned).into());
    }
}
