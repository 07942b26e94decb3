-- The words of all entries, kept in step by triggers.
create virtual table words using fts5(name, body, content = 'entries', content_rowid = 'id');

create trigger entry_written after insert on entries begin
    insert into words (rowid, name, body) values (new.id, new.name, new.body);
end;

create trigger entry_deleted after delete on entries begin
    insert into words (words, rowid, name, body) values ('delete', old.id, old.name, old.body);
end;
