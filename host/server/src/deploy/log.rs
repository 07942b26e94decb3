//! The log of one build, line by line.

use tovuk_kernel::ids::{AccountId, BuildId, DeployId, ServiceId};

use super::live::Version;
use crate::logs::{Line, Logs, Stream};

/// Where a build says what it does.
#[derive(Clone)]
pub(super) struct BuildLog {
    logs: Logs,
    service: ServiceId,
    account: AccountId,
    deploy: DeployId,
    build: BuildId,
}

impl BuildLog {
    /// The log of this version's build.
    pub fn of(logs: &Logs, version: &Version, build: i64) -> Self {
        Self {
            logs: logs.clone(),
            service: version.service.service_id(),
            account: version.service.account(),
            deploy: format!("deploy_{}", version.deploy.id).into(),
            build: format!("job_{build}").into(),
        }
    }

    /// Says something. It need not be on disk yet.
    pub fn line(&self, text: &str) {
        let line = Line::new(self.service.clone(), self.account.clone(), Stream::Build, text);
        self.logs.sink().line(line.deploy(self.deploy.clone()).build(self.build.clone()));
    }

    /// Returns once everything that was said is on disk, so that whoever sees the build's end can read why.
    pub async fn flush(&self) {
        self.logs.flush().await;
    }
}
