-- A second count of the same stream, some way behind the first and by itself, to compare the stored counters with.

create table recount (
    stream text primary key,
    -- Which stream, as in stream_position.
    created timestamptz not null,
    seq bigint not null,
    -- How many messages it has read, ever.
    messages bigint not null default 0,
    -- By how much the counters were off when both were last at the same place, and when that was.
    difference bigint,
    compared timestamptz
);

create table recount_source (
    source text not null,
    boot text not null,
    n bigint not null,
    primary key (source, boot)
);

create table recount_counter (
    name text not null,
    labels text not null,
    value bigint not null check (value >= 0),
    primary key (name, labels)
);
