//! What the allowlist takes, refuses and lets pass, as tables.
#![allow(clippy::unwrap_used, clippy::expect_used)]
use super::Scheme::{Http, Https};
use super::*;

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap()
}

#[test]
fn a_pattern_has_one_spelling() {
    for (text, shown) in [
        ("https://api.stripe.com", "https://api.stripe.com"),
        ("HTTPS://API.Stripe.com:443", "https://api.stripe.com"),
        ("http://h:80", "http://h"),
        ("http://h:443", "http://h:443"),
        ("https://*.Example.com:8443", "https://*.example.com:8443"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("https://[::1]", "https://[::1]"),
        ("http://[2606:4700:0:0::1]:8080", "http://[2606:4700::1]:8080"),
        ("https://my_bucket.s3-eu.example", "https://my_bucket.s3-eu.example"),
    ] {
        assert_eq!(pattern(text).to_string(), shown);
        assert_eq!(pattern(shown), pattern(text));
    }
    assert_eq!(pattern("https://h"), pattern("https://h:443"));
    assert_ne!(pattern("https://h"), pattern("http://h"));
}

#[test]
fn what_is_no_pattern_is_refused_with_one_that_is() {
    for (text, problem, advice) in [
        ("api.stripe.com", "no scheme", "Write `https://api.stripe.com`"),
        ("localhost:8080/x", "no scheme", "Write `https://localhost:8080`"),
        ("wss://api.example.com", "neither `http` nor `https`", "Write an entry like `https://api.stripe.com`"),
        ("https://api.stripe.com/", "every path", "Write `https://api.stripe.com`"),
        ("http://h:81/v1", "every path", "Write `http://h:81`"),
        ("https://h?x=1", "every path", "Write `https://h`"),
        ("https://h#x", "every path", "Write `https://h`"),
        (r"https://h\@evil", "every path", "Write `https://h`"),
        ("https://me:secret@h:81", "user name", "Write `https://h:81`"),
        ("https://", "no host", "like `https://api.stripe.com`"),
        ("https://:443", "no host", "like"),
        ("https://h.", "ends in a dot", "Write `https://h`"),
        ("https://a..b", "not a valid name", "like"),
        ("https://-a.b", "not a valid name", "like"),
        ("https://münchen.example", "`xn--`", "like"),
        ("https://a b", "not a valid name", "like"),
        ("https://::1", "brackets", "Write `https://[::1]`"),
        ("https://[::1", "brackets", "like"),
        ("https://[::1]443", "brackets", "like"),
        ("https://[fe80::1%eth0]", "brackets", "like"),
        ("https://127.1", "four decimal numbers", "like"),
        ("https://2130706433", "four decimal numbers", "like"),
        ("https://0x7f000001", "four decimal numbers", "like"),
        ("https://256.0.0.1", "four decimal numbers", "like"),
        ("https://*.0.0.1", "four decimal numbers", "like"),
        ("https://*", "first label", "like"),
        ("https://a.*.b", "first label", "like"),
        ("https://*.*.b", "first label", "like"),
        ("https://api-*.b", "first label", "like"),
        ("https://h:0", "1 to 65535", "like"),
        ("https://h:65536", "1 to 65535", "like"),
        ("https://h:+1", "1 to 65535", "like"),
        ("https://h:*", "1 to 65535", "like"),
        ("https://h:", "1 to 65535", "like"),
    ] {
        let error = text.parse::<Pattern>().expect_err(text).to_string();
        assert!(error.contains(problem) && error.contains(advice), "{text}: {error}");
    }
    for example in EXAMPLES {
        assert_eq!(pattern(example).to_string(), example);
    }
}

#[test]
fn scheme_host_and_port_must_all_match() {
    let list = Allowlist::from(vec![pattern("https://api.example.com"), pattern("http://api.example.com:8080")]);
    assert!(list.allows(Https, "api.example.com", 443));
    assert!(list.allows(Https, "API.Example.COM", 443));
    assert!(list.allows(Http, "api.example.com", 8080));
    assert!(!list.allows(Http, "api.example.com", 80));
    assert!(!list.allows(Https, "api.example.com", 8080));
    for host in ["example.com", "x.api.example.com", "api.example.com.", "api.example.com.evil", "evilapi.example.com", ""] {
        assert!(!list.allows(Https, host, 443), "{host}");
    }
    assert!(!Allowlist::default().allows(Https, "api.example.com", 443));
}

#[test]
fn a_star_stands_for_exactly_one_label() {
    let list: Allowlist = [pattern("https://*.example.com")].into_iter().collect();
    assert!(list.allows(Https, "a.example.com", 443));
    assert!(list.allows(Https, "A-1.EXAMPLE.com", 443));
    for host in ["example.com", ".example.com", "a.b.example.com", "aexample.com", "a%2eb.example.com", "é.example.com", "a.example.com."] {
        assert!(!list.allows(Https, host, 443), "{host}");
    }
}

#[test]
fn addresses_match_by_value_and_never_a_name() {
    let list: Allowlist = ["http://[::1]", "http://10.0.0.5"].map(pattern).into_iter().collect();
    assert!(list.allows(Http, "[0:0:0:0:0:0:0:1]", 80));
    assert!(list.allows(Http, "10.0.0.5", 80));
    for host in ["::1", "[::2]", "10.0.0.05", "10.0.5", "[::ffff:10.0.0.5]"] {
        assert!(!list.allows(Http, host, 80), "{host}");
    }
}

#[test]
fn the_entry_for_a_target_allows_it() {
    for (host, port, shown) in [("API.example.com", 443, "https://api.example.com"), ("[::1]", 8443, "https://[::1]:8443")] {
        let pattern = Pattern::exact(Https, host, port).unwrap();
        assert_eq!(pattern.to_string(), shown);
        assert!(pattern.allows(Https, host, port));
    }
    assert_eq!(Pattern::exact(Https, "a%20b", 443), None);
    assert_eq!(Pattern::exact(Https, "*.example.com", 443), None);
}

#[test]
fn it_is_text_where_it_is_written_down() {
    let json = serde_json::to_string(&pattern("https://h:443")).unwrap();
    assert_eq!(json, r#""https://h""#);
    assert_eq!(serde_json::from_str::<Pattern>(&json).unwrap(), pattern("https://h"));
    let error = serde_json::from_str::<Pattern>(r#""h""#).unwrap_err().to_string();
    assert!(error.contains("Write `https://h`"), "{error}");
    let schema = schemars::schema_for!(Vec<Pattern>);
    assert!(schema.as_value().to_string().contains("OutboundPattern"));
}
