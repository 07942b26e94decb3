//! What a first start makes, and every start makes sure of: the data folder, its lock, and the token that whoever started it has.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::StartError;
use crate::control::store::accounts;
use crate::control::vault::write_private;
use crate::control::{Control, OpenError, Refusal, Scope};
use tovuk_kernel::clock::Clock;
use tovuk_kernel::limits::Plan;

/// A token that is kept in a file of the data folder, and the account that it is made for when there is none.
pub(super) struct Keeper {
    pub file: &'static str,
    /// What the account's list of tokens calls it.
    name: &'static str,
    scope: Scope,
    handle: &'static str,
    display_name: &'static str,
    plan: Plan,
}

/// The operator's.
const ADMIN: Keeper =
    Keeper { file: "admin-token", name: "admin-token file", scope: Scope::Operator, handle: "operator", display_name: "Operator", plan: Plan::Pro };
/// The author's, on a development host. There is nobody else, and so nothing to operate.
pub(super) const DEV: Keeper =
    Keeper { file: "dev-token", name: "dev-token file", scope: Scope::Account, handle: "dev", display_name: "Development", plan: Plan::Free };

/// How often a folder that is in use is looked at again, and how long after.
const CLAIMS: u32 = 25;
const CLAIM_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Makes the data folder, for this user alone, and keeps other processes out of it for as long as the file is open.
///
/// A folder that is in use is looked at again for half a second: a host that has just ended can have left the lock with a child that it was starting, until
/// that child runs its own program.
pub(super) async fn claim(data: &Path) -> Result<File, StartError> {
    for _ in 1..CLAIMS {
        match try_claim(data) {
            Err(StartError::InUse(_)) => Clock::system().sleep(CLAIM_AGAIN_AFTER).await,
            claimed => return claimed,
        }
    }
    try_claim(data)
}

fn try_claim(data: &Path) -> Result<File, StartError> {
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
/// ends: removing the file and starting anew is how it is changed. One that is not valid is replaced as well, unless it was revoked by somebody who has
/// another: that was meant, and a start does not undo it.
pub(super) async fn admin_token(control: &Control, data: &Path) -> Result<PathBuf, StartError> {
    let path = data.join(ADMIN.file);
    let is_operator = |text: &str| control.tokens().caller(text.trim(), control.now_ms(), String::new()).is_ok_and(|caller| caller.is_operator());
    match fs::read_to_string(&path) {
        Ok(text) if is_operator(&text) => {}
        Ok(_) if was_revoked(control).await? => {
            tracing::warn!("the token in {} was revoked; for a new one, remove the file and start anew", path.display());
        }
        Ok(_) => {
            tracing::warn!("the token in {} is no operator's token of this database and is replaced by a new one", path.display());
            make(control, &path, ADMIN).await?;
        }
        Err(_) => make(control, &path, ADMIN).await?,
    }
    Ok(path)
}

/// Whether the token of the file has no row any more, and another one can do what it could.
async fn was_revoked(control: &Control) -> Result<bool, StartError> {
    let now = control.now_ms();
    let tokens = control.read(|conn| Ok(accounts::all_tokens(conn)?)).await.map_err(OpenError::from)?;
    let is_valid = |token: &accounts::Token| token.scope == Scope::Operator && token.expires_ms.is_none_or(|expires_ms| expires_ms > now);
    let valid: Vec<_> = tokens.iter().map(|(_, token)| token).filter(|token| is_valid(token)).collect();
    Ok(!valid.is_empty() && valid.iter().all(|token| token.name != ADMIN.name))
}

/// Makes sure that a development host has its one account, with this plan, and a file with a token of it. The token stays the same from start to start;
/// one that this database does not know, because another one was put beside it, is replaced.
pub(super) async fn dev_token(control: &Control, data: &Path, plan: Plan) -> Result<PathBuf, StartError> {
    let path = data.join(DEV.file);
    let known = |text: String| control.tokens().caller(text.trim(), control.now_ms(), String::new()).is_ok();
    if !std::fs::read_to_string(&path).is_ok_and(known) {
        make(control, &path, Keeper { plan, ..DEV }).await?;
    }
    let account = control.read(|conn| Ok(accounts::list(conn)?.into_iter().next())).await.map_err(OpenError::from)?;
    if let Some(account) = account.filter(|account| account.plan != plan) {
        control.write(move |conn| Ok(accounts::set_plan(conn, account.id, plan)?)).await.map_err(OpenError::from)?;
    }
    Ok(path)
}

async fn make(control: &Control, path: &Path, keeper: Keeper) -> Result<(), StartError> {
    let (now, tokens) = (control.now_ms(), control.tokens().clone());
    let made = control.write(move |conn| {
        let account = match accounts::list(conn)?.into_iter().next() {
            Some(account) => account,
            None => accounts::create(conn, keeper.handle, keeper.display_name, keeper.plan, now)?
                .ok_or_else(|| Refusal::internal("the handle of the first account is taken"))?,
        };
        let mut ended = Vec::new();
        for token in accounts::tokens(conn, account.id)?.iter().filter(|token| token.name == keeper.name) {
            ended.extend(accounts::revoke_token(conn, account.id, token.id)?);
        }
        let (_, text) = tokens.create(conn, account.id, keeper.name, keeper.scope, now, None)?;
        Ok((text, ended))
    });
    let (text, ended) = made.await.map_err(OpenError::from)?;
    write_private(path, format!("{text}\n").as_bytes()).map_err(|source| StartError::Data { path: path.to_owned(), source })?;
    for digest in ended {
        control.tokens().remove(&digest);
    }
    Ok(())
}
