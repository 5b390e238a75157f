-- Where in the stream the counters stand, what each source has sent, and the counters.

create table stream_position (
    stream text primary key,
    -- Tells a stream from another of the same name: after a loss its numbers begin again.
    created timestamptz not null,
    seq bigint not null
);

create table event_source (
    source text not null,
    boot text not null,
    n bigint not null,
    seen timestamptz not null default now(),
    primary key (source, boot)
);

create table counter (
    name text not null,
    -- Prometheus labels as they are printed, such as state="connected"; empty for none.
    labels text not null,
    value bigint not null check (value >= 0),
    primary key (name, labels)
);

-- The same events again by minute, for "how many in the last hour".
create table recent_count (
    minute timestamptz not null,
    name text not null,
    value bigint not null,
    primary key (minute, name)
);

create table thread (
    thread text primary key,
    type text not null,
    seen timestamptz not null,
    -- Set when it stopped or its heartbeats ended; the row stays a while, so that a late word about it is known.
    ended timestamptz
);

create table account (
    account text primary key,
    state text not null
);

create table dead_letter (
    stream text not null,
    seq bigint not null,
    subject text not null,
    payload bytea not null,
    reason text not null,
    at timestamptz not null default now(),
    primary key (stream, seq)
);
