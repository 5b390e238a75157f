-- What the processes' gauges show, each process by its source and boot.
create table gauge (
    source text not null,
    boot text not null,
    name text not null,
    labels text not null,
    value float8 not null,
    at timestamptz not null default now(),
    primary key (source, boot, name, labels)
);

alter table thread add column started timestamptz;
