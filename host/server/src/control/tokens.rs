//! Tokens in memory, by digest: what the database says, so that a request needs no query to be let in. Those of running workers are here alone: they
//! are derived when a deploy goes live and end with it.

use std::sync::{Arc, Weak};

use dashmap::DashMap;
use rusqlite::Connection;
use tovuk_kernel::codes;
use tovuk_kernel::ids::{AccountId, ServiceId};
use tovuk_resources::database::Database;
use tovuk_resources::state::Holds;
use tovuk_runtime::service::Deployment;

use super::caller::{Caller, Credential, Scope};
use super::refusal::Refusal;
use super::store::accounts;
use super::vault::token_digest;

type Digest = [u8; 32];

/// What tokens begin with.
pub const TOKEN_PREFIX: &str = "tovuk_";
/// What tokens of running workers begin with.
pub const RUNTIME_TOKEN_PREFIX: &str = "tovuk_runtime_";

/// The tokens of a host.
#[derive(Clone, Default)]
pub(crate) struct Tokens(Arc<Tables>);

#[derive(Default)]
struct Tables {
    people: DashMap<Digest, Entry>,
    workers: DashMap<Digest, WorkerEntry>,
    suspended: DashMap<i64, ()>,
}

#[derive(Clone)]
struct Entry {
    id: i64,
    account: i64,
    scope: Scope,
    expires_ms: Option<i64>,
}

struct WorkerEntry {
    service: ServiceId,
    account: AccountId,
    /// While it is live, or requests run on it that began when it was.
    deployment: Weak<Deployment>,
}

impl Tokens {
    /// What the database has.
    pub async fn load(db: &Database) -> Result<Self, Refusal> {
        db.read(|conn| {
            let tokens = Self::default();
            for (digest, token) in accounts::all_tokens(conn)? {
                tokens.insert(&digest, &token);
            }
            for account in accounts::list(conn)?.iter().filter(|account| account.suspended) {
                tokens.set_suspended(account.id, true);
            }
            Ok(tokens)
        })
        .await
    }

    fn insert(&self, digest: &[u8], token: &accounts::Token) {
        if let Ok(digest) = Digest::try_from(digest) {
            let entry = Entry { id: token.id, account: token.account_id, scope: token.scope, expires_ms: token.expires_ms };
            self.0.people.insert(digest, entry);
        }
    }

    /// Makes a token of an account and stores it: its row and its text, which is shown once.
    ///
    /// It is known here before its row is committed, which nobody can make use of who has not got its text; so no account can be deleted
    /// between the two and leave a token behind.
    pub fn create(
        &self,
        conn: &Connection,
        account: i64,
        name: &str,
        scope: Scope,
        now_ms: i64,
        expires_ms: Option<i64>,
    ) -> Result<(accounts::Token, String), Refusal> {
        let text = super::vault::new_token(TOKEN_PREFIX).map_err(Refusal::internal)?;
        let digest = token_digest(&text);
        let token = accounts::add_token(conn, account, name, scope, &digest, now_ms, expires_ms)?;
        self.insert(&digest, &token);
        Ok((token, text))
    }

    /// Whether a caller that was let in before still would be.
    pub fn is_valid(&self, caller: &Caller, now_ms: i64) -> bool {
        let is_open = |entry: &Entry, wanted: i64| entry.id == wanted && entry.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms);
        let is_suspended = self.is_suspended(caller.account_number()) && !caller.is_operator();
        match &caller.credential {
            Credential::Token { id, .. } => !is_suspended && self.0.people.iter().any(|entry| is_open(&entry, *id)),
            Credential::Worker(_) => !is_suspended,
            Credential::Anonymous(_) => true,
        }
    }

    /// Forgets a token that was removed.
    pub fn remove(&self, digest: &[u8]) {
        if let Ok(digest) = Digest::try_from(digest) {
            self.0.people.remove(&digest);
        }
    }

    /// Forgets all tokens of an account that was removed.
    pub fn remove_account(&self, account: i64) {
        self.0.people.retain(|_, entry| entry.account != account);
        self.0.suspended.remove(&account);
    }

    /// Closes an account, or opens it.
    pub fn set_suspended(&self, account: i64, suspended: bool) {
        match suspended {
            true => drop(self.0.suspended.insert(account, ())),
            false => drop(self.0.suspended.remove(&account)),
        }
    }

    /// Whether an account is closed.
    pub fn is_suspended(&self, account: i64) -> bool {
        self.0.suspended.contains_key(&account)
    }

    /// Adds the token of a worker, for as long as its deployment lives.
    pub fn insert_worker(&self, token: &str, service: ServiceId, account: AccountId, deployment: &Arc<Deployment>) {
        self.0.workers.retain(|_, entry| entry.deployment.strong_count() > 0);
        self.0.workers.insert(token_digest(token), WorkerEntry { service, account, deployment: Arc::downgrade(deployment) });
    }

    /// Whom a token stands for.
    pub fn caller(&self, token: &str, now_ms: i64, request_id: String) -> Result<Caller, Refusal> {
        let unknown = || Refusal::new(&codes::UNAUTHORIZED, "the token is not valid: it was revoked, has ended, or was never one of this host");
        let digest = token_digest(token);
        if token.starts_with(RUNTIME_TOKEN_PREFIX) {
            let entry = self.0.workers.get(&digest).ok_or_else(unknown)?;
            if entry.deployment.strong_count() == 0 {
                return Err(unknown());
            }
            let caller =
                Caller { account: entry.account.clone(), credential: Credential::Worker(entry.service.clone()), request_id, holds: Holds::default() };
            return self.unless_suspended(caller);
        }
        let entry = self.0.people.get(&digest).map(|entry| entry.clone()).ok_or_else(unknown)?;
        if entry.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms) {
            return Err(unknown());
        }
        let credential = Credential::Token { id: entry.id, scope: entry.scope };
        self.unless_suspended(Caller { account: format!("account_{}", entry.account).into(), credential, request_id, holds: Holds::default() })
    }

    fn unless_suspended(&self, caller: Caller) -> Result<Caller, Refusal> {
        if self.is_suspended(caller.account_number()) && !caller.is_operator() {
            return Err(Refusal::new(&codes::ACCOUNT_SUSPENDED, "the operator of this host has suspended the account"));
        }
        Ok(caller)
    }
}
