create table entries (
    id integer primary key,
    name text not null check (length(name) between 1 and 100),
    body text not null check (length(body) between 1 and 2000),
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%SZ'))
) strict;
