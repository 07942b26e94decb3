//! Finds the component of a service on this machine, asking cargo where the project file does not say. What the answers mean is in
//! `tovuk_server::build::component`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tovuk_kernel::project::Service;
use tovuk_server::build::component::{self, ComponentError, METADATA_COMMAND};

/// The component of a service that has been built.
pub(super) async fn find(name: &str, service: &Service, root: &Path) -> Result<PathBuf, ComponentError> {
    component::existing(name, locate(service, root).await?, root)
}

/// Where the component of a service is or will be.
pub(super) async fn locate(service: &Service, root: &Path) -> Result<PathBuf, ComponentError> {
    match component::declared(service, root)? {
        Some(path) => Ok(path),
        None => component::by_cargo(service, root, &metadata(root).await?),
    }
}

async fn metadata(root: &Path) -> Result<Vec<u8>, ComponentError> {
    let failed = |output: String| ComponentError::Metadata { directory: root.to_owned(), output };
    let [program, arguments @ ..] = METADATA_COMMAND;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() { Ok(output.stdout) } else { Err(failed(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())) }
}
