-- Tokens, accounts, who changed what, and what is still to be announced.

create table token (
    id text primary key,
    digest bytea not null unique check (octet_length(digest) = 32),
    hint text not null,
    description text not null,
    scopes text[] not null check (cardinality(scopes) > 0),
    account text,
    metadata jsonb,
    restrictions jsonb not null,
    not_before timestamptz,
    expires timestamptz,
    disabled boolean not null default false,
    created timestamptz not null default now(),
    created_by text not null,
    rotated_to text references token (id),
    revoked timestamptz,
    -- Rises with every change, so that whoever keeps a copy can tell the newer.
    rev bigint not null default 1,
    -- Tokens that share one rate limit: a token, what it was rotated to, and what it made while limited itself.
    family text not null,
    uses bigint not null default 0,
    last_used timestamptz,
    last_ip text
);
-- The list is shown newest first; ids sort by time of creation.
create index token_by_account on token (account, id desc) where revoked is null;

-- How much of its limit a family has used up in its current window.
create table rate_window (
    family text primary key,
    starts bigint not null, -- seconds since the epoch
    used bigint not null
);

create table account (
    account text primary key,
    name text not null,
    created timestamptz not null default now()
);

create table audit (
    id bigint generated always as identity primary key,
    token text references token (id),
    at timestamptz not null default now(),
    action text not null,
    actor text not null,
    actor_token text,
    address text,
    request_id text,
    details jsonb
);
create index audit_by_token on audit (token, id desc);

-- Recent refusals by token; only the newest of each are kept.
create table refusal (
    id bigint generated always as identity primary key,
    token text not null,
    at timestamptz not null,
    reason text not null,
    address text,
    route text not null,
    request_id text
);
create index refusal_by_token on refusal (token, id desc);

-- What was answered to a change that named an Idempotency-Key, for a day.
create table idempotency (
    actor text not null,
    operation text not null,
    key text not null,
    request bytea not null,
    reply jsonb,
    at timestamptz not null default now(),
    primary key (actor, operation, key)
);
create index idempotency_by_age on idempotency (at);

-- What is to be announced on NATS, written in the transaction of the change it announces. The number comes from
-- a row that stays locked until commit, so numbers follow commit order and have no holes; an identity column has
-- both faults.
create table outbox_number (
    only_row boolean primary key default true check (only_row),
    boot text not null,
    n bigint not null
);
insert into outbox_number (boot, n) values ('outbox_' || replace(gen_random_uuid()::text, '-', ''), 0);

create table outbox (
    n bigint primary key,
    type text not null,
    at timestamptz not null,
    data jsonb not null
);
