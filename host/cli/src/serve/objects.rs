//! Where the bytes of objects are kept, as the settings say. The keys of a bucket are no flags, because other users of a machine see the arguments of its
//! programs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use tovuk_server::boot::{ObjectsPlace, S3};

use super::settings::Settings;

const KEY_ID_VARIABLE: &str = "TOVUK_OBJECTS_S3_ACCESS_KEY_ID";
const KEY_VARIABLE: &str = "TOVUK_OBJECTS_S3_SECRET_ACCESS_KEY";
const REGION_DEFAULT: &str = "us-east-1";

/// The keys of a bucket, as their file has them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
}

/// The bucket, if one is named.
pub fn place(settings: &Settings) -> anyhow::Result<Option<ObjectsPlace>> {
    let Some(bucket) = settings.objects_s3_bucket.clone() else {
        let others = [&settings.objects_s3_endpoint, &settings.objects_s3_region, &settings.objects_s3_prefix];
        if others.iter().any(|other| other.is_some()) || settings.objects_s3_virtual_host.is_some() || settings.objects_s3_credentials_file.is_some()
        {
            bail!("settings of a store of objects say nothing without a bucket: add --objects-s3-bucket, or leave them out");
        }
        return Ok(None);
    };
    let Credentials { access_key_id, secret_access_key } = credentials(settings.objects_s3_credentials_file.as_deref())?;
    let endpoint = settings.objects_s3_endpoint.clone();
    if let Some(url) = endpoint.as_deref().filter(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        bail!("--objects-s3-endpoint `{url}` is no URL such as https://s3.example.com");
    }
    Ok(Some(ObjectsPlace::S3(S3 {
        path_style: endpoint.is_some() && settings.objects_s3_virtual_host != Some(true),
        endpoint,
        bucket,
        region: settings.objects_s3_region.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned()),
        access_key_id,
        secret_access_key,
        prefix: settings.objects_s3_prefix.clone().unwrap_or_default(),
    })))
}

/// From the file where one is named, else from the environment.
fn credentials(file: Option<&Path>) -> anyhow::Result<Credentials> {
    if let Some(path) = file {
        let read = || {
            if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
                bail!("others can read it: run `chmod 600 {}`", path.display());
            }
            Ok(toml::from_str(&std::fs::read_to_string(path)?)?)
        };
        return read().with_context(|| format!("the keys of the bucket in {}", path.display()));
    }
    let variable = |name: &str| std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    match (variable(KEY_ID_VARIABLE), variable(KEY_VARIABLE)) {
        (Some(access_key_id), Some(secret_access_key)) => Ok(Credentials { access_key_id, secret_access_key }),
        _ => bail!("--objects-s3-bucket needs its keys: set {KEY_ID_VARIABLE} and {KEY_VARIABLE}, or name a file with --objects-s3-credentials-file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(settings: &Settings) -> String {
        place(settings).map(drop).map_err(|error| format!("{error:#}")).unwrap_err()
    }

    #[test]
    fn a_bucket_has_keys_that_nobody_else_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        std::fs::write(&file, "access_key_id = \"the-id\"\nsecret_access_key = \"the-key\"\n").unwrap();
        let settings = |bucket: Option<&str>| Settings {
            objects_s3_bucket: bucket.map(str::to_owned),
            objects_s3_endpoint: Some("http://127.0.0.1:9000".to_owned()),
            objects_s3_credentials_file: Some(file.clone()),
            ..Settings::default()
        };
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(refused(&settings(Some("b"))).contains("chmod 600"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let Ok(Some(ObjectsPlace::S3(s3))) = place(&settings(Some("b"))) else { panic!() };
        assert_eq!((s3.bucket.as_str(), s3.region.as_str(), s3.access_key_id.as_str(), s3.path_style), ("b", "us-east-1", "the-id", true));
        assert!(refused(&settings(None)).contains("--objects-s3-bucket"));
        let without_keys = Settings { objects_s3_bucket: Some("b".into()), ..Settings::default() };
        assert!(refused(&without_keys).contains(KEY_VARIABLE));
        let no_url = Settings { objects_s3_endpoint: Some("s3".into()), ..settings(Some("b")) };
        assert!(refused(&no_url).contains("no URL"));
        assert!(place(&Settings::default()).unwrap().is_none());
    }
}
