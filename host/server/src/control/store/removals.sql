-- Some stores keep what one service has together, so they have to be told whose data it was.
alter table removals add column service integer not null default 0;
drop trigger resource_removed;
create trigger resource_removed after delete on resources begin
    insert or ignore into removals (kind, number, service) values (old.kind, old.number, old.service_id);
end;
drop trigger service_removed;
create trigger service_removed after delete on services begin
    insert or ignore into removals (kind, number, service) values ('objects', old.id, old.id);
end;
