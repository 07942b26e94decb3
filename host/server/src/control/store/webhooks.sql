-- Where an account is told that a usage cap fills up. What signs the calls is derived from the host's key and is not stored.
create table webhooks (
    account_id integer primary key references accounts (id) on delete cascade,
    url text not null,
    -- Counts settings, so that each has a secret of its own.
    version integer not null
);
