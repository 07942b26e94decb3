//! Which host the client speaks to, and as whom: `--api` and `--token`, the environment, the session file. There is one session file for each origin of
//! an API, so that the token of one host is never sent to another.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use tovuk_kernel::codes;
use tovuk_server::boot::local::{TOKEN_FILE, URL_FILE};

use crate::client::encoded;
use crate::failure::Failure;

/// The API of a host on this machine.
pub const DEFAULT_API: &str = "http://127.0.0.1:8788";

/// The variable with the API to ask.
const API_VARIABLE: &str = "TOVUK_API_BASE_URL";

/// The flags of every command that asks a host.
#[derive(Clone, Debug, Default, Args)]
pub struct ClientArgs {
    /// The host's control API [env: TOVUK_API_BASE_URL] [default: http://127.0.0.1:8788]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub api: Option<String>,
    /// The token to act with [env: TOVUK_TOKEN] [default: the one that `tovuk login` has stored for this host]
    #[arg(long, global = true, value_name = "TOKEN", help_heading = "Global options")]
    pub token: Option<String>,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
}

/// The URL of an API, without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiUrl {
    text: String,
    origin: String,
}

impl ApiUrl {
    fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim().trim_end_matches('/');
        let invalid =
            || Failure::local("invalid_argument", format!("`{text}` is no URL of an API")).instruct(format!("Give one such as --api {DEFAULT_API}."));
        let uri: http::Uri = text.parse().map_err(|_| invalid())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(invalid()) };
        if authority.as_str().contains('@') || uri.query().is_some() || authority.host().is_empty() {
            return Err(invalid());
        }
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Ok(Self { text: text.to_owned(), origin: format!("{scheme}://{}:{port}", authority.host().to_ascii_lowercase()) })
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is on this machine.
    fn is_loopback(&self) -> bool {
        let (_, host, _) = self.parts();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }

    /// Scheme, host and port.
    fn parts(&self) -> (&str, &str, &str) {
        let (scheme, authority) = self.origin.split_once("://").unwrap_or_default();
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
        (scheme, host, port)
    }

    /// The name of its session file. No two origins have the same: a scheme and a port have no `-`, and the host can be read back.
    fn file_name(&self) -> String {
        let (scheme, host, port) = self.parts();
        format!("{scheme}-{}-{port}", encoded(host))
    }
}

impl std::fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is given, unless it is blank.
fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// What is given by a flag, else by a variable.
fn given_or_env(flag: Option<&str>, variable: &str) -> Option<String> {
    // Not left to clap, whose messages would then repeat these flags as if they had been typed.
    given(flag).map(str::to_owned).or_else(|| given(std::env::var(variable).ok().as_deref()).map(str::to_owned))
}

impl ClientArgs {
    /// Whether somebody has named a host.
    pub fn names_api(&self) -> bool {
        given_or_env(self.api.as_deref(), API_VARIABLE).is_some()
    }

    /// The API to speak to.
    pub fn api(&self) -> Result<ApiUrl, Failure> {
        ApiUrl::parse(given_or_env(self.api.as_deref(), API_VARIABLE).as_deref().unwrap_or(DEFAULT_API))
    }

    /// What a command that is suggested here carries to ask the same host; nothing where it finds that host by itself.
    pub fn flag(&self) -> String {
        match given(self.api.as_deref()) {
            Some(api) => format!(" --api {api}"),
            None if self.dev().is_some() => format!(" --api {DEFAULT_API}"),
            None => String::new(),
        }
    }

    /// The token to show to this API: the one that was given, else the one that is stored for it.
    pub fn token(&self, api: &ApiUrl) -> Result<String, Failure> {
        if let Some(token) = given_or_env(self.token.as_deref(), "TOVUK_TOKEN") {
            return Ok(token);
        }
        stored(api)?.ok_or_else(|| {
            Failure::of(&codes::UNAUTHORIZED, format!("there is no token for {api}"))
                .instruct("Run `tovuk login`, or set TOVUK_TOKEN. The operator's token is in the file `admin-token` of the host's data folder.")
        })
    }
}

/// The folder beside a project file with what `tovuk dev` keeps.
const DEV_FOLDER: &str = ".tovuk";
/// The file in it that is locked while `tovuk dev` runs.
const DEV_LOCK_FILE: &str = "lock";

impl ClientArgs {
    /// The API of the `tovuk dev` that runs in this folder and its token, unless another API was named. The variable TOVUK_TOKEN is for other hosts and is not
    /// shown to it.
    pub fn dev(&self) -> Option<(ApiUrl, String)> {
        if self.names_api() {
            return None;
        }
        let read = |name: &str| given(fs::read_to_string(Path::new(DEV_FOLDER).join(name)).ok().as_deref()).map(str::to_owned);
        // A folder that came from elsewhere may say anything: only this machine is asked on its word.
        let api = ApiUrl::parse(&read(URL_FILE)?).ok().filter(ApiUrl::is_loopback)?;
        // One that was killed leaves its files behind, and no lock.
        let lock = fs::File::open(Path::new(DEV_FOLDER).join(DEV_LOCK_FILE)).ok()?;
        if !matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock)) {
            return None;
        }
        let token = given(self.token.as_deref()).map(str::to_owned).or_else(|| read(TOKEN_FILE))?;
        Some((api, token))
    }
}

/// The token that is stored for an API.
pub fn stored(api: &ApiUrl) -> Result<Option<String>, Failure> {
    let Some(path) = path(api) else { return Ok(None) };
    match fs::read_to_string(&path) {
        Ok(text) => Ok(given(Some(&text)).map(str::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&path, &error)),
    }
}

/// Stores the token for an API, readable for this user alone. Returns where.
pub fn store(api: &ApiUrl, token: &str) -> Result<PathBuf, Failure> {
    let path = path(api).ok_or_else(|| {
        Failure::local("login_failed", "there is no folder to keep the token in")
            .instruct("Set HOME or XDG_CONFIG_HOME, or use TOVUK_TOKEN instead of logging in.")
    })?;
    write_private(&path, token).map_err(|error| unusable(&path, &error))?;
    Ok(path)
}

/// Forgets the token of an API. Says whether there was one.
pub fn forget(api: &ApiUrl) -> Result<bool, Failure> {
    let Some(path) = path(api) else { return Ok(false) };
    match fs::remove_file(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(unusable(&path, &error)),
    }
}

fn unusable(path: &Path, error: &io::Error) -> Failure {
    Failure::local("session_unusable", format!("the session file {} cannot be used: {error}", path.display()))
        .instruct("Make it yours and readable, or remove it and run `tovuk login`.")
}

fn path(api: &ApiUrl) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(config.join("tovuk/sessions").join(api.file_name()))
}

fn write_private(path: &Path, token: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{token}\n").as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_a_url_whose_path_is_kept_and_whose_origin_names_the_session() {
        let api = ApiUrl::parse("http://h:1/x//").unwrap();
        assert_eq!((api.as_str(), api.file_name().as_str()), ("http://h:1/x", "http-h-1"));
        assert_eq!(ApiUrl::parse("https://API.example.com").unwrap().file_name(), "https-api.example.com-443");
        assert_eq!(ApiUrl::parse("http://[::1]:8788").unwrap().file_name(), "http-%5B%3A%3A1%5D-8788");
        for text in ["", "h:1", "ftp://h", "http://", "http://u@h", "http://h?x", "http://h/ x"] {
            assert!(ApiUrl::parse(text).is_err_and(|failure| failure.agent_instruction.is_some()), "{text}");
        }
    }

    #[test]
    fn no_two_origins_share_a_session() {
        let urls = [
            "https://my-api.x",
            "https://my_api.x",
            "https://my~api.x",
            "https://[::1]",
            "https://my-api.x:80",
            "http://my-api.x",
            "http://my-api.x-80:80",
        ];
        let names: std::collections::BTreeSet<_> = urls.iter().map(|url| ApiUrl::parse(url).unwrap().file_name()).collect();
        assert_eq!(names.len(), urls.len(), "{names:?}");
        assert!(names.contains("https-my-api.x-443"), "{names:?}");
    }

    #[test]
    fn only_this_machine_is_this_machine() {
        let loopback = |text: &str| ApiUrl::parse(text).unwrap().is_loopback();
        assert!(["http://localhost:1", "http://127.0.0.1", "http://127.9.9.9:80", "http://[::1]:5"].into_iter().all(loopback));
        assert!(
            !["http://localhost.example.com", "http://127.0.0.1.example.com:1", "https://example.com", "http://[::2]:5"].into_iter().any(loopback)
        );
    }

    #[test]
    fn what_is_blank_is_not_given() {
        assert_eq!((given(Some(" ")), given(Some(" t\n")), given(None)), (None, Some("t"), None));
    }
}
