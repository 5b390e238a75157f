-- Rate limits: takes that can be repeated, and quotas that can be given back.

alter table rate_window add column recalled bigint not null default 0; -- the start of the window last recalled
alter table rate_window add column recalled_limit bigint not null default 0; -- the limit that was reached then
alter table rate_window add column recall_ends timestamptz not null default '-infinity';

-- The latest take of each holder: one edge process and one token. A repeated take finds its own number here; a later one
-- replaces it.
create table quota_holder (
    family text not null,
    holder text not null,
    take bigint not null,
    seconds integer not null, -- the length of the window
    starts bigint not null, -- of the window, seconds since the epoch
    granted bigint not null,
    allowed bigint not null, -- the limit at that time
    remaining bigint not null,
    closed boolean not null, -- nothing of it can be given back any more
    returned bigint not null, -- what was given back last, of this take or the one before
    primary key (family, holder)
) with (fillfactor = 70);
create index quota_holder_by_end on quota_holder ((starts + seconds));

-- The windows of a family are locked first, in order of their length, so that no two calls wait for each other.
create function lock_rate_windows(in_family text, length integer, other integer) returns void language sql as $$
    select from rate_window where family = in_family and seconds in (length, other) order by seconds for update;
$$;

-- Closes a holder's latest take and counts what is given back of it: once, never more than the take handed out, and only
-- as long as its window lasts. The windows are locked.
create function close_take(held quota_holder, unspent bigint) returns bigint language plpgsql as $$
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

create function return_quota(
    in_family text, in_holder text, in_take bigint, length integer, in_starts bigint, unspent bigint
) returns bigint language plpgsql as $$
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

-- Takes requests out of the current window of a token's limit. Without a row for the token, or without a limit, all results
-- are null.
create function take_quota(
    token_id text,
    wanted bigint,
    waiting bigint,
    sharing bigint, -- among how many edges the rest of the window is divided
    in_holder text, -- null: nothing can be given back, and nothing is remembered
    in_take bigint,
    unspent bigint,
    recall_s float8, -- how long a recall waits
    may_wait boolean,
    out family text,
    out granted bigint,
    out allowed bigint, -- the limit
    out remaining bigint,
    out seconds integer,
    out starts bigint,
    out resets_in float8,
    out returned bigint,
    out recalls boolean, -- the edges have to be notified
    out wait_s float8 -- over 0: nothing was decided; call again
) language plpgsql as $$
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
