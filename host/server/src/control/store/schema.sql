-- Accounts, what they own, and what has happened. Ids in the API are `<kind>_<number>`; numbers are never given out twice.
create table meta (key text primary key, value blob not null) without rowid;

create table accounts (
    id integer primary key autoincrement,
    handle text not null unique,
    display_name text not null,
    plan text not null,
    suspended integer not null default 0,
    created_ms integer not null
);

-- Only digests are kept.
create table tokens (
    id integer primary key autoincrement,
    account_id integer not null references accounts (id) on delete cascade,
    name text not null,
    scope text not null,
    digest blob not null unique,
    created_ms integer not null,
    expires_ms integer
);
create index tokens_by_account on tokens (account_id);

create table services (
    id integer primary key autoincrement,
    account_id integer not null references accounts (id) on delete cascade,
    name text not null,
    slug text not null unique,
    kind text not null,
    capabilities text not null,
    live_deploy_id integer,
    created_ms integer not null,
    unique (account_id, name)
);

-- `config` is the service's table of the project file as JSON. `artifact` and `assets` name what a build has left, by content.
create table deploys (
    id integer primary key autoincrement,
    service_id integer not null references services (id) on delete cascade,
    status text not null,
    source text not null,
    upload text,
    commit_sha text,
    config text not null,
    artifact text,
    assets text,
    component_bytes integer,
    powers text not null default '[]',
    new_powers text not null default '[]',
    message text not null default '',
    rollback_of integer,
    token_nonce blob not null,
    created_ms integer not null,
    promoted_ms integer,
    ended_ms integer
);
create index deploys_by_service on deploys (service_id, id);

create table builds (
    id integer primary key autoincrement,
    deploy_id integer not null unique references deploys (id) on delete cascade,
    status text not null,
    message text not null default '',
    attempts integer not null default 0,
    created_ms integer not null,
    started_ms integer,
    ended_ms integer
);
create index builds_open on builds (id) where status in ('queued', 'running');

create table env (
    service_id integer not null references services (id) on delete cascade,
    name text not null,
    sealed blob not null,
    created_ms integer not null,
    updated_ms integer not null,
    primary key (service_id, name)
) without rowid;

create table bindings (
    service_id integer not null references services (id) on delete cascade,
    name text not null,
    suffix text not null,
    target_id integer not null references services (id) on delete cascade,
    url_env text,
    created_ms integer not null,
    primary key (service_id, name),
    unique (service_id, suffix)
) without rowid;
create index bindings_by_target on bindings (target_id);

create table domains (
    id integer primary key autoincrement,
    service_id integer not null references services (id) on delete cascade,
    hostname text not null,
    verified_ms integer,
    checked_ms integer,
    problem text,
    created_ms integer not null,
    unique (service_id, hostname)
);
-- A claim reserves nothing; a verified one is exclusive.
create unique index domains_verified on domains (hostname) where verified_ms is not null;

create table activity (
    id integer primary key autoincrement,
    account_id integer not null references accounts (id) on delete cascade,
    at_ms integer not null,
    action text not null,
    service_id integer,
    subject text not null,
    token_id integer
);
create index activity_by_account on activity (account_id, id);

create table logins (
    device_digest blob primary key,
    user_code text not null unique,
    sealed_token blob,
    handle text,
    -- The network that began it, so that one cannot begin them all.
    client text not null,
    expires_ms integer not null
) without rowid;
