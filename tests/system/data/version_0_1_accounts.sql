--
-- PostgreSQL database dump
--

\restrict VmYSfN18J6e55qUNtVjQp9ucwBXo9hra5NqxIC0WJb2eHnAn8vKmSAkyPjdsWBY

-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: metrics; Type: SCHEMA; Schema: -; Owner: metrics
--

CREATE SCHEMA metrics;


ALTER SCHEMA metrics OWNER TO metrics;

--
-- Name: tokens; Type: SCHEMA; Schema: -; Owner: tokens
--

CREATE SCHEMA tokens;


ALTER SCHEMA tokens OWNER TO tokens;

--
-- Name: stream_time(); Type: FUNCTION; Schema: metrics; Owner: metrics
--

CREATE FUNCTION metrics.stream_time() RETURNS timestamp with time zone
    LANGUAGE sql STABLE
    AS $$select coalesce(max(stored), now()) from stream_position$$;


ALTER FUNCTION metrics.stream_time() OWNER TO metrics;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: quota_holder; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.quota_holder (
    family text NOT NULL,
    holder text NOT NULL,
    take bigint NOT NULL,
    seconds integer NOT NULL,
    starts bigint NOT NULL,
    granted bigint NOT NULL,
    allowed bigint NOT NULL,
    remaining bigint NOT NULL,
    closed boolean NOT NULL,
    returned bigint NOT NULL
)
WITH (fillfactor='70');


ALTER TABLE tokens.quota_holder OWNER TO tokens;

--
-- Name: close_take(tokens.quota_holder, bigint); Type: FUNCTION; Schema: tokens; Owner: tokens
--

CREATE FUNCTION tokens.close_take(held tokens.quota_holder, unspent bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    counted bigint := least(unspent, held.granted);
begin
    update rate_window set used = greatest(0, used - counted)
        where family = held.family and seconds = held.seconds and starts = held.starts
            and clock_timestamp() < to_timestamp(held.starts + held.seconds);
    if not found then
        counted := 0;
    end if;
    update quota_holder set closed = true, returned = counted where family = held.family and holder = held.holder;
    return counted;
end
$$;


ALTER FUNCTION tokens.close_take(held tokens.quota_holder, unspent bigint) OWNER TO tokens;

--
-- Name: lock_rate_windows(text, integer, integer); Type: FUNCTION; Schema: tokens; Owner: tokens
--

CREATE FUNCTION tokens.lock_rate_windows(in_family text, length integer, other integer) RETURNS void
    LANGUAGE sql
    AS $$
    select from rate_window where family = in_family and seconds in (length, other) order by seconds for update;
$$;


ALTER FUNCTION tokens.lock_rate_windows(in_family text, length integer, other integer) OWNER TO tokens;

--
-- Name: reject_audit_change(); Type: FUNCTION; Schema: tokens; Owner: tokens
--

CREATE FUNCTION tokens.reject_audit_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception 'the table audit is append-only'
        using errcode = 'insufficient_privilege', hint = 'see docs/security-model.md';
end
$$;


ALTER FUNCTION tokens.reject_audit_change() OWNER TO tokens;

--
-- Name: return_quota(text, text, bigint, integer, bigint, bigint); Type: FUNCTION; Schema: tokens; Owner: tokens
--

CREATE FUNCTION tokens.return_quota(in_family text, in_holder text, in_take bigint, length integer, in_starts bigint, unspent bigint) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
declare
    held quota_holder;
begin
    perform lock_rate_windows(in_family, length, length);
    select * into held from quota_holder where family = in_family and holder = in_holder;
    if not found or (held.seconds, held.starts) is distinct from (length, in_starts) then
        return 0;
    end if;
    if held.take = in_take and not held.closed then
        return close_take(held, unspent);
    end if;
    -- It was counted before, by this call or by the take that followed.
    return case when held.take = in_take or held.take = in_take + 1 then held.returned else 0 end;
end
$$;


ALTER FUNCTION tokens.return_quota(in_family text, in_holder text, in_take bigint, length integer, in_starts bigint, unspent bigint) OWNER TO tokens;

--
-- Name: take_quota(text, bigint, bigint, bigint, text, bigint, bigint, double precision, boolean); Type: FUNCTION; Schema: tokens; Owner: tokens
--

CREATE FUNCTION tokens.take_quota(token_id text, wanted bigint, waiting bigint, sharing bigint, in_holder text, in_take bigint, unspent bigint, recall_s double precision, may_wait boolean, OUT family text, OUT granted bigint, OUT allowed bigint, OUT remaining bigint, OUT seconds integer, OUT starts bigint, OUT resets_in double precision, OUT returned bigint, OUT recalls boolean, OUT wait_s double precision) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    held quota_holder;
    current rate_window;
    length integer;
    moment float8;
    unused bigint;
    is_recalled boolean;
begin
    returned := 0;
    recalls := false;
    wait_s := 0;
    loop
        select token.family, (restrictions #>> '{rateLimit,timeWindow}')::integer
            into take_quota.family, length from token where token.id = token_id and revoked is null;
        if length is null then
            return;
        end if;
        insert into rate_window (family, seconds, starts, used) values (take_quota.family, length, 0, 0)
            on conflict do nothing;
        select * into held from quota_holder where quota_holder.family = take_quota.family and holder = in_holder;
        perform lock_rate_windows(take_quota.family, length, coalesce(held.seconds, length));
        -- The limit counts as it is now that the window is locked: every take after an edit's commit obeys the edit.
        select (restrictions #>> '{rateLimit,timeWindow}')::integer,
            (restrictions #>> '{rateLimit,maxRequests}')::bigint
            into take_quota.seconds, take_quota.allowed from token where token.id = token_id and revoked is null;
        if take_quota.seconds is null then
            return;
        end if;
        exit when take_quota.seconds = length;
    end loop;
    -- Read again, as it is since the window was locked.
    select * into held from quota_holder where quota_holder.family = take_quota.family and holder = in_holder;
    moment := extract(epoch from clock_timestamp());
    if held.take >= in_take then
        -- It was answered before. A number below the latest one is a late copy that nobody waits for.
        granted := case when held.take = in_take then held.granted else 0 end;
        allowed := held.allowed;
        remaining := held.remaining;
        seconds := held.seconds;
        starts := held.starts;
        returned := held.returned;
        resets_in := greatest(0, held.starts + held.seconds - moment);
        return;
    end if;
    if held.take is not null then
        if held.closed then
            returned := held.returned;
        else
            returned := close_take(held, case when held.take = in_take - 1 then unspent else 0 end);
        end if;
    end if;
    select * into current from rate_window where rate_window.family = take_quota.family and seconds = length;
    -- Should PostgreSQL's clock be set back, requests go on counting against the later window.
    starts := greatest(current.starts, floor(moment / length)::bigint * length);
    if starts > current.starts then
        current.used := 0;
    end if;
    resets_in := starts + length - moment;
    unused := greatest(0, allowed - current.used);
    is_recalled := current.recalled = starts and current.recalled_limit >= allowed;
    if unused = 0 and may_wait and exists (
        select from quota_holder where quota_holder.family = take_quota.family and seconds = length
            and quota_holder.starts = take_quota.starts and not closed
    ) then
        if not is_recalled then
            recalls := true;
            current.recall_ends := clock_timestamp() + make_interval(secs => recall_s);
            update rate_window set starts = take_quota.starts, used = current.used, recalled = take_quota.starts,
                recalled_limit = allowed, recall_ends = current.recall_ends
                where rate_window.family = take_quota.family and seconds = length;
        end if;
        wait_s := greatest(0, extract(epoch from current.recall_ends - clock_timestamp()));
        if wait_s > 0 then
            granted := 0;
            remaining := 0;
            return;
        end if;
    end if;
    -- An edge gets no more than half its share of what is left, so that little lies unspent elsewhere when the limit is
    -- reached; after a recall only what requests wait for.
    granted := least(unused, greatest(
        waiting, case when is_recalled then 0 else least(wanted, unused / (2 * greatest(1, sharing))) end
    ));
    remaining := unused - granted;
    update rate_window set starts = take_quota.starts, used = current.used + take_quota.granted, latest = take_quota.granted
        where rate_window.family = take_quota.family and seconds = length;
    if in_holder is not null then
        insert into quota_holder values (
            take_quota.family, in_holder, in_take, length, take_quota.starts, take_quota.granted, allowed,
            take_quota.remaining, take_quota.granted = 0, take_quota.returned
        ) on conflict (family, holder) do update set
            take = excluded.take, seconds = excluded.seconds, starts = excluded.starts, granted = excluded.granted,
            allowed = excluded.allowed, remaining = excluded.remaining, closed = excluded.closed,
            returned = excluded.returned;
    end if;
end
$$;


ALTER FUNCTION tokens.take_quota(token_id text, wanted bigint, waiting bigint, sharing bigint, in_holder text, in_take bigint, unspent bigint, recall_s double precision, may_wait boolean, OUT family text, OUT granted bigint, OUT allowed bigint, OUT remaining bigint, OUT seconds integer, OUT starts bigint, OUT resets_in double precision, OUT returned bigint, OUT recalls boolean, OUT wait_s double precision) OWNER TO tokens;

--
-- Name: account; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.account (
    account text NOT NULL,
    state text NOT NULL
);


ALTER TABLE metrics.account OWNER TO metrics;

--
-- Name: counter; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.counter (
    name text NOT NULL,
    labels text NOT NULL,
    value bigint NOT NULL,
    CONSTRAINT counter_value_check CHECK ((value >= 0))
);


ALTER TABLE metrics.counter OWNER TO metrics;

--
-- Name: dead_letter; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.dead_letter (
    stream text NOT NULL,
    seq bigint NOT NULL,
    subject text NOT NULL,
    payload bytea NOT NULL,
    reason text NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE metrics.dead_letter OWNER TO metrics;

--
-- Name: event_source; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.event_source (
    source text NOT NULL,
    boot text NOT NULL,
    n bigint NOT NULL,
    seen timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE metrics.event_source OWNER TO metrics;

--
-- Name: gauge; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.gauge (
    source text NOT NULL,
    boot text NOT NULL,
    name text NOT NULL,
    labels text NOT NULL,
    value double precision NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE metrics.gauge OWNER TO metrics;

--
-- Name: migration; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.migration (
    number integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE metrics.migration OWNER TO metrics;

--
-- Name: recent_count; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.recent_count (
    minute timestamp with time zone NOT NULL,
    name text NOT NULL,
    value bigint NOT NULL
);


ALTER TABLE metrics.recent_count OWNER TO metrics;

--
-- Name: recount; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.recount (
    stream text NOT NULL,
    created timestamp with time zone NOT NULL,
    seq bigint NOT NULL,
    messages bigint DEFAULT 0 NOT NULL,
    difference bigint,
    compared timestamp with time zone
);


ALTER TABLE metrics.recount OWNER TO metrics;

--
-- Name: recount_counter; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.recount_counter (
    name text NOT NULL,
    labels text NOT NULL,
    value bigint NOT NULL,
    CONSTRAINT recount_counter_value_check CHECK ((value >= 0))
);


ALTER TABLE metrics.recount_counter OWNER TO metrics;

--
-- Name: recount_source; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.recount_source (
    source text NOT NULL,
    boot text NOT NULL,
    n bigint NOT NULL
);


ALTER TABLE metrics.recount_source OWNER TO metrics;

--
-- Name: stream_position; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.stream_position (
    stream text NOT NULL,
    created timestamp with time zone NOT NULL,
    seq bigint NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    seen timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    digest bytea,
    digest_seq bigint,
    stored timestamp with time zone,
    refusal text,
    refused timestamp with time zone,
    start_over boolean DEFAULT false NOT NULL,
    holes_until bigint DEFAULT 0 NOT NULL,
    bare_until timestamp with time zone
);


ALTER TABLE metrics.stream_position OWNER TO metrics;

--
-- Name: thread; Type: TABLE; Schema: metrics; Owner: metrics
--

CREATE TABLE metrics.thread (
    thread text NOT NULL,
    type text NOT NULL,
    seen timestamp with time zone NOT NULL,
    ended timestamp with time zone,
    started timestamp with time zone
);


ALTER TABLE metrics.thread OWNER TO metrics;

--
-- Name: account; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.account (
    account text NOT NULL,
    name text NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE tokens.account OWNER TO tokens;

--
-- Name: audit; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.audit (
    id bigint NOT NULL,
    token text,
    at timestamp with time zone DEFAULT now() NOT NULL,
    action text NOT NULL,
    actor text NOT NULL,
    actor_token text,
    address text,
    request_id text,
    details jsonb,
    rejected boolean DEFAULT false NOT NULL
);


ALTER TABLE tokens.audit OWNER TO tokens;

--
-- Name: audit_id_seq; Type: SEQUENCE; Schema: tokens; Owner: tokens
--

ALTER TABLE tokens.audit ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tokens.audit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: change; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.change (
    seq bigint NOT NULL,
    digest bytea NOT NULL,
    rev bigint NOT NULL
);


ALTER TABLE tokens.change OWNER TO tokens;

--
-- Name: change_number; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.change_number (
    only_row boolean DEFAULT true NOT NULL,
    seq bigint NOT NULL,
    CONSTRAINT change_number_only_row_check CHECK (only_row)
);


ALTER TABLE tokens.change_number OWNER TO tokens;

--
-- Name: disable_number; Type: SEQUENCE; Schema: tokens; Owner: tokens
--

CREATE SEQUENCE tokens.disable_number
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER SEQUENCE tokens.disable_number OWNER TO tokens;

--
-- Name: grant_number; Type: SEQUENCE; Schema: tokens; Owner: tokens
--

CREATE SEQUENCE tokens.grant_number
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER SEQUENCE tokens.grant_number OWNER TO tokens;

--
-- Name: idempotency; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.idempotency (
    actor text NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    request bytea NOT NULL,
    reply jsonb,
    at timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE tokens.idempotency OWNER TO tokens;

--
-- Name: lease; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.lease (
    edge text NOT NULL,
    granted bigint NOT NULL,
    seconds double precision NOT NULL,
    seq bigint NOT NULL
);


ALTER TABLE tokens.lease OWNER TO tokens;

--
-- Name: migration; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.migration (
    number integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied timestamp with time zone DEFAULT now() NOT NULL
);


ALTER TABLE tokens.migration OWNER TO tokens;

--
-- Name: outbox; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.outbox (
    n bigint NOT NULL,
    type text NOT NULL,
    at timestamp with time zone NOT NULL,
    data jsonb NOT NULL
);


ALTER TABLE tokens.outbox OWNER TO tokens;

--
-- Name: outbox_number; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.outbox_number (
    only_row boolean DEFAULT true NOT NULL,
    boot text NOT NULL,
    n bigint NOT NULL,
    CONSTRAINT outbox_number_only_row_check CHECK (only_row)
);


ALTER TABLE tokens.outbox_number OWNER TO tokens;

--
-- Name: rate_window; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.rate_window (
    family text NOT NULL,
    starts bigint NOT NULL,
    used bigint NOT NULL,
    latest bigint DEFAULT 0 NOT NULL,
    seconds integer NOT NULL,
    recalled bigint DEFAULT 0 NOT NULL,
    recalled_limit bigint DEFAULT 0 NOT NULL,
    recall_ends timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
);


ALTER TABLE tokens.rate_window OWNER TO tokens;

--
-- Name: refusal; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.refusal (
    id bigint NOT NULL,
    token text NOT NULL,
    at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    address text,
    route text NOT NULL,
    request_id text
);


ALTER TABLE tokens.refusal OWNER TO tokens;

--
-- Name: refusal_id_seq; Type: SEQUENCE; Schema: tokens; Owner: tokens
--

ALTER TABLE tokens.refusal ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME tokens.refusal_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: session; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.session (
    digest bytea NOT NULL,
    token text NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    expires timestamp with time zone NOT NULL,
    CONSTRAINT session_digest_check CHECK ((octet_length(digest) = 32))
);


ALTER TABLE tokens.session OWNER TO tokens;

--
-- Name: sign_in_link; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.sign_in_link (
    digest bytea NOT NULL,
    token text NOT NULL,
    expires timestamp with time zone NOT NULL,
    CONSTRAINT sign_in_link_digest_check CHECK ((octet_length(digest) = 32))
);


ALTER TABLE tokens.sign_in_link OWNER TO tokens;

--
-- Name: token; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.token (
    id text NOT NULL,
    digest bytea NOT NULL,
    hint text NOT NULL,
    description text NOT NULL,
    scopes text[] NOT NULL,
    account text,
    metadata jsonb,
    restrictions jsonb NOT NULL,
    not_before timestamp with time zone,
    expires timestamp with time zone,
    disabled boolean DEFAULT false NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    rotated_to text,
    revoked timestamp with time zone,
    rev bigint DEFAULT 1 NOT NULL,
    family text NOT NULL,
    uses bigint DEFAULT 0 NOT NULL,
    last_used timestamp with time zone,
    last_ip text,
    chain text NOT NULL,
    rotated_by text,
    imported boolean DEFAULT false NOT NULL,
    disabled_with bigint,
    revoked_by text,
    CONSTRAINT token_digest_check CHECK ((octet_length(digest) = 32)),
    CONSTRAINT token_scopes_check CHECK ((cardinality(scopes) > 0))
);


ALTER TABLE tokens.token OWNER TO tokens;

--
-- Name: use_by_day; Type: TABLE; Schema: tokens; Owner: tokens
--

CREATE TABLE tokens.use_by_day (
    token text NOT NULL,
    day date NOT NULL,
    hours bigint[] NOT NULL
);


ALTER TABLE tokens.use_by_day OWNER TO tokens;

--
-- Data for Name: account; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.account VALUES ('alice', 'init');


--
-- Data for Name: counter; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.counter VALUES ('thread_starts', '', 3);
INSERT INTO metrics.counter VALUES ('events', 'event="thread.started"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_accounts_added_total', '', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="account.added"', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="token.rotated"', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="token.revoked"', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="token.disabled"', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="token.created"', 8);
INSERT INTO metrics.counter VALUES ('api_call', 'method="post",statusCode="200",route="/v1/account"', 1);
INSERT INTO metrics.counter VALUES ('api_call', 'method="post",statusCode="201",route="/v1/tokens"', 6);
INSERT INTO metrics.counter VALUES ('api_call', 'method="post",statusCode="201",route="/v1/tokens/{token_id}/rotate"', 1);
INSERT INTO metrics.counter VALUES ('api_call', 'method="delete",statusCode="200",route="/v1/tokens/{token_id}"', 1);
INSERT INTO metrics.counter VALUES ('api_call', 'method="patch",statusCode="200",route="/v1/tokens/{token_id}"', 1);
INSERT INTO metrics.counter VALUES ('api_call', 'method="get",statusCode="200",route="/auth"', 2);
INSERT INTO metrics.counter VALUES ('tallystick_http_requests_total', 'handler="health",method="get",code="200"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.0025"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.005"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.01"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.025"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.05"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.1"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.25"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.5"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="1"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="2.5"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="5"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="10"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="+Inf"', 3);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_sum', '', 10845);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_count', '', 3);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.025"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.05"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.1"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.25"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.5"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="1"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="2.5"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="5"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="10"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="+Inf"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_sum', '', 23391);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_count', '', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="api.calls"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_http_requests_total', 'handler="metrics",method="get",code="200"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_checks_total', 'result="ok"', 13);
INSERT INTO metrics.counter VALUES ('tallystick_process_cpu_seconds_total', 'service="edge"', 276209);
INSERT INTO metrics.counter VALUES ('tallystick_process_cpu_seconds_total', 'service="tokens"', 599383);
INSERT INTO metrics.counter VALUES ('events', 'event="thread.heartbeat"', 11);
INSERT INTO metrics.counter VALUES ('tallystick_process_cpu_seconds_total', 'service="metrics"', 675354);
INSERT INTO metrics.counter VALUES ('events', 'event="metrics.reported"', 22);


--
-- Data for Name: dead_letter; Type: TABLE DATA; Schema: metrics; Owner: metrics
--



--
-- Data for Name: event_source; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.event_source VALUES ('up', 'boot_01m8dt4jynx7vnbtmbdnzy9cbn', 3, '2026-11-27 06:12:32.231151+00');
INSERT INTO metrics.event_source VALUES ('tokens', 'outbox_b01c91c13f4c44e79348ad41b5156772', 9, '2026-11-27 06:12:34.292797+00');
INSERT INTO metrics.event_source VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 10, '2026-11-27 06:12:47.985939+00');
INSERT INTO metrics.event_source VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 12, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.event_source VALUES ('metrics', 'boot_01m8dt4m9jx951cc8c75shzx89', 12, '2026-11-27 06:12:52.19753+00');


--
-- Data for Name: gauge; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens_expiring_in_use', 'days="30"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_loop_lag_seconds', 'service="tokens"', 0.000999999996565748, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_process_resident_memory_bytes', 'service="tokens"', 40529920, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('metrics', 'boot_01m8dt4m9jx951cc8c75shzx89', 'tallystick_stream_lag_events', '', 0, '2026-11-27 06:12:52.19753+00');
INSERT INTO metrics.gauge VALUES ('metrics', 'boot_01m8dt4m9jx951cc8c75shzx89', 'tallystick_loop_lag_seconds', 'service="metrics"', 0, '2026-11-27 06:12:52.19753+00');
INSERT INTO metrics.gauge VALUES ('metrics', 'boot_01m8dt4m9jx951cc8c75shzx89', 'tallystick_process_resident_memory_bytes', 'service="metrics"', 40501248, '2026-11-27 06:12:52.19753+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 'tallystick_edges', '', 1, '2026-11-27 06:12:47.985939+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 'tallystick_edges_with_lease', '', 1, '2026-11-27 06:12:47.985939+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 'tallystick_cached_tokens', '', 3, '2026-11-27 06:12:47.985939+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 'tallystick_loop_lag_seconds', 'service="edge"', 0.000999999996565748, '2026-11-27 06:12:47.985939+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 'tallystick_process_resident_memory_bytes', 'service="edge"', 56127488, '2026-11-27 06:12:47.985939+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="revoked"', 1, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="expired"', 1, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="disabled"', 1, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="not_yet_valid"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="rotated"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="expiring"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens', 'state="active"', 5, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens_expiring', 'days="1"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens_expiring', 'days="7"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens_expiring', 'days="30"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens_expiring_in_use', 'days="1"', 0, '2026-11-27 06:12:51.993934+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 'tallystick_tokens_expiring_in_use', 'days="7"', 0, '2026-11-27 06:12:51.993934+00');


--
-- Data for Name: migration; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.migration VALUES (1, 'counters', 'fb6f03273737bd9241818a4305a8f815c164c15159ee70daad489bdeefb3a3eb', '2026-11-27 06:12:32.111027+00');
INSERT INTO metrics.migration VALUES (2, 'reports', '674a96d2486241cdcc75a1d207d778b57ab2fde19b4ae9aa4eb4ceaded8a45f3', '2026-11-27 06:12:32.111027+00');
INSERT INTO metrics.migration VALUES (3, 'epoch', 'e849d7a43adeb914da4252c1e59230539b71c01427f65fe5e4d31b7bd745adaf', '2026-11-27 06:12:32.111027+00');
INSERT INTO metrics.migration VALUES (4, 'recount', '1477158e545726e6336946692c3e95ce50bc5f06fa737bbca80b2bd8fad3027e', '2026-11-27 06:12:32.111027+00');
INSERT INTO metrics.migration VALUES (5, 'lease', '4c4ab68c0b284a12cd2689eeba05b09cc914b026d5b34175ead945fe39668296', '2026-11-27 06:12:32.111027+00');
INSERT INTO metrics.migration VALUES (6, 'continuity', '0cc847013a96ddc29b1e219dcff3a4b8e14718fdd9808f2ea8ed819aa3bbb232', '2026-11-27 06:12:32.111027+00');


--
-- Data for Name: recent_count; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:thread.started', 3);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:account.added', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:token.rotated', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:token.revoked', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:token.disabled', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:token.created', 8);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'apiCall:success', 12);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:api.calls', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'checks:ok', 13);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:thread.heartbeat', 11);
INSERT INTO metrics.recent_count VALUES ('2026-11-27 06:12:00+00', 'events:metrics.reported', 22);


--
-- Data for Name: recount; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recount VALUES ('TALLYSTICK_EVENTS', '2026-11-27 06:12:32.174006+00', 49, 31, 0, '2026-11-27 06:12:52.453789+00');


--
-- Data for Name: recount_counter; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recount_counter VALUES ('events', 'event="thread.started"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_accounts_added_total', '', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="account.added"', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="token.rotated"', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="token.revoked"', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="token.disabled"', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="token.created"', 8);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="post",statusCode="200",route="/v1/account"', 1);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="post",statusCode="201",route="/v1/tokens"', 6);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="post",statusCode="201",route="/v1/tokens/{token_id}/rotate"', 1);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="delete",statusCode="200",route="/v1/tokens/{token_id}"', 1);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="patch",statusCode="200",route="/v1/tokens/{token_id}"', 1);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="get",statusCode="200",route="/auth"', 2);
INSERT INTO metrics.recount_counter VALUES ('tallystick_http_requests_total', 'handler="health",method="get",code="200"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.0025"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.005"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.01"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.025"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.05"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.1"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.25"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.5"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="1"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="2.5"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="5"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="10"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="+Inf"', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_sum', '', 10845);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_verify_seconds_count', '', 3);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.025"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.05"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.1"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.25"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="0.5"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="1"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="2.5"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="5"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="10"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_bucket', 'le="+Inf"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_sum', '', 23391);
INSERT INTO metrics.recount_counter VALUES ('tallystick_revocation_propagation_seconds_count', '', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="api.calls"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_http_requests_total', 'handler="metrics",method="get",code="200"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_token_checks_total', 'result="ok"', 13);
INSERT INTO metrics.recount_counter VALUES ('tallystick_process_cpu_seconds_total', 'service="edge"', 276209);
INSERT INTO metrics.recount_counter VALUES ('tallystick_process_cpu_seconds_total', 'service="tokens"', 599383);
INSERT INTO metrics.recount_counter VALUES ('tallystick_process_cpu_seconds_total', 'service="metrics"', 675354);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="thread.heartbeat"', 11);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="metrics.reported"', 22);


--
-- Data for Name: recount_source; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recount_source VALUES ('up', 'boot_01m8dt4jynx7vnbtmbdnzy9cbn', 3);
INSERT INTO metrics.recount_source VALUES ('tokens', 'outbox_b01c91c13f4c44e79348ad41b5156772', 12);
INSERT INTO metrics.recount_source VALUES ('metrics', 'boot_01m8dt4m9jx951cc8c75shzx89', 12);
INSERT INTO metrics.recount_source VALUES ('tokens', 'boot_01m8dt4m3g4wj3me5vpk8rpg4d', 12);
INSERT INTO metrics.recount_source VALUES ('edge', 'boot_01m8dt4n24qn2xpcvbgnqkwkwk', 10);


--
-- Data for Name: stream_position; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.stream_position VALUES ('TALLYSTICK_EVENTS', '2026-11-27 06:12:32.174006+00', 49, 1, '2026-11-27 06:12:52.19753+00', '\x726cd48d7b08a5267b94e6ee62232302d85d39e4d6509078a6611e386a82ace0', 49, '2026-11-27 06:12:52.192578+00', NULL, NULL, false, 0, NULL);


--
-- Data for Name: thread; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.thread VALUES ('thr_01m8dt4k7f01cgwrg53bnhv9se.1', 'edge', '2026-11-27 06:12:47.974493+00', NULL, '2026-11-27 06:12:32.188382+00');
INSERT INTO metrics.thread VALUES ('thr_01m8dt4k776h5jx8jdttgv7zvg', 'tokens', '2026-11-27 06:12:51.98936+00', NULL, '2026-11-27 06:12:32.183084+00');
INSERT INTO metrics.thread VALUES ('thr_01m8dt4k6mzr4endkrch5v6bev', 'metrics', '2026-11-27 06:12:52.19055+00', NULL, '2026-11-27 06:12:32.180195+00');


--
-- Data for Name: account; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.account VALUES ('alice', '', '2026-11-27 06:12:34.062364+00');


--
-- Data for Name: audit; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (1, 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '2026-11-27 06:12:32.985245+00', 'token.created', 'first start', NULL, NULL, NULL, '{"changes": {"scopes": {"to": ["*"], "from": []}, "description": {"to": "admin, made at the first start", "from": ""}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (2, 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '2026-11-27 06:12:33.019403+00', 'session.link_made', 'first start', NULL, NULL, NULL, '{"seconds": 3600}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (3, NULL, '2026-11-27 06:12:34.062364+00', 'account.added', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000001', '{"account": "alice", "changes": {"name": {"to": "", "from": null}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (4, 'tok_01m8dt4p5syacga91vqgas3wz3', '2026-11-27 06:12:34.100584+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000002', '{"changes": {"scopes": {"to": ["orders"], "from": []}, "account": {"to": "alice", "from": null}, "description": {"to": "alice", "from": ""}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (5, 'tok_01m8dt4p6bn8ehrygtk9re6kn2', '2026-11-27 06:12:34.118643+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000003', '{"changes": {"scopes": {"to": ["web"], "from": []}, "description": {"to": "stars", "from": ""}, "restrictions.referrers": {"to": ["https://ba*ba*ba*ba*ba*ba*.example/*"], "from": null}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (6, 'tok_01m8dt4p6ykhcq2ym2psgp6xkv', '2026-11-27 06:12:34.140294+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000004', '{"changes": {"scopes": {"to": ["*"], "from": []}, "description": {"to": "rotated", "from": ""}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (7, 'tok_01m8dt4p6ykhcq2ym2psgp6xkv', '2026-11-27 06:12:34.155974+00', 'token.rotated', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000005', '{"to": "tok_01m8dt4p7fpvt1drdney7055nk", "grace": 0, "changes": {"expires": {"to": "2026-11-27T06:12:34.155974Z", "from": null}, "rotatedTo": {"to": "tok_01m8dt4p7fpvt1drdney7055nk", "from": null}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (8, 'tok_01m8dt4p7fpvt1drdney7055nk', '2026-11-27 06:12:34.155974+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000005', '{"changes": {"scopes": {"to": ["*"], "from": []}, "description": {"to": "rotated", "from": ""}}, "rotatedFrom": "tok_01m8dt4p6ykhcq2ym2psgp6xkv"}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (9, 'tok_01m8dt4p87tnky7z16f276f5yc', '2026-11-27 06:12:34.181638+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000006', '{"changes": {"scopes": {"to": ["*"], "from": []}, "description": {"to": "revoked", "from": ""}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (10, 'tok_01m8dt4p87tnky7z16f276f5yc', '2026-11-27 06:12:34.199688+00', 'token.revoked', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000007', '{"changes": {"revoked": {"to": "2026-11-27T06:12:34.199688Z", "from": null}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (11, 'tok_01m8dt4pa0d9vab3nx866vy5hn', '2026-11-27 06:12:34.236228+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000008', '{"changes": {"scopes": {"to": ["*"], "from": []}, "description": {"to": "disabled", "from": ""}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (12, 'tok_01m8dt4pa0d9vab3nx866vy5hn', '2026-11-27 06:12:34.256133+00', 'token.disabled', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft00000009', '{"changes": {"disabled": {"to": true, "from": false}}}', false);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (13, 'tok_01m8dt4pbaafn93fsk0fngt5zj', '2026-11-27 06:12:34.2781+00', 'token.created', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '127.0.0.1', 'req_01m8dt4n2bc19h93dxmcpddqft0000000a', '{"changes": {"scopes": {"to": ["orders"], "from": []}, "metadata": {"to": {"team": "a"}, "from": null}, "description": {"to": "limited", "from": ""}, "restrictions.rateLimit": {"to": {"timeWindow": 60, "maxRequests": 1}, "from": null}}}', false);


--
-- Data for Name: change; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.change VALUES (1, '\xbf06a2064d7f4fa068cf2db7787f9cf9124f79c836aa26616b456aa328cea530', 1);
INSERT INTO tokens.change VALUES (2, '\x2cb085761659c8de2232231f6b2b1bdab66a71575bb007ffde30efc29e5e2b0e', 1);
INSERT INTO tokens.change VALUES (3, '\xffb04e23436113cfcaf5628dd5aff0c469bd7465092a5ca549905d1765fe0cb7', 1);
INSERT INTO tokens.change VALUES (4, '\x4e73994d65365c2ce1126c31c51bbf39989e89aa473c8fe76df80c02ffd8d38d', 1);
INSERT INTO tokens.change VALUES (5, '\x4e73994d65365c2ce1126c31c51bbf39989e89aa473c8fe76df80c02ffd8d38d', 2);
INSERT INTO tokens.change VALUES (6, '\xd11da2137714a1801fa1b81d661931c08e922111b4e9dbcdf59f842bd647a5d2', 1);
INSERT INTO tokens.change VALUES (7, '\x6ee762c281192929b3eaf9c05a81c75f53613dd46c81766b3d785b004bdbdf86', 1);
INSERT INTO tokens.change VALUES (8, '\x6ee762c281192929b3eaf9c05a81c75f53613dd46c81766b3d785b004bdbdf86', 2);
INSERT INTO tokens.change VALUES (9, '\x99a33c2fbf518187edabc047e880f0b4537c653ba0da9a66f84c976cb78e044f', 1);
INSERT INTO tokens.change VALUES (10, '\x99a33c2fbf518187edabc047e880f0b4537c653ba0da9a66f84c976cb78e044f', 2);
INSERT INTO tokens.change VALUES (11, '\x893021b36494202e8664c285089f06fc2861137b3d22926f87745b9ccfe4a9ff', 1);


--
-- Data for Name: change_number; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.change_number VALUES (true, 11);


--
-- Data for Name: idempotency; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: lease; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.lease VALUES ('edge_01m8dt4n25fwexv877abenssww', 12, 5, 11);


--
-- Data for Name: migration; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.migration VALUES (1, 'tokens', '6bf9112d1eb4a5f17690a8110dd743f7b960a25183f0dcf41c4b435844826ff5', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (2, 'coherence', 'ac000e79a7f31bfa12421d9b869de56572e5f1c9cd4fff732658234b80d2e41d', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (3, 'sessions', 'f929986d69b0d00b115e0d2bacab654cd3256a84d1c051bb86c4242c740437ee', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (4, 'windows', '910680420ebc76a9066774823a45b304ca9f5a74fa65aa4fa2a2b61bb712702e', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (5, 'authority', '86739591992f62a8487a12c75f2fc88b978b9f02f734f744667e5b8a06fdeed3', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (6, 'limits', 'e17ea39fb36e6be4a84a9f7dc683267788b1333ea1a41200ef7156140bbc761c', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (7, 'digest_keys', '71e8ed8f70cf35135f0df419575e9d8231f4a3ae5569b6850b4381fa7519a075', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (8, 'audit', '9cf43f31fe210d1c4f4e2fb3b8ab6543d94509c953ae3c53ec25f2e7c0b89f70', '2026-11-27 06:12:31.912786+00');
INSERT INTO tokens.migration VALUES (9, 'lists', '09dd6132326e562bf57b28e60a298b08cbd58d8a7c8995827bec06ff7ca4891c', '2026-11-27 06:12:31.912786+00');


--
-- Data for Name: outbox; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: outbox_number; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.outbox_number VALUES (true, 'outbox_b01c91c13f4c44e79348ad41b5156772', 12);


--
-- Data for Name: quota_holder; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: rate_window; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: refusal; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: session; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: sign_in_link; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.sign_in_link VALUES ('\x88b266d13621286db8d7172ef8347744332d49b4e1be96193b23c3f39eb603ea', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', '2026-11-27 07:12:33.019403+00');


--
-- Data for Name: token; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.token VALUES ('tok_01m8dt4p7fpvt1drdney7055nk', '\xd11da2137714a1801fa1b81d661931c08e922111b4e9dbcdf59f842bd647a5d2', 'tly_uqqa', 'rotated', '{*}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-27 06:12:34.155974+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, NULL, 1, 'tok_01m8dt4p6ykhcq2ym2psgp6xkv', 0, NULL, NULL, 'tok_01m8dt4p6ykhcq2ym2psgp6xkv', NULL, false, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8dt4p6ykhcq2ym2psgp6xkv', '\x4e73994d65365c2ce1126c31c51bbf39989e89aa473c8fe76df80c02ffd8d38d', 'tly_giCI', 'rotated', '{*}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, '2026-11-27 06:12:34.155974+00', false, '2026-11-27 06:12:34.140294+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 'tok_01m8dt4p7fpvt1drdney7055nk', NULL, 2, 'tok_01m8dt4p6ykhcq2ym2psgp6xkv', 0, NULL, NULL, 'tok_01m8dt4p6ykhcq2ym2psgp6xkv', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', false, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8dt4p87tnky7z16f276f5yc', '\x6ee762c281192929b3eaf9c05a81c75f53613dd46c81766b3d785b004bdbdf86', 'tly_fXQ8', 'revoked', '{*}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-27 06:12:34.181638+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, '2026-11-27 06:12:34.199688+00', 2, 'tok_01m8dt4p87tnky7z16f276f5yc', 0, NULL, NULL, 'tok_01m8dt4p87tnky7z16f276f5yc', NULL, false, NULL, 'tok_01m8dt4n2zsw06cbp37wmg4zsb');
INSERT INTO tokens.token VALUES ('tok_01m8dt4pa0d9vab3nx866vy5hn', '\x99a33c2fbf518187edabc047e880f0b4537c653ba0da9a66f84c976cb78e044f', 'tly_pfDR', 'disabled', '{*}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, true, '2026-11-27 06:12:34.236228+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, NULL, 2, 'tok_01m8dt4pa0d9vab3nx866vy5hn', 0, NULL, NULL, 'tok_01m8dt4pa0d9vab3nx866vy5hn', NULL, false, 1, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8dt4pbaafn93fsk0fngt5zj', '\x893021b36494202e8664c285089f06fc2861137b3d22926f87745b9ccfe4a9ff', 'tly_Mrii', 'limited', '{orders}', NULL, '{"team": "a"}', '{"addresses": null, "rateLimit": {"timeWindow": 60, "maxRequests": 1}, "referrers": null}', NULL, NULL, false, '2026-11-27 06:12:34.2781+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, NULL, 1, 'tok_01m8dt4pbaafn93fsk0fngt5zj', 0, NULL, NULL, 'tok_01m8dt4pbaafn93fsk0fngt5zj', NULL, false, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8dt4p5syacga91vqgas3wz3', '\x2cb085761659c8de2232231f6b2b1bdab66a71575bb007ffde30efc29e5e2b0e', 'tly_hsgl', 'alice', '{orders}', 'alice', NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-27 06:12:34.100584+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, NULL, 1, 'tok_01m8dt4p5syacga91vqgas3wz3', 1, '2026-11-27 06:12:34.38311+00', '127.0.0.1', 'tok_01m8dt4p5syacga91vqgas3wz3', NULL, false, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8dt4p6bn8ehrygtk9re6kn2', '\xffb04e23436113cfcaf5628dd5aff0c469bd7465092a5ca549905d1765fe0cb7', 'tly_arNl', 'stars', '{web}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": ["https://ba*ba*ba*ba*ba*ba*.example/*"]}', NULL, NULL, false, '2026-11-27 06:12:34.118643+00', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, NULL, 1, 'tok_01m8dt4p6bn8ehrygtk9re6kn2', 1, '2026-11-27 06:12:34.460197+00', '127.0.0.1', 'tok_01m8dt4p6bn8ehrygtk9re6kn2', NULL, false, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8dt4n2zsw06cbp37wmg4zsb', '\xbf06a2064d7f4fa068cf2db7787f9cf9124f79c836aa26616b456aa328cea530', 'tly_LYYm', 'admin, made at the first start', '{*}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-27 06:12:32.985245+00', 'first start', NULL, NULL, 1, 'tok_01m8dt4n2zsw06cbp37wmg4zsb', 11, '2026-11-27 06:12:42.464816+00', '127.0.0.1', 'tok_01m8dt4n2zsw06cbp37wmg4zsb', NULL, false, NULL, NULL);


--
-- Data for Name: use_by_day; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.use_by_day VALUES ('tok_01m8dt4p5syacga91vqgas3wz3', '2026-11-27', '{0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}');
INSERT INTO tokens.use_by_day VALUES ('tok_01m8dt4p6bn8ehrygtk9re6kn2', '2026-11-27', '{0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}');
INSERT INTO tokens.use_by_day VALUES ('tok_01m8dt4n2zsw06cbp37wmg4zsb', '2026-11-27', '{0,0,0,0,0,0,11,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}');


--
-- Name: audit_id_seq; Type: SEQUENCE SET; Schema: tokens; Owner: tokens
--

SELECT pg_catalog.setval('tokens.audit_id_seq', 13, true);


--
-- Name: disable_number; Type: SEQUENCE SET; Schema: tokens; Owner: tokens
--

SELECT pg_catalog.setval('tokens.disable_number', 1, true);


--
-- Name: grant_number; Type: SEQUENCE SET; Schema: tokens; Owner: tokens
--

SELECT pg_catalog.setval('tokens.grant_number', 12, true);


--
-- Name: refusal_id_seq; Type: SEQUENCE SET; Schema: tokens; Owner: tokens
--

SELECT pg_catalog.setval('tokens.refusal_id_seq', 1, false);


--
-- Name: account account_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (account);


--
-- Name: counter counter_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.counter
    ADD CONSTRAINT counter_pkey PRIMARY KEY (name, labels);


--
-- Name: dead_letter dead_letter_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (stream, seq);


--
-- Name: event_source event_source_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.event_source
    ADD CONSTRAINT event_source_pkey PRIMARY KEY (source, boot);


--
-- Name: gauge gauge_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.gauge
    ADD CONSTRAINT gauge_pkey PRIMARY KEY (source, boot, name, labels);


--
-- Name: migration migration_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);


--
-- Name: recent_count recent_count_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.recent_count
    ADD CONSTRAINT recent_count_pkey PRIMARY KEY (minute, name);


--
-- Name: recount_counter recount_counter_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.recount_counter
    ADD CONSTRAINT recount_counter_pkey PRIMARY KEY (name, labels);


--
-- Name: recount recount_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.recount
    ADD CONSTRAINT recount_pkey PRIMARY KEY (stream);


--
-- Name: recount_source recount_source_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.recount_source
    ADD CONSTRAINT recount_source_pkey PRIMARY KEY (source, boot);


--
-- Name: stream_position stream_position_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.stream_position
    ADD CONSTRAINT stream_position_pkey PRIMARY KEY (stream);


--
-- Name: thread thread_pkey; Type: CONSTRAINT; Schema: metrics; Owner: metrics
--

ALTER TABLE ONLY metrics.thread
    ADD CONSTRAINT thread_pkey PRIMARY KEY (thread);


--
-- Name: account account_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.account
    ADD CONSTRAINT account_pkey PRIMARY KEY (account);


--
-- Name: audit audit_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (id);


--
-- Name: change_number change_number_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.change_number
    ADD CONSTRAINT change_number_pkey PRIMARY KEY (only_row);


--
-- Name: change change_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.change
    ADD CONSTRAINT change_pkey PRIMARY KEY (seq);


--
-- Name: idempotency idempotency_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (actor, operation, key);


--
-- Name: lease lease_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (edge);


--
-- Name: migration migration_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (number);


--
-- Name: outbox_number outbox_number_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.outbox_number
    ADD CONSTRAINT outbox_number_pkey PRIMARY KEY (only_row);


--
-- Name: outbox outbox_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (n);


--
-- Name: quota_holder quota_holder_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.quota_holder
    ADD CONSTRAINT quota_holder_pkey PRIMARY KEY (family, holder);


--
-- Name: rate_window rate_window_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.rate_window
    ADD CONSTRAINT rate_window_pkey PRIMARY KEY (family, seconds);


--
-- Name: refusal refusal_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.refusal
    ADD CONSTRAINT refusal_pkey PRIMARY KEY (id);


--
-- Name: session session_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.session
    ADD CONSTRAINT session_pkey PRIMARY KEY (digest);


--
-- Name: sign_in_link sign_in_link_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.sign_in_link
    ADD CONSTRAINT sign_in_link_pkey PRIMARY KEY (digest);


--
-- Name: token token_digest_key; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.token
    ADD CONSTRAINT token_digest_key UNIQUE (digest);


--
-- Name: token token_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.token
    ADD CONSTRAINT token_pkey PRIMARY KEY (id);


--
-- Name: use_by_day use_by_day_pkey; Type: CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.use_by_day
    ADD CONSTRAINT use_by_day_pkey PRIMARY KEY (token, day);


--
-- Name: audit_by_account; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX audit_by_account ON tokens.audit USING btree (((details ->> 'account'::text)), id DESC) WHERE (token IS NULL);


--
-- Name: audit_by_actor; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX audit_by_actor ON tokens.audit USING btree (actor_token, at);


--
-- Name: audit_changes_by_token; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX audit_changes_by_token ON tokens.audit USING btree (token, id DESC) WHERE (NOT rejected);


--
-- Name: audit_rejections_by_token; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX audit_rejections_by_token ON tokens.audit USING btree (token, id DESC) WHERE rejected;


--
-- Name: idempotency_by_age; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX idempotency_by_age ON tokens.idempotency USING btree (at);


--
-- Name: quota_holder_by_end; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX quota_holder_by_end ON tokens.quota_holder USING btree (((starts + seconds)));


--
-- Name: refusal_by_request; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX refusal_by_request ON tokens.refusal USING btree (request_id);


--
-- Name: refusal_by_token; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX refusal_by_token ON tokens.refusal USING btree (token, id DESC);


--
-- Name: session_by_token; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX session_by_token ON tokens.session USING btree (token, created DESC);


--
-- Name: token_by_account; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_account ON tokens.token USING btree (account, id DESC) WHERE (revoked IS NULL);


--
-- Name: token_by_chain; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_chain ON tokens.token USING btree (chain);


--
-- Name: token_by_creator; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_creator ON tokens.token USING btree (created_by);


--
-- Name: token_by_description; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_description ON tokens.token USING btree ("left"(lower(description), 64), id) WHERE (revoked IS NULL);


--
-- Name: token_by_expiry; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_expiry ON tokens.token USING btree (COALESCE(expires, 'infinity'::timestamp with time zone), id) WHERE (revoked IS NULL);


--
-- Name: token_by_key; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_key ON tokens.token USING btree (sha256(digest));


--
-- Name: token_by_successor; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_successor ON tokens.token USING btree (rotated_to) WHERE (rotated_to IS NOT NULL);


--
-- Name: use_by_age; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX use_by_age ON tokens.use_by_day USING btree (day);


--
-- Name: audit append_only; Type: TRIGGER; Schema: tokens; Owner: tokens
--

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON tokens.audit FOR EACH STATEMENT EXECUTE FUNCTION tokens.reject_audit_change();


--
-- Name: audit audit_token_fkey; Type: FK CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.audit
    ADD CONSTRAINT audit_token_fkey FOREIGN KEY (token) REFERENCES tokens.token(id);


--
-- Name: session session_token_fkey; Type: FK CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.session
    ADD CONSTRAINT session_token_fkey FOREIGN KEY (token) REFERENCES tokens.token(id);


--
-- Name: sign_in_link sign_in_link_token_fkey; Type: FK CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.sign_in_link
    ADD CONSTRAINT sign_in_link_token_fkey FOREIGN KEY (token) REFERENCES tokens.token(id);


--
-- Name: token token_rotated_to_fkey; Type: FK CONSTRAINT; Schema: tokens; Owner: tokens
--

ALTER TABLE ONLY tokens.token
    ADD CONSTRAINT token_rotated_to_fkey FOREIGN KEY (rotated_to) REFERENCES tokens.token(id);


--
-- Name: TABLE audit; Type: ACL; Schema: tokens; Owner: tokens
--

REVOKE ALL ON TABLE tokens.audit FROM tokens;
GRANT SELECT,INSERT,REFERENCES,TRIGGER,MAINTAIN ON TABLE tokens.audit TO tokens;


--
-- PostgreSQL database dump complete
--

\unrestrict VmYSfN18J6e55qUNtVjQp9ucwBXo9hra5NqxIC0WJb2eHnAn8vKmSAkyPjdsWBY

