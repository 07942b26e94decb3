//! A project file for sources that are there already. It looks for a Rust package and for static files, in the folder itself or in two folders
//! below it, and at nothing else.

use std::path::Path;

use super::NewError;

const WORKER_FOLDERS: [&str; 3] = ["api", "worker", "server"];
const FRONTEND_FOLDERS: [&str; 4] = ["web", "frontend", "app", "site"];

/// The text of the project file, or nothing when the folder has no sources.
pub(super) fn project_file(directory: &Path, service: &str) -> Result<Option<String>, NewError> {
    let has = |folder: &str, file: &str| directory.join(folder).join(file).is_file();
    let worker = WORKER_FOLDERS.into_iter().find(|folder| has(folder, "Cargo.toml"));
    let frontend = FRONTEND_FOLDERS.into_iter().find(|folder| has(folder, "package.json") || has(folder, "index.html"));
    if let (Some(worker), Some(frontend)) = (worker, frontend) {
        return Ok(Some(fullstack(service, worker, frontend, has(frontend, "package.json"))));
    }
    if has(".", "Cargo.toml") {
        return Ok(Some(format!("[services.{service}]\nroutes = [\"/*\"]\n")));
    }
    if has(".", "package.json") {
        return Ok(Some(format!(
            "[services.{service}]\nkind = \"static_frontend\"\nbuild = \"npm run build\"\nassets = \"dist\"\nroutes = [\"/*\"]\n"
        )));
    }
    if has(".", "index.html") {
        return Ok(Some(format!("[services.{service}]\nkind = \"static_frontend\"\nassets = \".\"\nroutes = [\"/*\"]\n")));
    }
    let half = |found: &str, missing| NewError::HalfMissing { directory: directory.to_owned(), found: format!("`{found}`"), missing };
    match (worker, frontend) {
        (Some(worker), None) => Err(half(worker, "frontend (`web`, `frontend`, `app` or `site` with a package.json or index.html)")),
        (None, Some(frontend)) => Err(half(frontend, "worker (`api`, `worker` or `server` with a Cargo.toml)")),
        _ => Ok(None),
    }
}

fn fullstack(service: &str, worker: &str, frontend: &str, packaged: bool) -> String {
    let (build, assets) = match packaged {
        true => {
            let build = format!("npm --prefix ../{frontend} run build && cargo build --release --target wasm32-wasip2");
            (format!("build = \"{build}\"\n"), format!("../{frontend}/dist"))
        }
        false => (String::new(), format!("../{frontend}")),
    };
    format!("[services.{service}]\nkind = \"fullstack\"\nroot = \"{worker}\"\n{build}assets = \"{assets}\"\nroutes = [\"/*\"]\n")
}
