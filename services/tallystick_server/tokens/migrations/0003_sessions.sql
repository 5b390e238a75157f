-- The dashboard's sessions, links that sign in once, and what its pages show of tokens.

-- Only the digest of what the browser holds. A session is worth what its token is at that moment.
create table session (
    digest bytea primary key check (octet_length(digest) = 32),
    token text not null references token (id),
    created timestamptz not null default now(),
    expires timestamptz not null
);
create index session_by_token on session (token, created desc);

create table sign_in_link (
    digest bytea primary key check (octet_length(digest) = 32),
    token text not null references token (id),
    expires timestamptz not null
);

-- How often a token was used in each hour (UTC) of a day; 24 numbers, so that a busy token takes few rows.
create table use_by_day (
    token text not null,
    day date not null,
    hours bigint[] not null,
    primary key (token, day)
);
create index use_by_age on use_by_day (day);

create index token_by_successor on token (rotated_to) where rotated_to is not null;
create index refusal_by_request on refusal (request_id);
