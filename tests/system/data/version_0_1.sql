--
-- PostgreSQL database dump
--

\restrict Y22CwMiy8t9I99ztGqFEABBNeIxzdmyfFeDm0OHYhari7krUJRp5ZCgFv1pl0dv

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

SET default_tablespace = '';

SET default_table_access_method = heap;

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
    seen timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
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
    details jsonb
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
    seconds integer NOT NULL
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
INSERT INTO metrics.counter VALUES ('api_call', 'method="GET",statusCode="200",route="/health/ready"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_accounts_added_total', '', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="account.added"', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="token.rotated"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_process_cpu_seconds_total', 'service="metrics"', 447562);
INSERT INTO metrics.counter VALUES ('events', 'event="token.created"', 6);
INSERT INTO metrics.counter VALUES ('tallystick_process_cpu_seconds_total', 'service="tokens"', 654730);
INSERT INTO metrics.counter VALUES ('events', 'event="token.revoked"', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="thread.heartbeat"', 9);
INSERT INTO metrics.counter VALUES ('api_call', 'method="POST",statusCode="200",route="/v1/account"', 1);
INSERT INTO metrics.counter VALUES ('api_call', 'method="POST",statusCode="201",route="/v1/tokens"', 4);
INSERT INTO metrics.counter VALUES ('api_call', 'method="POST",statusCode="201",route="/v1/tokens/{token_id}/rotate"', 1);
INSERT INTO metrics.counter VALUES ('api_call', 'method="DELETE",statusCode="200",route="/v1/tokens/{token_id}"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_checks_total', 'result="ok"', 7);
INSERT INTO metrics.counter VALUES ('tallystick_process_cpu_seconds_total', 'service="edge"', 197644);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.005"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.01"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.025"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.05"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.1"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.25"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="0.5"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="1"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="2.5"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="5"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="10"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_bucket', 'le="+Inf"', 1);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_sum', '', 4309);
INSERT INTO metrics.counter VALUES ('tallystick_token_verify_seconds_count', '', 1);
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
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_sum', '', 12544);
INSERT INTO metrics.counter VALUES ('tallystick_revocation_propagation_seconds_count', '', 1);
INSERT INTO metrics.counter VALUES ('events', 'event="api.calls"', 2);
INSERT INTO metrics.counter VALUES ('events', 'event="metrics.reported"', 18);


--
-- Data for Name: dead_letter; Type: TABLE DATA; Schema: metrics; Owner: metrics
--



--
-- Data for Name: event_source; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.event_source VALUES ('metrics', 'boot_01m8c7phy7fmeckfw3tqxez948', 10, '2026-11-26 15:31:17.226649+00');
INSERT INTO metrics.event_source VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 10, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.event_source VALUES ('tokens', 'outbox_844aa977722848e9be8656efc2b7d005', 9, '2026-11-26 15:31:17.503555+00');
INSERT INTO metrics.event_source VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 12, '2026-11-26 15:31:17.69603+00');


--
-- Data for Name: gauge; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 'tallystick_process_resident_memory_bytes', 'service="edge"', 54685696, '2026-11-26 15:31:17.69603+00');
INSERT INTO metrics.gauge VALUES ('metrics', 'boot_01m8c7phy7fmeckfw3tqxez948', 'tallystick_stream_lag_events', '', 0, '2026-11-26 15:31:17.226649+00');
INSERT INTO metrics.gauge VALUES ('metrics', 'boot_01m8c7phy7fmeckfw3tqxez948', 'tallystick_loop_lag_seconds', 'service="metrics"', 0, '2026-11-26 15:31:17.226649+00');
INSERT INTO metrics.gauge VALUES ('metrics', 'boot_01m8c7phy7fmeckfw3tqxez948', 'tallystick_process_resident_memory_bytes', 'service="metrics"', 38330368, '2026-11-26 15:31:17.226649+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="active"', 1, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="disabled"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="expired"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="expiring"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="rotated"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="revoked"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens', 'state="not_yet_valid"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens_expiring', 'days="1"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens_expiring', 'days="7"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_tokens_expiring', 'days="30"', 0, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_loop_lag_seconds', 'service="tokens"', 0.0010000000002037268, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 'tallystick_process_resident_memory_bytes', 'service="tokens"', 38895616, '2026-11-26 15:31:17.423542+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 'tallystick_edges', '', 1, '2026-11-26 15:31:17.69603+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 'tallystick_edges_with_lease', '', 1, '2026-11-26 15:31:17.69603+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 'tallystick_cached_tokens', '', 1, '2026-11-26 15:31:17.69603+00');
INSERT INTO metrics.gauge VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 'tallystick_loop_lag_seconds', 'service="edge"', 0, '2026-11-26 15:31:17.69603+00');


--
-- Data for Name: migration; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.migration VALUES (1, 'counters', 'fb6f03273737bd9241818a4305a8f815c164c15159ee70daad489bdeefb3a3eb', '2026-11-26 15:31:02.054651+00');
INSERT INTO metrics.migration VALUES (2, 'reports', '674a96d2486241cdcc75a1d207d778b57ab2fde19b4ae9aa4eb4ceaded8a45f3', '2026-11-26 15:31:02.054651+00');
INSERT INTO metrics.migration VALUES (3, 'epoch', 'e849d7a43adeb914da4252c1e59230539b71c01427f65fe5e4d31b7bd745adaf', '2026-11-26 15:31:02.054651+00');
INSERT INTO metrics.migration VALUES (4, 'recount', '1477158e545726e6336946692c3e95ce50bc5f06fa737bbca80b2bd8fad3027e', '2026-11-26 15:31:02.054651+00');
INSERT INTO metrics.migration VALUES (5, 'lease', '4c4ab68c0b284a12cd2689eeba05b09cc914b026d5b34175ead945fe39668296', '2026-11-26 15:31:02.054651+00');


--
-- Data for Name: recent_count; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:thread.started', 3);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:account.added', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:token.rotated', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:token.created', 6);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:token.revoked', 1);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:thread.heartbeat', 9);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'apiCall:success', 8);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'checks:ok', 7);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:api.calls', 2);
INSERT INTO metrics.recent_count VALUES ('2026-11-26 15:31:00+00', 'events:metrics.reported', 18);


--
-- Data for Name: recount; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recount VALUES ('TALLYSTICK_EVENTS', '2026-11-26 15:31:02.206926+00', 33, 29, 0, '2026-11-26 15:31:17.35214+00');


--
-- Data for Name: recount_counter; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recount_counter VALUES ('events', 'event="thread.started"', 3);
INSERT INTO metrics.recount_counter VALUES ('api_call', 'method="GET",statusCode="200",route="/health/ready"', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="api.calls"', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_process_cpu_seconds_total', 'service="tokens"', 604503);
INSERT INTO metrics.recount_counter VALUES ('tallystick_process_cpu_seconds_total', 'service="edge"', 156110);
INSERT INTO metrics.recount_counter VALUES ('tallystick_accounts_added_total', '', 1);
INSERT INTO metrics.recount_counter VALUES ('tallystick_process_cpu_seconds_total', 'service="metrics"', 447562);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="thread.heartbeat"', 7);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="metrics.reported"', 14);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="account.added"', 1);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="token.created"', 6);
INSERT INTO metrics.recount_counter VALUES ('events', 'event="token.rotated"', 1);


--
-- Data for Name: recount_source; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.recount_source VALUES ('tokens', 'outbox_844aa977722848e9be8656efc2b7d005', 8);
INSERT INTO metrics.recount_source VALUES ('metrics', 'boot_01m8c7phy7fmeckfw3tqxez948', 10);
INSERT INTO metrics.recount_source VALUES ('edge', 'boot_01m8c7pjcscw72e8fp63avhq6f', 8);
INSERT INTO metrics.recount_source VALUES ('tokens', 'boot_01m8c7pj4aa0ptd7tgc6g7x5q5', 7);


--
-- Data for Name: stream_position; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.stream_position VALUES ('TALLYSTICK_EVENTS', '2026-11-26 15:31:02.206926+00', 41, 1, '2026-11-26 15:31:19.243325+00');


--
-- Data for Name: thread; Type: TABLE DATA; Schema: metrics; Owner: metrics
--

INSERT INTO metrics.thread VALUES ('thr_01m8c7phy7km83pbh4km37fqgh', 'metrics', '2026-11-26 15:31:17.218899+00', NULL, '2026-11-26 15:31:02.216305+00');
INSERT INTO metrics.thread VALUES ('thr_01m8c7pj4a2wvbxbafbyybwwdb', 'tokens', '2026-11-26 15:31:17.415667+00', NULL, '2026-11-26 15:31:02.413014+00');
INSERT INTO metrics.thread VALUES ('thr_01m8c7pjcshx7bpg2gam7c2qfn', 'edge', '2026-11-26 15:31:17.687213+00', NULL, '2026-11-26 15:31:02.783846+00');


--
-- Data for Name: account; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.account VALUES ('alice', '', '2026-11-26 15:31:16.886547+00');
INSERT INTO tokens.account VALUES ('late1', '', '2026-11-26 15:31:19.840497+00');
INSERT INTO tokens.account VALUES ('late2', '', '2026-11-26 15:31:19.862995+00');
INSERT INTO tokens.account VALUES ('late3', '', '2026-11-26 15:31:19.877281+00');


--
-- Data for Name: audit; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (1, 'tok_01m8c7pjdjkt7am3zb62je3w9g', '2026-11-26 15:31:02.70565+00', 'token.created', 'first start', NULL, NULL, NULL, NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (2, 'tok_01m8c7pjdjkt7am3zb62je3w9g', '2026-11-26 15:31:02.724187+00', 'session.link_made', 'first start', NULL, NULL, NULL, NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (3, NULL, '2026-11-26 15:31:16.886547+00', 'account.added', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000001', '{"account": "alice"}');
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (4, 'tok_01m8c7q0a558t1nexkt5tf7a21', '2026-11-26 15:31:16.932678+00', 'token.created', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000002', NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (5, 'tok_01m8c7q0b6rd8q801w3dzper2e', '2026-11-26 15:31:16.965851+00', 'token.created', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000003', NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (6, 'tok_01m8c7q0bzw4evkrdx75y9hq20', '2026-11-26 15:31:16.990552+00', 'token.created', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000004', NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (7, 'tok_01m8c7q0bzw4evkrdx75y9hq20', '2026-11-26 15:31:17.209496+00', 'token.rotated', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000005', '{"to": "tok_01m8c7q0jv9j7dzh3przg4tsfc", "grace": 604800}');
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (8, 'tok_01m8c7q0jv9j7dzh3przg4tsfc', '2026-11-26 15:31:17.209496+00', 'token.created', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000005', NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (9, 'tok_01m8c7q0kxtx72d1je9fqf5v38', '2026-11-26 15:31:17.244869+00', 'token.created', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000006', NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (10, 'tok_01m8c7q0kxtx72d1je9fqf5v38', '2026-11-26 15:31:17.494865+00', 'token.revoked', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p00000007', NULL);
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (11, NULL, '2026-11-26 15:31:19.840497+00', 'account.added', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p0000000a', '{"account": "late1"}');
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (12, NULL, '2026-11-26 15:31:19.862995+00', 'account.added', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p0000000b', '{"account": "late2"}');
INSERT INTO tokens.audit OVERRIDING SYSTEM VALUE VALUES (13, NULL, '2026-11-26 15:31:19.877281+00', 'account.added', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '127.0.0.1', 'req_01m8c7pjd8m1asqddxd8wrc52p0000000c', '{"account": "late3"}');


--
-- Data for Name: change; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.change VALUES (1, '\x334c05d8505fe9d4caec07960917562c8871817898e70f1c8148b89bae54242d', 1);
INSERT INTO tokens.change VALUES (2, '\xc37ea8699ac3717fe84afd23661d696dc1a618cbb0f5c001085e2ca5a186b673', 1);
INSERT INTO tokens.change VALUES (3, '\xaa611606f7290fa6dd563886d5dfb84d9642c9a4bf8ec8c8173c1fafbc76a411', 1);
INSERT INTO tokens.change VALUES (4, '\xb14f7ec70acef68f822fd74b12028fbf68f99ee34fba7a1cb7b69cfc1127de94', 1);
INSERT INTO tokens.change VALUES (5, '\xb14f7ec70acef68f822fd74b12028fbf68f99ee34fba7a1cb7b69cfc1127de94', 2);
INSERT INTO tokens.change VALUES (6, '\x303dc9f27c985e2ee70073a363af971131a29be01a01917191291d2d5475341e', 1);
INSERT INTO tokens.change VALUES (7, '\x5f2af04a4d94e4b21a3a80621c17f186804cd5f0ca5134c70af81586d37ed550', 1);
INSERT INTO tokens.change VALUES (8, '\x5f2af04a4d94e4b21a3a80621c17f186804cd5f0ca5134c70af81586d37ed550', 2);


--
-- Data for Name: change_number; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.change_number VALUES (true, 8);


--
-- Data for Name: idempotency; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: lease; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.lease VALUES ('edge_01m8c7pjcsyk4bf647bsm499yd', 17, 5, 8);


--
-- Data for Name: migration; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.migration VALUES (1, 'tokens', '6bf9112d1eb4a5f17690a8110dd743f7b960a25183f0dcf41c4b435844826ff5', '2026-11-26 15:31:02.323044+00');
INSERT INTO tokens.migration VALUES (2, 'coherence', 'ac000e79a7f31bfa12421d9b869de56572e5f1c9cd4fff732658234b80d2e41d', '2026-11-26 15:31:02.323044+00');
INSERT INTO tokens.migration VALUES (3, 'sessions', 'f929986d69b0d00b115e0d2bacab654cd3256a84d1c051bb86c4242c740437ee', '2026-11-26 15:31:02.323044+00');
INSERT INTO tokens.migration VALUES (4, 'windows', '910680420ebc76a9066774823a45b304ca9f5a74fa65aa4fa2a2b61bb712702e', '2026-11-26 15:31:02.323044+00');


--
-- Data for Name: outbox; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: outbox_number; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.outbox_number VALUES (true, 'outbox_844aa977722848e9be8656efc2b7d005', 12);


--
-- Data for Name: rate_window; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.rate_window VALUES ('tok_01m8c7q0a558t1nexkt5tf7a21', 1795707060, 1, 1, 60);


--
-- Data for Name: refusal; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: session; Type: TABLE DATA; Schema: tokens; Owner: tokens
--



--
-- Data for Name: sign_in_link; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.sign_in_link VALUES ('\x634bef000603c3e5ffec3caa5057d38c7a8bf1b72fe6a792d6c35ca9f7415bfd', 'tok_01m8c7pjdjkt7am3zb62je3w9g', '2026-11-26 16:31:02.724187+00');


--
-- Data for Name: token; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.token VALUES ('tok_01m8c7q0b6rd8q801w3dzper2e', '\xaa611606f7290fa6dd563886d5dfb84d9642c9a4bf8ec8c8173c1fafbc76a411', 'tly_arnu', 'many stars', '{web}', NULL, '{"team": "web"}', '{"addresses": null, "rateLimit": null, "referrers": ["https://*a*a*a*a*a*a*a*a*a*.example/*"]}', NULL, NULL, false, '2026-11-26 15:31:16.965851+00', 'tok_01m8c7pjdjkt7am3zb62je3w9g', NULL, NULL, 1, 'tok_01m8c7q0b6rd8q801w3dzper2e', 0, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8c7q0jv9j7dzh3przg4tsfc', '\x303dc9f27c985e2ee70073a363af971131a29be01a01917191291d2d5475341e', 'tly_FPQI', 'to be rotated', '{api:stats}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-26 15:31:17.209496+00', 'tok_01m8c7pjdjkt7am3zb62je3w9g', NULL, NULL, 1, 'tok_01m8c7q0bzw4evkrdx75y9hq20', 0, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8c7q0bzw4evkrdx75y9hq20', '\xb14f7ec70acef68f822fd74b12028fbf68f99ee34fba7a1cb7b69cfc1127de94', 'tly_1jSj', 'to be rotated', '{api:stats}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, '2026-12-03 15:31:17.209496+00', false, '2026-11-26 15:31:16.990552+00', 'tok_01m8c7pjdjkt7am3zb62je3w9g', 'tok_01m8c7q0jv9j7dzh3przg4tsfc', NULL, 2, 'tok_01m8c7q0bzw4evkrdx75y9hq20', 0, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8c7q0kxtx72d1je9fqf5v38', '\x5f2af04a4d94e4b21a3a80621c17f186804cd5f0ca5134c70af81586d37ed550', 'tly_p2Po', 'revoked', '{api}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-26 15:31:17.244869+00', 'tok_01m8c7pjdjkt7am3zb62je3w9g', NULL, '2026-11-26 15:31:17.494865+00', 2, 'tok_01m8c7q0kxtx72d1je9fqf5v38', 0, NULL, NULL);
INSERT INTO tokens.token VALUES ('tok_01m8c7q0a558t1nexkt5tf7a21', '\xc37ea8699ac3717fe84afd23661d696dc1a618cbb0f5c001085e2ca5a186b673', 'tly_iBGa', 'orders of alice', '{orders}', 'alice', NULL, '{"addresses": ["127.0.0.0/8"], "rateLimit": {"timeWindow": 60, "maxRequests": 100}, "referrers": null}', NULL, NULL, false, '2026-11-26 15:31:16.932678+00', 'tok_01m8c7pjdjkt7am3zb62je3w9g', NULL, NULL, 1, 'tok_01m8c7q0a558t1nexkt5tf7a21', 1, '2026-11-26 15:31:17.755658+00', '127.0.0.1');
INSERT INTO tokens.token VALUES ('tok_01m8c7pjdjkt7am3zb62je3w9g', '\x334c05d8505fe9d4caec07960917562c8871817898e70f1c8148b89bae54242d', 'tly_vqfX', 'admin, made at the first start', '{*}', NULL, NULL, '{"addresses": null, "rateLimit": null, "referrers": null}', NULL, NULL, false, '2026-11-26 15:31:02.70565+00', 'first start', NULL, NULL, 1, 'tok_01m8c7pjdjkt7am3zb62je3w9g', 11, '2026-11-26 15:31:19.875898+00', '127.0.0.1');


--
-- Data for Name: use_by_day; Type: TABLE DATA; Schema: tokens; Owner: tokens
--

INSERT INTO tokens.use_by_day VALUES ('tok_01m8c7q0a558t1nexkt5tf7a21', '2026-11-26', '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0}');
INSERT INTO tokens.use_by_day VALUES ('tok_01m8c7pjdjkt7am3zb62je3w9g', '2026-11-26', '{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,11,0,0,0,0,0,0,0,0}');


--
-- Name: audit_id_seq; Type: SEQUENCE SET; Schema: tokens; Owner: tokens
--

SELECT pg_catalog.setval('tokens.audit_id_seq', 13, true);


--
-- Name: grant_number; Type: SEQUENCE SET; Schema: tokens; Owner: tokens
--

SELECT pg_catalog.setval('tokens.grant_number', 17, true);


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
-- Name: audit_by_token; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX audit_by_token ON tokens.audit USING btree (token, id DESC);


--
-- Name: idempotency_by_age; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX idempotency_by_age ON tokens.idempotency USING btree (at);


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
-- Name: token_by_successor; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX token_by_successor ON tokens.token USING btree (rotated_to) WHERE (rotated_to IS NOT NULL);


--
-- Name: use_by_age; Type: INDEX; Schema: tokens; Owner: tokens
--

CREATE INDEX use_by_age ON tokens.use_by_day USING btree (day);


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
-- PostgreSQL database dump complete
--

\unrestrict Y22CwMiy8t9I99ztGqFEABBNeIxzdmyfFeDm0OHYhari7krUJRp5ZCgFv1pl0dv

