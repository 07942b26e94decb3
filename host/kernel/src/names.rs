//! Names that people choose: of resources, services, slugs, handles and environment variables. One function says for each what is allowed and
//! why a name is not. It gives out no ids and looks nothing up: whether a name is free is the business of the store that keeps it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Longest name of a resource, in characters (all of them ASCII).
pub const RESOURCE_NAME_CHARS_MAX: usize = 64;
/// Longest name of a service, in characters. A slug can be longer by its suffix and still is a DNS label (63).
pub const SERVICE_NAME_CHARS_MAX: usize = 48;
/// Longest slug or handle, in characters: a DNS label.
pub const SLUG_CHARS_MAX: usize = 63;
/// Longest name of an environment variable, in characters.
pub const VARIABLE_NAME_CHARS_MAX: usize = 128;
/// What the names of the host's own environment variables begin with. Nobody else may set such a one.
pub const HOST_VARIABLE_PREFIX: &str = "TOVUK_";

/// Words that stand where a name could stand in a route (`/sqlite/databases`, `/kv/namespaces`) or that a path swallows.
const RESERVED_NAMES: [&str; 4] = ["databases", "namespaces", ".", ".."];
/// Slugs whose host names are the host's own.
const RESERVED_SLUGS: [&str; 4] = ["api", "www", "storage", "cname"];
/// Handles that are pages of the dashboard.
const RESERVED_HANDLES: [&str; 4] = ["account", "v1", "docs", "login"];
/// What ids begin with. An id and a name are accepted in the same places, so a name must never read as an id.
const ID_PREFIXES: [&str; 13] =
    ["account", "service", "deploy", "job", "sqlite", "sqlite_backup", "kv", "queue", "cron", "state_namespace", "binding", "ticket", "abuse"];

/// Why a name is refused. The text names the name, says what is wrong with it and what would do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("{what} must not be empty")]
    Empty {
        /// Which sort of name, for example `the name of a resource`.
        what: &'static str,
    },
    /// It is longer than allowed.
    #[error("`{name}` has {chars} characters; {what} may have {chars_max}")]
    TooLong {
        /// The name.
        name: String,
        /// Which sort of name.
        what: &'static str,
        /// Its length in characters.
        chars: usize,
        /// The most it may have.
        chars_max: usize,
    },
    /// It has a character that is not allowed, or not there.
    #[error("`{name}` cannot be used: {what} {rule}")]
    Malformed {
        /// The name.
        name: String,
        /// Which sort of name.
        what: &'static str,
        /// What is allowed, in words.
        rule: &'static str,
    },
    /// It reads as an id.
    #[error("`{name}` cannot be used as a name because it looks like an id; ids and names are accepted in the same places")]
    LooksLikeId {
        /// The name.
        name: String,
    },
    /// The host keeps it for itself.
    #[error("`{name}` is reserved and cannot be {what}")]
    Reserved {
        /// The name.
        name: String,
        /// Which sort of name.
        what: &'static str,
    },
}

const RESOURCE: &str = "the name of a resource";
const SERVICE: &str = "the name of a service";
const SLUG: &str = "a slug";
const HANDLE: &str = "a handle";
const VARIABLE: &str = "the name of an environment variable";

const LABEL_RULE: &str = "must consist of lower-case letters, digits and `-`, and begin and end with a letter or digit";

/// Checks the name of a SQLite database, KV namespace, queue, cron trigger, State class or service binding: letters, digits, `_` and `-`, 1 to 64,
/// starting with a letter.
pub fn check_resource_name(name: &str) -> Result<(), NameError> {
    check_common(name, RESOURCE, RESOURCE_NAME_CHARS_MAX)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(allowed) {
        let rule = "must start with a letter and consist of letters, digits, `_` and `-`";
        return Err(NameError::Malformed { name: name.to_owned(), what: RESOURCE, rule });
    }
    Ok(())
}

/// Checks the name of a service: `a-z`, `0-9` and `-`, 1 to 48, the first and the last a letter or digit.
pub fn check_service_name(name: &str) -> Result<(), NameError> {
    check_common(name, SERVICE, SERVICE_NAME_CHARS_MAX)?;
    check_label(name, SERVICE)
}

/// Checks a slug, the part of a public host name that stands for a service: as a service's name, 1 to 63, and not a host name of the host's own.
pub fn check_slug(slug: &str) -> Result<(), NameError> {
    check_common(slug, SLUG, SLUG_CHARS_MAX)?;
    check_label(slug, SLUG)?;
    check_reserved(slug, SLUG, &RESERVED_SLUGS)
}

/// Checks the handle of an account: as a slug, but reserved are the pages of the dashboard.
pub fn check_handle(handle: &str) -> Result<(), NameError> {
    check_common(handle, HANDLE, SLUG_CHARS_MAX)?;
    check_label(handle, HANDLE)?;
    check_reserved(handle, HANDLE, &RESERVED_HANDLES)
}

/// Checks the name of an environment variable that an author chooses, for a secret or for the URL of a binding: letters, digits and `_`, not starting
/// with a digit nor with `TOVUK_`.
pub fn check_variable_name(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what: VARIABLE });
    }
    check_length(name, VARIABLE, VARIABLE_NAME_CHARS_MAX)?;
    if name.starts_with(HOST_VARIABLE_PREFIX) {
        let rule = "must not begin with `TOVUK_`, because those are set by the host";
        return Err(NameError::Malformed { name: name.to_owned(), what: VARIABLE, rule });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(allowed) {
        let rule = "must consist of letters, digits and `_` and not begin with a digit";
        return Err(NameError::Malformed { name: name.to_owned(), what: VARIABLE, rule });
    }
    Ok(())
}

/// The part of an environment variable's name that stands for a resource: `failed-jobs` gives `FAILED_JOBS`, as in `TOVUK_QUEUE_FAILED_JOBS`.
pub fn env_suffix(name: &str) -> String {
    name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect()
}

/// Pairs of names, among the given ones of one kind, that would share an environment variable. The earlier name comes first in each pair.
pub fn env_suffix_clashes<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<(&'a str, &'a str)> {
    let mut seen = BTreeMap::new();
    let mut clashes = Vec::new();
    for name in names {
        match seen.entry(env_suffix(name)) {
            Entry::Occupied(first) => clashes.push((*first.get(), name)),
            Entry::Vacant(place) => {
                place.insert(name);
            }
        }
    }
    clashes
}

/// Whether a text reads as an id that the host gives out: a known prefix, `_`, and a number or at least 16 hexadecimal digits.
pub fn looks_like_id(text: &str) -> bool {
    let Some((prefix, number)) = text.rsplit_once('_') else { return false };
    let hexadecimal = number.len() >= 16 && number.chars().all(|c| c.is_ascii_hexdigit());
    let decimal = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
    (decimal || hexadecimal) && ID_PREFIXES.contains(&prefix)
}

/// The slug of a new service: its name, or the name with the first free suffix `-2`, `-3` and so on where the name is reserved or `is_taken`.
pub fn allocate_slug(service_name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let is_free = |slug: &str| check_slug(slug).is_ok() && !is_taken(slug);
    if is_free(service_name) {
        return service_name.to_owned();
    }
    let mut number = 2_u64;
    loop {
        let slug = format!("{service_name}-{number}");
        if !is_taken(&slug) {
            return slug;
        }
        number += 1;
    }
}

/// The candidate nearest to a mistyped word, or `None` when none is near enough to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let (similarity, candidate) = candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_ascii_lowercase()), candidate))
        .max_by(|a, b| a.0.total_cmp(&b.0))?;
    // 0.8 accepts a wrong, missing or swapped letter in words of four letters and more, and refuses words that share no more than a beginning.
    (similarity >= 0.8).then_some(candidate)
}

fn check_common(name: &str, what: &'static str, chars_max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { what });
    }
    check_length(name, what, chars_max)?;
    if looks_like_id(name) {
        return Err(NameError::LooksLikeId { name: name.to_owned() });
    }
    check_reserved(name, what, &RESERVED_NAMES)
}

fn check_length(name: &str, what: &'static str, chars_max: usize) -> Result<(), NameError> {
    let chars = name.chars().count();
    if chars > chars_max {
        return Err(NameError::TooLong { name: name.to_owned(), what, chars, chars_max });
    }
    Ok(())
}

fn check_label(name: &str, what: &'static str) -> Result<(), NameError> {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let inside = name.chars().all(|c| alphanumeric(c) || c == '-');
    if !inside || !name.starts_with(alphanumeric) || !name.ends_with(alphanumeric) {
        return Err(NameError::Malformed { name: name.to_owned(), what, rule: LABEL_RULE });
    }
    Ok(())
}

fn check_reserved(name: &str, what: &'static str, reserved: &[&str]) -> Result<(), NameError> {
    if reserved.contains(&name) {
        return Err(NameError::Reserved { name: name.to_owned(), what });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resource_names_start_with_a_letter_and_have_at_most_64_characters() {
        for good in ["A", "CACHE", "failed_jobs", "a-1", "Room", &"x".repeat(64)] {
            assert_eq!(check_resource_name(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", "_a", "-a", "a b", "a.b", "ä", "databases", "namespaces", ".", "..", "kv_1", &"x".repeat(65)] {
            assert!(check_resource_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn service_names_are_labels_of_at_most_48_characters() {
        for good in ["a", "0", "auth-service", "api", &"x".repeat(48)] {
            assert_eq!(check_service_name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "service_1", "databases", &"x".repeat(49)] {
            assert!(check_service_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slugs_and_handles_have_reserved_words_of_their_own() {
        assert!(check_slug("api").is_err() && check_handle("api").is_ok());
        assert!(check_handle("docs").is_err() && check_slug("docs").is_ok());
    }

    #[test]
    fn variables_of_the_host_cannot_be_set_by_others() {
        let error = check_variable_name("TOVUK_TOKEN").unwrap_err().to_string();
        assert!(error.contains("TOVUK_TOKEN") && error.contains("set by the host"), "{error}");
        for bad in ["", "1A", "A-B", "A B", "A=B"] {
            assert!(check_variable_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_variable_name("STRIPE_KEY"), Ok(()));
    }

    #[test]
    fn ids_are_told_from_names() {
        for id in ["service_1", "sqlite_backup_12", "service_0123456789abcdef", "state_namespace_3", "ticket_0123456789abcdef0123"] {
            assert!(looks_like_id(id), "{id}");
        }
        for name in ["service", "service_", "auth_1", "kv_cache", "service_abc", "v_1"] {
            assert!(!looks_like_id(name), "{name}");
        }
    }

    #[test]
    fn names_with_one_suffix_clash() {
        assert_eq!(env_suffix("failed-jobs"), "FAILED_JOBS");
        assert_eq!(env_suffix_clashes(["a-b", "c", "A_B", "a_b"]), [("a-b", "A_B"), ("a-b", "a_b")]);
    }

    #[test]
    fn a_taken_or_reserved_slug_gets_a_suffix() {
        assert_eq!(allocate_slug("shop", |_| false), "shop");
        assert_eq!(allocate_slug("shop", |slug| slug == "shop" || slug == "shop-2"), "shop-3");
        assert_eq!(allocate_slug("api", |_| false), "api-2");
    }

    #[test]
    fn the_nearest_word_is_found_only_when_it_is_near() {
        assert_eq!(nearest("component", ["build", "component"]), Some("component"));
        assert_eq!(nearest("bulid", ["build", "bindings"]), Some("build"));
        assert_eq!(nearest("memory", ["cpu_ms", "memory_mb"]), Some("memory_mb"));
        assert_eq!(nearest("xyz", ["build", "bindings"]), None);
    }

    proptest! {
        #[test]
        fn every_accepted_resource_name_gives_a_valid_variable(name in "[a-zA-Z0-9_.-]{0,70}") {
            if check_resource_name(&name).is_ok() {
                let variable = format!("KV_{}", env_suffix(&name));
                prop_assert_eq!(check_variable_name(&variable), Ok(()));
            }
        }

        #[test]
        fn every_accepted_service_name_gives_a_valid_slug(name in "[a-z0-9-]{1,48}", taken in 0_usize..4) {
            prop_assume!(check_service_name(&name).is_ok());
            let held: Vec<String> = std::iter::once(name.clone()).chain((2..).map(|n| format!("{name}-{n}"))).take(taken).collect();
            let slug = allocate_slug(&name, |slug| held.iter().any(|other| other == slug));
            prop_assert!(check_slug(&slug).is_ok());
            prop_assert!(!held.contains(&slug));
        }

        #[test]
        fn no_name_makes_the_checks_panic(name in ".*") {
            let _ = (check_resource_name(&name), check_service_name(&name), check_slug(&name), check_handle(&name), check_variable_name(&name));
        }
    }
}
