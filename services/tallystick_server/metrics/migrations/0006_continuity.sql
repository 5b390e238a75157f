-- What tells whether the stream still is the one that was counted so far, and who may count it.
alter table stream_position
    -- SHA-256 of the last counted message, its sequence, which differs from seq where a former version counted on, and
    -- when the stream stored it, which is the latest moment by its clock.
    add column digest bytea,
    add column digest_seq bigint,
    add column stored timestamptz,
    -- Why nobody counts until an operator decides, and since when.
    add column refusal text,
    add column refused timestamptz,
    -- The operator's decision: count the stream that is there from its first message.
    add column start_over boolean not null default false,
    -- After that: up to here the stream may lack messages,
    add column holes_until bigint not null default 0,
    -- and unnumbered events stored up to this moment had been counted before.
    add column bare_until timestamptz;

-- What time it is by the stream's clock, which what the stream stored is compared with: the database's clock may show
-- another time.
create function stream_time() returns timestamptz language sql stable as
    'select coalesce(max(stored), now()) from stream_position';
