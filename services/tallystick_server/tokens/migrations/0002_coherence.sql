-- What lets every edge keep a cache that is never wrong: the changes in order, and who relies on a cache now.

-- The number of the latest change. The row stays locked until commit, so numbers follow commit order and have no
-- holes; a hole would hide a change, and an identity column has both faults.
create table change_number (
    only_row boolean primary key default true check (only_row),
    seq bigint not null
);
insert into change_number (seq) values (0);

create table change (
    seq bigint primary key,
    digest bytea not null,
    rev bigint not null
);

-- Edges that may rely on their caches. No times: a lease that was not renewed for as long as it lasts, by the
-- clock of the replica that watches it, is over.
create sequence grant_number;
create table lease (
    edge text primary key,
    granted bigint not null, -- from the sequence, so that no grant is taken for another, not even an ended one
    seconds float8 not null, -- how long it lasts
    seq bigint not null -- up to which change the edge had acknowledged then
);

-- Of the requests a window has used up, how many were handed out last.
alter table rate_window add column latest bigint not null default 0;
