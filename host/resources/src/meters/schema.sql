-- What each service has used of each counter, by UTC day (days since 1970-01-01). A service that is gone is still on its account's bill.
create table days (
    account integer not null,
    service integer not null,
    day integer not null,
    meter text not null,
    used integer not null,
    primary key (account, service, day, meter)
) without rowid;
create index days_by_day on days (day);
-- Caps of accounts (service 0) and of services. What of one may be used without asking the disk again is leased: after a death of the process it counts
-- as used. `window` is the day, or the month since 1970-01, that leased and notified belong to.
create table caps (
    account integer not null,
    service integer not null,
    meter text not null,
    period text not null,
    cap integer not null,
    notify_at_percent integer not null,
    window integer not null,
    leased integer not null,
    notified integer not null,
    primary key (account, service, meter, period)
) without rowid;
-- Notifications that somebody has still to be told of.
create table notices (
    id integer primary key autoincrement,
    account integer not null,
    service integer not null,
    meter text not null,
    period text not null,
    window integer not null,
    used integer not null,
    cap integer not null,
    at_percent integer not null,
    -- Whether it stands in the account's activity.
    written integer not null default 0
);
