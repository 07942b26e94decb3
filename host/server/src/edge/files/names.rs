//! What the names of files say: which file a path means, of which type it is, and how long it may be kept.

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

use crate::assets::{Stat, Tree};

/// A name that changes with the content: whoever has the file need not ask again for a year.
pub(super) const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Kept, and asked about before each use, so that a deploy shows at once.
pub(super) const REVALIDATE: &str = "no-cache";

/// Folders in which frameworks keep nothing but files whose names change with their content.
const IMMUTABLE_FOLDERS: [&str; 4] = ["_app/immutable/", "_astro/", "_next/static/", "_nuxt/"];
/// Where Vite puts what it has named `name-` and eight characters of a digest in base64url, and the types for which such a name is believed.
const VITE_FOLDER: &str = "assets/";
const VITE_TYPES: [&str; 6] = ["js", "mjs", "css", "wasm", "woff", "woff2"];
const VITE_DIGEST_CHARS: usize = 8;
/// The shortest digest in hexadecimal that a name is believed to have.
const HEX_DIGEST_CHARS_MIN: usize = 8;
/// What a page's name ends in, and may be left out of its URL.
const PAGE_ENDING: &str = ".html";
const INDEX: &str = "index.html";

/// What a path may have unescaped in a `Location`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b'@').remove(b'+').remove(b',');

/// A request's path as a path of files: relative, decoded, without empty names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SitePath {
    path: String,
    /// It ended in a slash.
    is_folder: bool,
}

impl SitePath {
    /// None for what can be no file: names that would climb, that hold separators, or that are not UTF-8.
    pub fn parse(path: &str) -> Option<Self> {
        let mut names = String::with_capacity(path.len());
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let name = percent_encoding::percent_decode_str(segment).decode_utf8().ok()?;
            if name == "." || name == ".." || name.contains(|character: char| matches!(character, '/' | '\\') || character.is_control()) {
                return None;
            }
            if !names.is_empty() {
                names.push('/');
            }
            names.push_str(&name);
        }
        Some(Self { is_folder: names.is_empty() || path.ends_with('/'), path: names })
    }

    /// Where the path leads as a folder, with the query. It begins with one slash, so it stays on this host.
    pub fn folder_url(&self, query: Option<&str>) -> HeaderValue {
        let mut url = format!("/{}/", percent_encoding::utf8_percent_encode(&self.path, ESCAPED));
        if let Some(query) = query {
            url.push('?');
            url.push_str(query);
        }
        HeaderValue::from_str(&url).unwrap_or(HeaderValue::from_static("/"))
    }
}

/// What a path means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    File(String, Stat),
    /// A folder with a page, which has to be asked for with a slash at its end.
    Folder,
    Nothing,
}

/// The file itself; the page of the folder; the page whose ending was left out; for a route of the application, its page.
pub(super) fn resolve(tree: &impl Tree, asked: &SitePath) -> Found {
    let file = |path: String| tree.file(&path).map(|stat| Found::File(path, stat));
    let path = asked.path.as_str();
    if !asked.is_folder
        && let Some(found) = file(path.to_owned())
    {
        return found;
    }
    let index = if path.is_empty() { INDEX.to_owned() } else { [path, "/", INDEX].concat() };
    if let Some(found) = file(index) {
        return if asked.is_folder { found } else { Found::Folder };
    }
    if !asked.is_folder
        && let Some(found) = file([path, PAGE_ENDING].concat())
    {
        return found;
    }
    // A name with an ending is meant as a file; a page instead of a script that is missing would hide the mistake.
    let is_route = asked.is_folder || !path.rsplit('/').next().unwrap_or_default().contains('.');
    if is_route
        && !path.is_empty()
        && let Some(found) = file(INDEX.to_owned())
    {
        return found;
    }
    Found::Nothing
}

/// The type of a file by the ending of its name. Text is UTF-8.
pub(super) fn content_type(path: &str) -> HeaderValue {
    let Some(kind) = mime_guess::from_path(path).first_raw() else { return HeaderValue::from_static("application/octet-stream") };
    let is_text = kind.starts_with("text/") || kind.ends_with("+xml") || kind.ends_with("/xml") || kind.ends_with("javascript");
    if !is_text {
        return HeaderValue::from_static(kind);
    }
    match kind {
        kind if kind.ends_with("javascript") => HeaderValue::from_static("text/javascript; charset=utf-8"),
        "text/html" => HeaderValue::from_static("text/html; charset=utf-8"),
        "text/css" => HeaderValue::from_static("text/css; charset=utf-8"),
        kind => HeaderValue::from_str(&format!("{kind}; charset=utf-8")).unwrap_or(HeaderValue::from_static(kind)),
    }
}

/// How long a file may be kept. In an author's folder a file of any name may change.
pub(super) fn cache_control(path: &str, deployed: bool) -> &'static str {
    if deployed && is_named_by_content(path) { IMMUTABLE } else { REVALIDATE }
}

/// Whether a file's name has a digest of its content. Where that is uncertain it has none: asking once more costs little, and a file that is kept
/// for a year though it has changed cannot be called back.
fn is_named_by_content(path: &str) -> bool {
    let Some((stem, ending)) = path.rsplit('/').next().unwrap_or_default().rsplit_once('.') else { return false };
    if ending == "html" {
        return false;
    }
    if IMMUTABLE_FOLDERS.iter().any(|folder| path.starts_with(folder)) || stem.split(['.', '-', '_']).skip(1).any(is_hex_digest) {
        return true;
    }
    path.starts_with(VITE_FOLDER) && VITE_TYPES.contains(&ending) && has_vite_digest(stem)
}

/// Digits alone are a date or a number, and letters alone a word.
fn is_hex_digest(part: &str) -> bool {
    part.len() >= HEX_DIGEST_CHARS_MIN
        && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && part.bytes().any(|byte| byte.is_ascii_digit())
        && part.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn has_vite_digest(stem: &str) -> bool {
    let Some((name, digest)) = stem.len().checked_sub(VITE_DIGEST_CHARS).and_then(|at| stem.split_at_checked(at)) else { return false };
    let has = |is: fn(&u8) -> bool| digest.as_bytes().iter().any(is);
    name.len() > 1
        && name.ends_with('-')
        && digest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files(&'static [&'static str]);

    impl Tree for Files {
        fn file(&self, path: &str) -> Option<Stat> {
            self.0.contains(&path).then_some(Stat { bytes: 1, modified: None, sha256: None })
        }
    }

    fn found(files: &'static [&'static str], path: &str) -> String {
        match SitePath::parse(path).map(|path| resolve(&Files(files), &path)) {
            Some(Found::File(path, _)) => path,
            Some(Found::Folder) => "redirect".to_owned(),
            Some(Found::Nothing) => "nothing".to_owned(),
            None => "no path".to_owned(),
        }
    }

    #[test]
    fn a_path_means_a_file_a_folders_page_a_page_without_its_ending_or_the_application() {
        const SITE: &[&str] = &["index.html", "app.js", "about.html", "docs/index.html", "docs/a b.html", "v1.0/index.html", "notes"];
        for (path, expected) in [
            ("/", "index.html"),
            ("//", "index.html"),
            ("/app.js", "app.js"),
            ("/app%2Ejs", "app.js"),
            ("/notes", "notes"),
            ("/notes/", "index.html"),
            ("/about", "about.html"),
            ("/about/", "index.html"),
            ("/about.html", "about.html"),
            ("/docs", "redirect"),
            ("/docs/", "docs/index.html"),
            ("//docs//", "docs/index.html"),
            ("/docs/a%20b", "docs/a b.html"),
            ("/v1.0", "redirect"),
            ("/orders/17", "index.html"),
            ("/orders/17/", "index.html"),
            ("/app.css", "nothing"),
            ("/docs/missing.png", "nothing"),
            ("/../app.js", "no path"),
            ("/docs/%2e%2e/app.js", "no path"),
            ("/docs%2findex.html", "no path"),
            ("/a%00", "no path"),
            ("/a%5cb", "no path"),
            ("/%ff", "no path"),
        ] {
            assert_eq!(found(SITE, path), expected, "{path}");
        }
        assert_eq!(found(&["app.js"], "/"), "nothing");
        assert_eq!(found(&["app.js"], "/orders"), "nothing");
    }

    #[test]
    fn a_redirect_stays_on_its_host_and_keeps_the_query() {
        let url = |path: &str, query: Option<&str>| SitePath::parse(path).unwrap().folder_url(query).to_str().unwrap().to_owned();
        assert_eq!(url("/docs", Some("a=1&b=%20")), "/docs/?a=1&b=%20");
        assert_eq!(url("//evil.example", None), "/evil.example/");
        assert_eq!(url("/a%20b%3Fc%23", None), "/a%20b%3Fc%23/");
        assert_eq!(url("/ä", None), "/%C3%A4/");
    }

    #[test]
    fn types_have_their_charset_where_they_are_text() {
        for (path, expected) in [
            ("index.html", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("app.mjs", "text/javascript; charset=utf-8"),
            ("app.css", "text/css; charset=utf-8"),
            ("a.svg", "image/svg+xml; charset=utf-8"),
            ("a.xml", "text/xml; charset=utf-8"),
            ("robots.txt", "text/plain; charset=utf-8"),
            ("a.json", "application/json"),
            ("a.png", "image/png"),
            ("a.wasm", "application/wasm"),
            ("a.woff2", "font/woff2"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(content_type(path), expected, "{path}");
        }
    }

    #[test]
    fn only_a_name_that_has_a_digest_is_kept_without_asking() {
        for path in ["app.3f9a1c2b.js", "main.3f9a1c2b.chunk.js", "a/logo-0123456789abcdef.png", "assets/index-DiwrgTda1.js", "_astro/x.css"] {
            let expected = if path == "assets/index-DiwrgTda1.js" { REVALIDATE } else { IMMUTABLE };
            assert_eq!(cache_control(path, true), expected, "{path}");
            assert_eq!(cache_control(path, false), REVALIDATE, "{path}");
        }
        assert_eq!(cache_control("assets/index-B1oWnCq_.js", true), IMMUTABLE);
        for path in [
            "index.html",
            "app.3f9a1c2b.html",
            "app.js",
            "report-20240131.pdf",
            "cafe-deadbeef.jpg",
            "3f9a1c2b.js",
            "app.3f9a1c2.js",
            "Track-Chapter1.mp3",
            "assets/Track-Chapter1.mp3",
            "assets/-B1oWnCq_.js",
            "LICENSE-3f9a1c2b",
        ] {
            assert_eq!(cache_control(path, true), REVALIDATE, "{path}");
        }
    }
}
