//! Paths as a project file writes them: relative, with `/`. Only their text is looked at; whether something lies there is for the command line.

/// Why a path is refused, or nothing. `root` is the folder that the path is relative to, itself relative to the project's.
pub(crate) fn refuse(root: &str, path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("must not be empty");
    }
    if path.contains('\\') {
        return Some("must be written with `/`, not `\\`");
    }
    if path.contains('\0') {
        return Some("must not contain a NUL character");
    }
    // A drive letter makes a path absolute on one system and not on another, so it is refused on all.
    let drive = path.as_bytes().get(1) == Some(&b':');
    if path.starts_with('/') || drive {
        return Some("must be relative, not absolute");
    }
    leaves(root, path).then_some("leaves the project's folder")
}

/// Whether following `path` from `root` ever goes above the project's folder.
fn leaves(root: &str, path: &str) -> bool {
    let mut depth = 0_i64;
    let parts = root.split('/').chain(path.split('/'));
    parts.into_iter().any(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

/// Whether a path is non-empty, relative and free of empty parts, `.`, `..` and backslashes.
pub(crate) fn is_safe_relative(path: &str) -> bool {
    !path.contains(['\\', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_leave_its_service_but_not_the_project() {
        assert_eq!(refuse("api", "../web/dist"), None);
        assert_eq!(refuse(".", "migrations"), None);
        for (root, path) in [("api", "../../x"), (".", ".."), ("api", "/etc"), ("api", "C:/x"), ("api", "a\\b"), ("api", ""), ("../api", "x")] {
            assert!(refuse(root, path).is_some(), "{root} {path}");
        }
    }

    #[test]
    fn safe_relative_paths_have_plain_parts_only() {
        assert!(is_safe_relative("api") && is_safe_relative("web/app"));
        for path in ["", ".", "..", "a/..", "/a", "a//b", "a/", "a\\b"] {
            assert!(!is_safe_relative(path), "{path}");
        }
    }
}
