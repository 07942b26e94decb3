//! The settings of `tovuk serve`, declared once: as a flag, as a variable `TOVUK_...` and as a key of the file that `--config` names. A flag goes before a
//! variable, a variable before the file, the file before the default. What a setting means is the host's.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::pricing::Pricing;
use tovuk_runtime::outbound::{AddressPolicy, OutboundConfig};
use tovuk_server::boot::{AcmeSettings, HostConfig, SecretKey};
use tovuk_server::build::sandbox::SandboxConfig;
use tovuk_server::domains::Nameservers;
use tovuk_server::tls::TlsConfig;
use tovuk_server::tls::acme::Proof;
use tovuk_server::traces::Otlp;

/// Where the data is kept, relative to the working folder.
pub const DATA_DEFAULT: &str = "./tovuk-data";
/// The variable with the key that secrets are sealed with. It is not a flag, because other users of a machine see the arguments of its programs.
const SECRET_KEY_VARIABLE: &str = "TOVUK_SECRET_KEY";
/// The variable with header fields for the collector of traces.
const OTLP_HEADERS_VARIABLE: &str = "TOVUK_OTLP_HEADERS";
/// The port of DNS.
const DNS_PORT: u16 = 53;

/// `tovuk serve`. Every setting can be absent, so that one layer does not hide what another says.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
#[command(
    after_help = "Each setting is also a variable TOVUK_<NAME> and a key of the file that --config names, with `_` for `-`: public_domain = \"example.com\".\n\
                        A flag goes before a variable, and a variable before the file. The key that secrets are sealed with can be given in TOVUK_SECRET_KEY, header fields for the collector of traces in TOVUK_OTLP_HEADERS, the keys of a bucket in TOVUK_OBJECTS_S3_ACCESS_KEY_ID and TOVUK_OBJECTS_S3_SECRET_ACCESS_KEY.\n\n\
                        Examples:\n  tovuk serve\n  tovuk serve --data /var/lib/tovuk --public-domain apps.example.com --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem\n  \
                        tovuk serve --config /etc/tovuk/tovuk.toml\n"
)]
pub struct Settings {
    /// A TOML file with settings
    #[arg(long, env = "TOVUK_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Where the public is served [default: 127.0.0.1:8787]
    #[arg(long, env = "TOVUK_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Where the control API and the dashboard are served [default: 127.0.0.1:8788]
    #[arg(long, env = "TOVUK_API_LISTEN", value_name = "ADDRESS")]
    pub api_listen: Option<SocketAddr>,
    /// Where plain HTTP is served, which sends browsers on to https and answers ACME
    #[arg(long, env = "TOVUK_LISTEN_HTTP", value_name = "ADDRESS")]
    pub listen_http: Option<SocketAddr>,
    /// Where figures are served for Prometheus, with /healthz and /readyz; without a token, so choose who can reach it
    #[arg(long, env = "TOVUK_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// The collector that spans of traces are sent to by OTLP over HTTP, for example `http://127.0.0.1:4318`
    #[arg(long, env = "TOVUK_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The folder with everything that the host keeps [default: ./tovuk-data]
    #[arg(long, env = "TOVUK_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// The domain under which services have names [default: localhost]
    #[arg(long, env = "TOVUK_PUBLIC_DOMAIN", value_name = "DOMAIN")]
    pub public_domain: Option<String>,
    /// What the URLs of services begin with, when something stands in front of the host, for example `https://apps.example.com`
    #[arg(long, env = "TOVUK_PUBLIC_URL", value_name = "URL")]
    pub public_url: Option<String>,
    /// What the URLs of the API begin with, when something stands in front of the host
    #[arg(long, env = "TOVUK_API_URL", value_name = "URL")]
    pub api_url: Option<String>,
    /// The certificate of the public listener in PEM, best a wildcard for the public domain
    #[arg(long, env = "TOVUK_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key in PEM
    #[arg(long, env = "TOVUK_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The certificate of the API's listener in PEM
    #[arg(long, env = "TOVUK_API_TLS_CERT", value_name = "FILE")]
    pub api_tls_cert: Option<PathBuf>,
    /// Its key in PEM
    #[arg(long, env = "TOVUK_API_TLS_KEY", value_name = "FILE")]
    pub api_tls_key: Option<PathBuf>,
    /// Serve the API beyond this machine without TLS, because TLS ends in front of it
    #[arg(long, env = "TOVUK_INSECURE_API", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub insecure_api: Option<bool>,
    /// The directory of the ACME server that certificates of custom domains are ordered from
    #[arg(long, env = "TOVUK_ACME_DIRECTORY", value_name = "URL")]
    pub acme_directory: Option<String>,
    /// The mail address that the ACME server may write to
    #[arg(long, env = "TOVUK_ACME_CONTACT", value_name = "ADDRESS")]
    pub acme_contact: Option<String>,
    /// Root certificates in PEM by which the ACME server is known, when the system does not trust it
    #[arg(long, env = "TOVUK_ACME_ROOT_CERTIFICATES", value_name = "FILE")]
    pub acme_root_certificates: Option<PathBuf>,
    /// How names are proved to the ACME server [default: tls-alpn]
    #[arg(long, env = "TOVUK_ACME_PROOF", value_enum)]
    pub acme_proof: Option<AcmeProof>,
    /// How long running requests may take to end when the host stops, in seconds [default: 30]
    #[arg(long, env = "TOVUK_DRAIN_TIMEOUT", value_name = "SECONDS")]
    pub drain_timeout: Option<Seconds>,
    /// The file with the key that secrets are sealed with [default: one in the data folder, made at the first start]
    #[arg(long, env = "TOVUK_SECRET_KEY_FILE", value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// The name of this node [default: node-1]
    #[arg(long, env = "TOVUK_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Compile source that tenants send, in a sandbox
    #[arg(long, env = "TOVUK_REMOTE_BUILD", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub remote_build: Option<bool>,
    /// The Rust toolchain that builds use [default: that of rustc in PATH]
    #[arg(long, env = "TOVUK_BUILD_TOOLCHAIN", value_name = "FOLDER")]
    pub build_toolchain: Option<PathBuf>,
    /// A cargo folder whose packages builds may use; they have no network
    #[arg(long, env = "TOVUK_BUILD_CARGO_HOME", value_name = "FOLDER")]
    pub build_cargo_home: Option<PathBuf>,
    /// Who is asked for DNS records of custom domains; can be repeated [default: the system's]
    #[arg(long = "nameserver", env = "TOVUK_NAMESERVER", value_delimiter = ',', value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameserver: Vec<Nameserver>,
    /// Networks that workers may reach although they are not public; can be repeated
    #[arg(long, env = "TOVUK_OUTBOUND_ALLOW_ADDRESSES", value_delimiter = ',', value_name = "NETWORK")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outbound_allow_addresses: Vec<IpNet>,
    /// The bucket that the bytes of objects are kept in, at Amazon S3 or a store that speaks like it [default: the data folder]
    #[arg(long, env = "TOVUK_OBJECTS_S3_BUCKET", value_name = "NAME")]
    pub objects_s3_bucket: Option<String>,
    /// The URL of that store [default: Amazon's own]
    #[arg(long, env = "TOVUK_OBJECTS_S3_ENDPOINT", value_name = "URL")]
    pub objects_s3_endpoint: Option<String>,
    /// Its region [default: us-east-1]
    #[arg(long, env = "TOVUK_OBJECTS_S3_REGION", value_name = "REGION")]
    pub objects_s3_region: Option<String>,
    /// What the names of all objects in the bucket begin with
    #[arg(long, env = "TOVUK_OBJECTS_S3_PREFIX", value_name = "PREFIX")]
    pub objects_s3_prefix: Option<String>,
    /// Name the bucket in the host name, as Amazon does, also with an endpoint of one's own [default: in the path where an endpoint is given]
    #[arg(long, env = "TOVUK_OBJECTS_S3_VIRTUAL_HOST", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub objects_s3_virtual_host: Option<bool>,
    /// A TOML file with access_key_id and secret_access_key of the bucket, when they are not in the environment
    #[arg(long, env = "TOVUK_OBJECTS_S3_CREDENTIALS_FILE", value_name = "FILE")]
    pub objects_s3_credentials_file: Option<PathBuf>,
    /// What usage costs: a TOML file in the form of the default, which `docs/operating.md` shows [default: the host's own prices]
    #[arg(long, env = "TOVUK_PRICING_FILE", value_name = "FILE")]
    pub pricing_file: Option<PathBuf>,
    /// Instances of workers at a time
    #[arg(long, env = "TOVUK_SLOTS", value_name = "NUMBER")]
    pub slots: Option<u32>,
    /// Memory of all workers together, in MiB [default: half of the machine's]
    #[arg(long, env = "TOVUK_GUEST_MEMORY_MB", value_name = "MIB")]
    pub guest_memory_mb: Option<u64>,
}

/// How names are proved to an ACME server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AcmeProof {
    /// By a certificate that the public listener shows, which must be reachable at port 443
    TlsAlpn,
    /// By a file that the listener of --listen-http serves, which must be reachable at port 80
    Http,
}

/// A time in whole seconds, written `30` or `30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(u64);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix('s').unwrap_or(text);
        digits.parse().map(Self).map_err(|_| format!("`{text}` is no number of seconds, such as 30 or 30s"))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "seconds, such as 30 or \"30s\"")]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(seconds) => Ok(Self(seconds)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// The address of a name server, with or without port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nameserver(SocketAddr);

impl FromStr for Nameserver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let without_port = |text: &str| text.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT));
        let address = text.parse().ok().or_else(|| without_port(text));
        address.map(Self).ok_or_else(|| format!("`{text}` is no address of a name server, such as 192.0.2.53 or 192.0.2.53:5353"))
    }
}

impl TryFrom<String> for Nameserver {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Nameserver> for String {
    fn from(server: Nameserver) -> Self {
        server.0.to_string()
    }
}

impl Settings {
    /// These settings over those of the file that they name.
    pub fn with_file(self) -> anyhow::Result<Self> {
        let Some(path) = self.config.clone() else { return Ok(self) };
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read the settings in {}", path.display()))?;
        let file = Self::of_file(&text).with_context(|| path.display().to_string())?;
        self.over(&file)
    }

    fn of_file(text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text.parse()?;
        let known = keys()?;
        if let Some(key) = table.keys().find(|key| !known.contains(key)) {
            let nearest = crate::suggest::nearest(key, known.iter().map(String::as_str));
            bail!("unknown key `{key}`{}", nearest.map_or_else(String::new, |nearest| format!(": did you mean `{nearest}`?")));
        }
        Ok(toml::from_str(text)?)
    }

    /// Each setting that is given here, and the others from below.
    fn over(&self, below: &Self) -> anyhow::Result<Self> {
        let mut settings = as_map(below)?;
        settings.extend(as_map(self)?.into_iter().filter(|(_, value)| !value.is_null()));
        Ok(serde_json::from_value(Value::Object(settings))?)
    }

    /// The host that these settings describe.
    pub async fn host(self, clock: &Clock) -> anyhow::Result<HostConfig> {
        let mut host = HostConfig::new(self.data.clone().unwrap_or_else(|| PathBuf::from(DATA_DEFAULT)));
        host.tls = certificate("--tls-cert", self.tls_cert.as_deref(), "--tls-key", self.tls_key.as_deref())?;
        host.api_tls = certificate("--api-tls-cert", self.api_tls_cert.as_deref(), "--api-tls-key", self.api_tls_key.as_deref())?;
        host.acme = self.acme()?;
        host.secret_key = self.secret_key()?;
        host.objects = super::objects::place(&self)?;
        host.builds.remote = self.sandbox(clock).await?;
        set(&mut host.listen, self.listen);
        set(&mut host.api_listen, self.api_listen);
        host.listen_http = self.listen_http;
        host.metrics_listen = self.metrics_listen;
        host.otlp = self.otlp_endpoint.as_deref().map(otlp).transpose()?;
        set(&mut host.public_domain, self.public_domain);
        (host.public_url, host.api_url) = (self.public_url, self.api_url);
        set(&mut host.insecure_api, self.insecure_api);
        set(&mut host.drain_timeout, self.drain_timeout.map(|Seconds(seconds)| Duration::from_secs(seconds)));
        set(&mut host.node, self.node);
        if !self.nameserver.is_empty() {
            host.nameservers = Nameservers::Addresses(self.nameserver.iter().map(|server| server.0).collect());
        }
        host.outbound = OutboundConfig { addresses: AddressPolicy { allow: self.outbound_allow_addresses }, ..OutboundConfig::default() };
        if let Some(path) = &self.pricing_file {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the prices in {}", path.display()))?;
            host.pricing = Some(Pricing::parse(&text).with_context(|| path.display().to_string())?);
        }
        host.slots = self.slots;
        host.guest_memory_bytes = self.guest_memory_mb.map(|mib| mib.saturating_mul(1 << 20));
        Ok(host)
    }

    fn acme(&self) -> anyhow::Result<Option<AcmeSettings>> {
        let Some(directory_url) = self.acme_directory.clone() else {
            if self.acme_contact.is_some() || self.acme_root_certificates.is_some() || self.acme_proof.is_some() {
                bail!(
                    "settings of ACME say nothing without a server: add --acme-directory https://acme-v02.api.letsencrypt.org/directory, or leave them out"
                );
            }
            return Ok(None);
        };
        let proof = match self.acme_proof {
            Some(AcmeProof::Http) if self.listen_http.is_none() => {
                bail!("--acme-proof http needs a plain listener: add --listen-http 0.0.0.0:80")
            }
            Some(AcmeProof::Http) => Proof::Http,
            Some(AcmeProof::TlsAlpn) | None => Proof::TlsAlpn,
        };
        let (contact, root_certificates) = (self.acme_contact.clone(), self.acme_root_certificates.clone());
        Ok(Some(AcmeSettings { directory_url, contact, root_certificates, proof }))
    }

    fn secret_key(&self) -> anyhow::Result<SecretKey> {
        let text = std::env::var(SECRET_KEY_VARIABLE).ok().filter(|text| !text.trim().is_empty());
        match (text, &self.secret_key_file) {
            (Some(_), Some(_)) => bail!("the key of secrets is given twice: leave out either {SECRET_KEY_VARIABLE} or --secret-key-file"),
            (Some(text), None) => Ok(SecretKey::Text(text)),
            (None, Some(path)) => Ok(SecretKey::File(path.clone())),
            (None, None) => Ok(SecretKey::Generated),
        }
    }

    async fn sandbox(&self, clock: &Clock) -> anyhow::Result<Option<SandboxConfig>> {
        if self.remote_build != Some(true) {
            if self.build_toolchain.is_some() || self.build_cargo_home.is_some() {
                bail!("--build-toolchain and --build-cargo-home say nothing without --remote-build: add it, or leave them out");
            }
            return Ok(None);
        }
        let mut sandbox = match &self.build_toolchain {
            Some(toolchain) => {
                let program = std::env::current_exe().context("cannot find this program's own file")?;
                SandboxConfig::with_toolchain(program, toolchain.clone(), clock.clone())
            }
            None => SandboxConfig::detect(clock.clone()).await.context("--remote-build: name a toolchain with --build-toolchain")?,
        };
        sandbox.cargo_home = self.build_cargo_home.clone();
        Ok(Some(sandbox))
    }
}

/// The collector. Its header fields, which let the host in there, are in the environment, because other users see the arguments of programs.
fn otlp(endpoint: &str) -> anyhow::Result<Otlp> {
    let mut headers = HeaderMap::new();
    let text = std::env::var(OTLP_HEADERS_VARIABLE).unwrap_or_default();
    for field in text.split(',').map(str::trim).filter(|field| !field.is_empty()) {
        let wrong = || format!("{OTLP_HEADERS_VARIABLE} is no list of `name=value` with commas between");
        let (name, value) = field.split_once('=').with_context(wrong)?;
        let mut value = HeaderValue::from_str(value.trim()).with_context(wrong)?;
        value.set_sensitive(true);
        headers.append(HeaderName::from_bytes(name.trim().as_bytes()).with_context(wrong)?, value);
    }
    Otlp::new(endpoint, headers).map_err(|error| anyhow!("--otlp-endpoint: {error}"))
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

fn certificate(cert_flag: &str, cert: Option<&Path>, key_flag: &str, key: Option<&Path>) -> anyhow::Result<Option<TlsConfig>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsConfig { cert: cert.to_owned(), key: key.to_owned() })),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("{cert_flag} needs {key_flag}: a certificate is of no use without its key"),
        (None, Some(_)) => bail!("{key_flag} needs {cert_flag}: a key is of no use without its certificate"),
    }
}

fn as_map(settings: &Settings) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(settings)? {
        Value::Object(map) => Ok(map),
        _ => bail!("settings are not an object"),
    }
}

/// The keys that a file may have.
fn keys() -> anyhow::Result<Vec<String>> {
    let mut keys: Vec<String> = as_map(&Settings::default())?.into_iter().map(|(key, _)| key).collect();
    // Lists that are empty are left out, so that they do not hide those below.
    keys.extend(["nameserver", "outbound_allow_addresses"].map(str::to_owned));
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
        let flags = Settings { node: Some("flag".to_owned()), nameserver: vec!["192.0.2.1".parse().unwrap()], ..Settings::default() };
        let file =
            Settings::of_file("node = \"file\"\ndrain_timeout = \"5s\"\ninsecure_api = true\nnameserver = [\"192.0.2.9:99\"]\nacme_proof = \"http\"")
                .unwrap();
        let merged = flags.over(&file).unwrap();
        assert_eq!((merged.node.as_deref(), merged.drain_timeout, merged.insecure_api), (Some("flag"), Some(Seconds(5)), Some(true)));
        assert_eq!(merged.nameserver, ["192.0.2.1:53".parse().unwrap()]);
        assert_eq!((merged.acme_proof, merged.listen), (Some(AcmeProof::Http), None));
    }

    #[test]
    fn every_setting_has_a_flag_a_variable_and_a_key() {
        let command = Settings::augment_args(clap::Command::new("serve"));
        for key in keys().unwrap() {
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_long() == Some(&key.replace('_', "-")))
                .unwrap_or_else(|| panic!("{key} has no flag"));
            assert_eq!(argument.get_env().unwrap().to_str().unwrap(), format!("TOVUK_{}", key.to_uppercase()));
        }
    }

    #[test]
    fn what_is_wrong_in_a_file_is_named() {
        let error = |text: &str| format!("{:#}", Settings::of_file(text).unwrap_err());
        assert_eq!(error("publicdomain = \"x\""), "unknown key `publicdomain`: did you mean `public_domain`?");
        assert!(error("listen = \"here\"").contains("line 1"), "{}", error("listen = \"here\""));
        assert!(error("drain_timeout = true").contains("seconds"), "{}", error("drain_timeout = true"));
    }

    #[tokio::test]
    async fn settings_that_say_nothing_by_themselves_are_refused() {
        let clock = Clock::system();
        let refused = async |settings: Settings| settings.host(&clock).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(Settings { tls_cert: Some("c.pem".into()), ..Settings::default() }).await.contains("--tls-key"));
        assert!(refused(Settings { acme_proof: Some(AcmeProof::Http), ..Settings::default() }).await.contains("--acme-directory"));
        let http = Settings { acme_directory: Some("https://x".into()), acme_proof: Some(AcmeProof::Http), ..Settings::default() };
        assert!(refused(http).await.contains("--listen-http"));
        assert!(refused(Settings { build_cargo_home: Some("/x".into()), ..Settings::default() }).await.contains("--remote-build"));
    }
}
