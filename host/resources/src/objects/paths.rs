//! Which paths and content types an object can have. Bytes never lie under a tenant's path, so no path can lead anywhere; these rules keep paths
//! from meaning something else to whoever sees them in a URL or saves them as a file.

use percent_encoding::percent_decode;
use tovuk_kernel::limits;

use super::Error;

/// No software on the way decodes a path this often. One that still changes was made to confuse.
const DECODING_ROUNDS_MAX: u32 = 8;

/// The content type of an object for which none was given.
const CONTENT_TYPE_DEFAULT: &str = "application/octet-stream";

/// Checks that a text can be the path of an object, in every spelling that software on the way may decode it to.
pub fn check_path(path: &str) -> Result<(), Error> {
    if path.is_empty() {
        return Err(Error::Path("is empty"));
    }
    if path.len() > limits::OBJECT_PATH_BYTES_MAX {
        return Err(Error::Path("is longer than 1,024 bytes"));
    }
    let mut bytes = path.as_bytes().to_vec();
    for _ in 0..DECODING_ROUNDS_MAX {
        check_bytes(&bytes)?;
        let decoded: Vec<u8> = percent_decode(&bytes).collect();
        if decoded.len() == bytes.len() {
            return Ok(());
        }
        bytes = decoded;
    }
    Err(Error::Path("is encoded over and over"))
}

fn check_bytes(bytes: &[u8]) -> Result<(), Error> {
    if bytes.iter().any(u8::is_ascii_control) {
        return Err(Error::Path("has a control character"));
    }
    for segment in bytes.split(|byte| matches!(byte, b'/' | b'\\')) {
        // Some software drops what stands after a semicolon, and blanks at the end.
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        match name {
            b"" => return Err(Error::Path("is absolute, ends with a slash, or has an empty segment")),
            b"." | b".." => return Err(Error::Path("has a `.` or `..` segment")),
            _ => {}
        }
    }
    Ok(())
}

/// The content type to store, for one that was given. Parameters are kept.
pub fn content_type(given: &str) -> Result<String, Error> {
    let given = given.trim();
    if given.is_empty() {
        return Ok(CONTENT_TYPE_DEFAULT.to_owned());
    }
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let names_type = essence(given).split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if !names_type || given.len() > limits::OBJECT_CONTENT_TYPE_BYTES_MAX || !given.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Error::Request("the content type must look like `image/png`, with at most 255 ASCII characters".to_owned()));
    }
    Ok(given.to_owned())
}

/// A content type without its parameters, in lower case.
pub(super) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_that_mean_something_else_are_refused_in_every_spelling() {
        for path in [
            "",
            "/etc/passwd",
            "//a",
            "a//b",
            "a/",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/..",
            "a/./b",
            "..\\a",
            "a\\..\\b",
            "\\\\host\\share",
            "%2e%2e/a",
            "a/%2e%2e/b",
            "a%2f..%2fb",
            "a%5c..%5cb",
            "%252e%252e%252fa",
            "%2fetc/passwd",
            "a%2f%2fb",
            "a/..;x/b",
            "a/.. /b",
            "nul\0",
            "nul%00.png",
            "a%2500b",
            "line\nbreak",
            "a%0d%0aset-cookie:x",
            "\u{7f}",
        ] {
            assert!(matches!(check_path(path), Err(Error::Path(_))), "{path:?}");
        }
        assert!(check_path(&"a".repeat(1_025)).is_err());
        assert!(check_path(&"a/".repeat(2_048)).is_err());
        let deep = (0..9).fold("..".to_owned(), |text, _| text.replace('%', "%25").replace('.', "%2e"));
        assert!(check_path(&deep).is_err(), "{deep}");
    }

    #[test]
    fn ordinary_paths_are_accepted() {
        for path in ["a", "uploads/logo.png", "...", "a..b", ".hidden/x", "100%", "50%/x", "a b", "a;b", "日本/語.txt", "a\\b", "%41", "C:/x"] {
            assert!(check_path(path).is_ok(), "{path:?}");
        }
        assert!(check_path(&"é".repeat(512)).is_ok());
    }

    proptest! {
        /// Whatever is accepted stays below a folder that it is joined to, decoded as often as one likes.
        #[test]
        fn what_is_accepted_never_leaves_a_folder(path in "([a-c.%/\\\\;]|%2e|%2F|%5c|%25|\\.\\.|é|\\x00){1,24}") {
            if check_path(&path).is_ok() {
                let mut text = path;
                for _ in 0..12 {
                    let mut depth = 0_i64;
                    for segment in text.split(['/', '\\']) {
                        prop_assert!(!segment.is_empty() && segment != "." && segment != "..", "{text}");
                        depth += 1;
                    }
                    prop_assert!(depth > 0 && !text.contains('\0'));
                    text = String::from_utf8_lossy(&percent_decode(text.as_bytes()).collect::<Vec<u8>>()).into_owned();
                }
            }
        }
    }

    #[test]
    fn content_types_are_checked_and_kept() {
        assert_eq!(content_type("").unwrap(), "application/octet-stream");
        assert_eq!(content_type(" text/plain; charset=utf-8 ").unwrap(), "text/plain; charset=utf-8");
        for wrong in ["png", "/", "image/", "a b/c", "text/plain\r\nx: y", "text/plain; é"] {
            assert!(matches!(content_type(wrong), Err(Error::Request(_))), "{wrong:?}");
        }
        assert_eq!(essence("Text/HTML; charset=x"), "text/html");
    }
}
