-- Labels as data. They were stored as text for Prometheus, such as state="connected", whose escapes JSON has too.
create function metric_labels(printed text) returns jsonb language plpgsql as $$
declare
    members text := regexp_replace(printed, '([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"', '"\1":"\2"', 'g');
begin
    -- JSON strings hold no control characters.
    for code in 1..31 loop
        members := replace(members, chr(code), '\u' || lpad(to_hex(code), 4, '0'));
    end loop;
    return ('{' || members || '}')::jsonb;
end $$;

-- The same labels may be stored in several orders: their values add up.
create table merged as
    select name, metric_labels(labels) as labels, least(sum(value), 9223372036854775807)::bigint as value
    from counter group by 1, 2;
truncate counter;
alter table counter alter column labels type jsonb using '{}';
insert into counter (name, labels, value) select name, labels, value from merged;
drop table merged;

create table merged as
    select name, metric_labels(labels) as labels, least(sum(value), 9223372036854775807)::bigint as value
    from recount_counter group by 1, 2;
truncate recount_counter;
alter table recount_counter alter column labels type jsonb using '{}';
insert into recount_counter (name, labels, value) select name, labels, value from merged;
drop table merged;

-- Every process reports its gauges again within seconds.
truncate gauge;
alter table gauge alter column labels type jsonb using '{}';

drop function metric_labels;
