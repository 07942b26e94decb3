-- What a service has of each kind of data, by name. Numbers are counted for each kind, because ids are `<kind>_<number>`, and never given out twice.
create table resources (
    kind text not null,
    number integer not null,
    service_id integer not null references services (id) on delete cascade,
    name text not null,
    suffix text not null,
    created_ms integer not null,
    primary key (kind, number),
    unique (service_id, kind, name),
    unique (service_id, kind, suffix)
) without rowid;
create table resource_numbers (kind text primary key, last integer not null) without rowid;

-- Data that nothing names any more. A row goes when the data has gone, so that what is left is found again after a start. Objects belong to a service
-- as a whole and go by its number.
create table removals (kind text not null, number integer not null, primary key (kind, number)) without rowid;
create trigger resource_removed after delete on resources begin
    insert or ignore into removals (kind, number) values (old.kind, old.number);
end;
create trigger service_removed after delete on services begin
    insert or ignore into removals (kind, number) values ('objects', old.id);
end;
