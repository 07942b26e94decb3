//! Static files through a real socket: as a deploy has them, and as an author's folder has them.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE, VARY,
};
use http::{HeaderName, Method};
use http_body_util::Full;
use tovuk_server::assets::{AssetIndex, AssetStore, AssetStoreConfig, Assets};
use tovuk_tests::{Host, Reply};

use crate::{author_host, host};

/// More than is read at once.
const LARGE_BYTES: usize = 300_000;

struct Site {
    host: Host,
    parent: tempfile::TempDir,
}

fn large() -> Vec<u8> {
    (0..LARGE_BYTES).map(|at| (at % 251) as u8).collect()
}

fn write(folder: &Path, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The same files as a deploy, `deployed`, and as an author's folder, `live`.
async fn site(files: &[(&str, &[u8])]) -> Site {
    let (host, parent) = (host().await, tempfile::tempdir().unwrap());
    for name in ["deployed", "live"] {
        write(&parent.path().join(name), files);
    }
    let site = Site { host, parent };
    site.redeploy("deployed");
    site.host.deploy_files("live", Assets::live(site.parent.path().join("live")));
    site
}

impl Site {
    /// Deploys a folder as the service `deployed`.
    fn redeploy(&self, folder: &str) {
        let folder = self.parent.path().join(folder);
        AssetIndex::of(&folder).unwrap().save(&folder, &folder.with_extension("draft")).unwrap();
        self.host.deploy_files("deployed", AssetStore::new(AssetStoreConfig::default()).deployed(folder));
    }

    async fn ask(&self, service: &str, method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Reply {
        let mut request = self.host.request(service, path).method(method);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        self.host.client().whole(request.body(Full::<Bytes>::default()).unwrap()).await
    }

    async fn get(&self, service: &str, path: &str, headers: &[(HeaderName, &str)]) -> Reply {
        self.ask(service, Method::GET, path, headers).await
    }
}

fn header(reply: &Reply, name: HeaderName) -> &str {
    reply.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_file_says_what_it_is_and_the_client_that_has_it_gets_no_body() {
    let site = site(&[("index.html", b"<p>home"), ("app.3f9a1c2b.js", b"let a"), ("empty.txt", b"")]).await;
    for service in ["deployed", "live"] {
        let page = site.get(service, "/", &[]).await;
        assert_eq!((page.status.as_u16(), page.text()), (200, "<p>home"));
        assert_eq!(header(&page, CONTENT_TYPE), "text/html; charset=utf-8");
        assert_eq!((header(&page, CACHE_CONTROL), header(&page, ACCEPT_RANGES), header(&page, VARY)), ("no-cache", "bytes", ""));
        assert_eq!(header(&page, CONTENT_LENGTH), "7");
        let (tag, date) = (header(&page, ETAG), header(&page, LAST_MODIFIED));
        assert_eq!(tag.starts_with("W/"), service == "live", "{tag}");
        for condition in [(IF_NONE_MATCH, tag), (IF_MODIFIED_SINCE, date)] {
            let again = site.get(service, "/", &[condition]).await;
            assert_eq!((again.status.as_u16(), again.body.len(), header(&again, ETAG)), (304, 0, tag));
        }
        assert_eq!(site.get(service, "/", &[(IF_NONE_MATCH, "\"other\"")]).await.status, 200);

        let head = site.ask(service, Method::HEAD, "/", &[]).await;
        assert_eq!((head.status.as_u16(), head.body.len(), header(&head, CONTENT_LENGTH), header(&head, ETAG)), (200, 0, "7", tag));
        let empty = site.get(service, "/empty.txt", &[]).await;
        assert_eq!((empty.status.as_u16(), empty.body.len(), header(&empty, CONTENT_LENGTH)), (200, 0, "0"));
        assert_eq!(site.ask(service, Method::POST, "/", &[]).await.code(), "route_not_found");
    }
    let asset = async |service| header(&site.get(service, "/app.3f9a1c2b.js", &[]).await, CACHE_CONTROL).to_owned();
    assert_eq!(asset("deployed").await, "public, max-age=31536000, immutable");
    assert_eq!(asset("live").await, "no-cache");
}

#[tokio::test]
async fn routes_get_the_application_and_folders_their_page() {
    let site = site(&[("index.html", b"home"), ("about.html", b"about"), ("docs/index.html", b"docs"), ("api/x.txt", b"file")]).await;
    for service in ["deployed", "live"] {
        for (path, expected) in [
            ("/orders/17", "home"),
            ("/orders/17?page=2", "home"),
            ("/about", "about"),
            ("/docs/", "docs"),
            ("/docs/index.html", "docs"),
            // There is no worker: `/api` is a folder like any other.
            ("/api/x.txt", "file"),
            ("/api/hello", "home"),
        ] {
            let reply = site.get(service, path, &[]).await;
            assert_eq!((reply.status.as_u16(), reply.text()), (200, expected), "{service} {path}");
        }
        let redirect = site.get(service, "/docs?a=1", &[]).await;
        assert_eq!((redirect.status.as_u16(), header(&redirect, LOCATION)), (307, "/docs/?a=1"));
        for path in ["/app.js", "/docs/x.png", "/%2e%2e/deployed.index.json", "/..%2fdeployed.index.json", "/docs%2findex.html", "/a%00b"] {
            assert_eq!(site.get(service, path, &[]).await.code(), "route_not_found", "{service} {path}");
        }
    }
}

#[tokio::test]
async fn a_part_of_a_file_is_sent_on_its_own() {
    let large = large();
    let site = site(&[("film.bin", &large), ("small.txt", b"0123456789")]).await;
    for service in ["deployed", "live"] {
        for (path, content) in [("/film.bin", &large[..]), ("/small.txt", b"0123456789")] {
            let whole = site.get(service, path, &[]).await;
            assert_eq!((whole.status.as_u16(), &whole.body[..]), (200, content), "{service} {path}");
            let last = content.len() - 1;
            for (range, part) in [("bytes=2-5", &content[2..6]), ("bytes=-3", &content[last - 2..]), ("bytes=1-", &content[1..])] {
                let reply = site.get(service, path, &[(RANGE, range)]).await;
                assert_eq!((reply.status.as_u16(), &reply.body[..]), (206, part), "{service} {path} {range}");
                assert_eq!(header(&reply, CONTENT_LENGTH), part.len().to_string());
            }
            let reply = site.get(service, path, &[(RANGE, "bytes=2-5")]).await;
            assert_eq!(header(&reply, CONTENT_RANGE), format!("bytes 2-5/{}", content.len()));
            let outside = site.get(service, path, &[(RANGE, "bytes=300000-")]).await;
            assert_eq!((outside.status.as_u16(), outside.body.len()), (416, 0));
            assert_eq!(header(&outside, CONTENT_RANGE), format!("bytes */{}", content.len()));
            // A download goes on only with the version that it began with; an author's file has no tag that could promise that.
            let resumed = site.get(service, path, &[(RANGE, "bytes=2-5"), (IF_RANGE, header(&whole, ETAG))]).await;
            assert_eq!(resumed.status.as_u16(), if service == "deployed" { 206 } else { 200 });
            let changed = site.get(service, path, &[(RANGE, "bytes=2-5"), (IF_RANGE, "\"old\"")]).await;
            assert_eq!((changed.status.as_u16(), changed.body.len()), (200, content.len()));
        }
    }
}

#[tokio::test]
async fn what_a_build_compressed_stands_in_for_the_file() {
    let site = site(&[("app.js", b"plain"), ("app.js.br", b"brotli"), ("app.js.gz", b"gzip"), ("alone.css", b"css")]).await;
    for service in ["deployed", "live"] {
        let mut tags = Vec::new();
        for (accept, encoding, content) in [("", "", "plain"), ("gzip", "gzip", "gzip"), ("gzip, br", "br", "brotli"), ("br;q=0, zstd", "", "plain")]
        {
            let reply = site.get(service, "/app.js", &[(ACCEPT_ENCODING, accept)]).await;
            assert_eq!((header(&reply, CONTENT_ENCODING), reply.text()), (encoding, content), "{service} {accept}");
            assert_eq!((header(&reply, VARY), header(&reply, CONTENT_TYPE)), ("accept-encoding", "text/javascript; charset=utf-8"));
            tags.push(header(&reply, ETAG).to_owned());
            let again = site.get(service, "/app.js", &[(ACCEPT_ENCODING, accept), (IF_NONE_MATCH, header(&reply, ETAG))]).await;
            assert_eq!((again.status.as_u16(), header(&again, VARY)), (304, "accept-encoding"));
        }
        tags.dedup();
        assert_eq!(tags.len(), 4, "{tags:?}: one after another differ");
        let alone = site.get(service, "/alone.css", &[(ACCEPT_ENCODING, "br")]).await;
        assert_eq!((header(&alone, CONTENT_ENCODING), header(&alone, VARY), alone.text()), ("", "", "css"));
        let part = site.get(service, "/app.js", &[(ACCEPT_ENCODING, "br"), (RANGE, "bytes=0-2")]).await;
        assert_eq!((part.status.as_u16(), part.text(), header(&part, CONTENT_RANGE)), (206, "bro", "bytes 0-2/6"));
    }
}

#[tokio::test]
async fn an_author_sees_a_change_at_once_and_a_deploy_has_none() {
    let site = site(&[("index.html", b"first"), ("app.js", b"plain"), ("app.js.gz", b"gzip")]).await;
    for service in ["deployed", "live"] {
        assert_eq!(site.get(service, "/", &[]).await.text(), "first");
    }
    let first = site.get("live", "/", &[]).await;
    let live = site.parent.path().join("live");
    write(&live, &[("index.html", b"other")]);
    let later = fs::metadata(live.join("index.html")).unwrap().modified().unwrap() + std::time::Duration::from_secs(5);
    for name in ["index.html", "app.js"] {
        fs::File::options().write(true).open(live.join(name)).unwrap().set_modified(later).unwrap();
    }
    let second = site.get("live", "/", &[(IF_NONE_MATCH, header(&first, ETAG))]).await;
    assert_eq!((second.status.as_u16(), second.text()), (200, "other"));
    assert_eq!(site.get("live", "/app.js", &[(ACCEPT_ENCODING, "gzip")]).await.text(), "plain", "the compressed file is of an earlier build");
    fs::remove_dir_all(&live).unwrap();
    assert_eq!(site.get("live", "/", &[]).await.code(), "route_not_found");

    let old = site.get("deployed", "/", &[]).await;
    write(&site.parent.path().join("next"), &[("index.html", b"second")]);
    site.redeploy("next");
    let new = site.get("deployed", "/", &[(IF_NONE_MATCH, header(&old, ETAG))]).await;
    assert_eq!((new.status.as_u16(), new.text()), (200, "second"));
    assert_eq!(site.get("deployed", "/app.js", &[]).await.code(), "route_not_found");
}

#[tokio::test]
async fn nothing_outside_the_folder_and_nothing_withheld_is_served() {
    let site = site(&[("index.html", b"home"), (".env", b"KEY=1"), ("tovuk.toml", b"x"), ("in/side.txt", b"inside")]).await;
    let live = site.parent.path().join("live");
    fs::write(site.parent.path().join("secret.txt"), "secret").unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, live.join(name)).unwrap();
    link("../secret.txt", "up.txt");
    link("/etc/passwd", "passwd.txt");
    link("..", "parent");
    link("in", "through");
    link("loop.txt", "loop.txt");
    rustix::fs::mkfifoat(rustix::fs::CWD, live.join("pipe.txt"), rustix::fs::Mode::RWXU).unwrap();
    for path in ["/up.txt", "/passwd.txt", "/parent/secret.txt", "/loop.txt", "/pipe.txt", "/.env", "/tovuk.toml", "/%2eenv"] {
        let reply = site.get("live", path, &[]).await;
        assert_eq!(reply.code(), "route_not_found", "{path}");
    }
    assert_eq!(site.get("live", "/through/side.txt", &[]).await.text(), "inside");
    for path in ["/.env", "/tovuk.toml"] {
        assert_eq!(site.get("deployed", path, &[]).await.code(), "route_not_found", "{path}");
    }
    assert!(AssetIndex::of(&live).unwrap_err().to_string().contains("is no regular file"));
}

#[tokio::test]
async fn a_deployed_file_that_is_not_what_the_index_says_is_an_error() {
    let site = site(&[("index.html", b"home"), ("app.js", b"let a")]).await;
    fs::write(site.parent.path().join("deployed/app.js"), "let a = 1").unwrap();
    let reply = site.get("deployed", "/app.js", &[]).await;
    assert_eq!((reply.status.as_u16(), reply.code()), (500, "internal_error".to_owned()));
    assert!(!reply.text().contains("deployed"), "{}", reply.text());
    assert_eq!(site.get("deployed", "/", &[]).await.text(), "home");
}

#[tokio::test]
async fn beside_a_worker_everything_but_its_paths_is_a_file() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("index.html", b"home"), ("api/echo", b"file")]);
    let host = author_host().await;
    let assets = Assets::live(folder.path().to_owned());
    host.deploy("shop", "echo", |service| service.public().assets(assets)).await;
    assert_eq!(host.get("shop", "/").await.text(), "home");
    assert_eq!(host.get("shop", "/orders/1").await.text(), "home");
    let seen = host.get("shop", "/api/echo").await;
    assert!(seen.text().contains("/api/echo"), "the worker sees the whole path: {}", seen.text());
}
