//! What a first start makes, and every start makes sure of: the data folder, its lock, and the operator's token.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::StartError;
use crate::control::store::accounts;
use crate::control::vault::{token_digest, write_private};
use crate::control::{Control, OpenError, Refusal, Scope};
use tovuk_kernel::limits::Plan;

/// The file with the operator's token.
const ADMIN_TOKEN: &str = "admin-token";
/// The name of that token.
const ADMIN: &str = "admin-token file";
/// The handle of the first account.
const FIRST_HANDLE: &str = "operator";

/// Makes the data folder, for this user alone, and keeps other processes out of it for as long as the file is open.
pub(super) fn claim(data: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::Data { path: data.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(failed)?;
    for folder in ["uploads", "assets", "artifacts"] {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(data.join(folder)).map_err(failed)?;
    }
    let lock = File::options().create(true).truncate(false).write(true).open(data.join("lock")).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StartError::InUse(data.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes sure that there is an account and a file with a token of the operator. Where the file is missing, a new token is made and the one that was in it
/// ends: removing the file and starting anew is how it is changed.
pub(super) async fn admin_token(control: &Control, data: &Path) -> Result<PathBuf, StartError> {
    let path = data.join(ADMIN_TOKEN);
    if path.is_file() {
        return Ok(path);
    }
    let now = control.now_ms();
    let made = control.write(move |conn| {
        let account = match accounts::list(conn)?.into_iter().next() {
            Some(account) => account,
            None => accounts::create(conn, FIRST_HANDLE, "Operator", Plan::Pro, now)?
                .ok_or_else(|| Refusal::internal("the handle of the first account is taken"))?,
        };
        let mut ended = Vec::new();
        for token in accounts::tokens(conn, account.id)?.iter().filter(|token| token.name == ADMIN) {
            ended.extend(accounts::revoke_token(conn, account.id, token.id)?);
        }
        let (token, text) = crate::control::tokens::create(conn, account.id, ADMIN, Scope::Operator, now, None)?;
        Ok((token, text, ended))
    });
    let (token, text, ended) = made.await.map_err(OpenError::from)?;
    write_private(&path, format!("{text}\n").as_bytes()).map_err(|source| StartError::Data { path: path.clone(), source })?;
    for digest in ended {
        control.tokens().remove(&digest);
    }
    control.tokens().insert(&token_digest(&text), &token);
    Ok(path)
}
