//! What holds for any text.

use proptest::prelude::*;

use super::*;

/// Arbitrary values under keys that mean something, so that arbitrary files get past the first key.
fn arbitrary_toml() -> impl Strategy<Value = String> {
    let keys = "services|name|a|kind|root|routes|kv|sqlite|queues|crons|limits|cpu_ms|bindings|type|service|env|outbound|capabilities|\\PC{0,5}";
    let key = proptest::string::string_regex(keys).unwrap().prop_map(|key| Value::from(key).to_string()).boxed();
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<f64>().prop_map(|f| if f.is_finite() { format!("{f:?}") } else { "nan".to_owned() }),
        "[ -!#-\\[\\]-~]{0,9}".prop_map(|s| format!("\"{s}\"")),
        Just("1979-05-27T07:32:00Z".to_owned()),
    ];
    let value = leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|map| format!("{{ {} }}", map.iter().map(|(k, v)| format!("{k} = {v}")).collect::<Vec<_>>().join(", "))),
        ]
    });
    (prop_oneof![Just("services"), Just("services.a"), Just("name"), Just("services.a.bindings")], value)
        .prop_map(|(key, value)| format!("{key} = {value}\n"))
}

proptest! {
    #[test]
    fn no_text_makes_parsing_panic(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn every_problem_of_an_arbitrary_file_lies_in_its_text(text in arbitrary_toml()) {
        let problems = match parse(&text) {
            Ok(parsed) => parsed.warnings,
            Err(problems) => problems,
        };
        for problem in problems {
            let span = problem.span.expect("a problem of a text has a place");
            prop_assert!(text.get(span).is_some());
        }
    }
}
