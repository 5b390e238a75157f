-- Tokens of one family may come to have windows of different lengths. Each length is counted apart: a shorter one would
-- begin the longer one's count anew.
alter table rate_window drop constraint rate_window_pkey;
alter table rate_window add column seconds integer;
update rate_window set seconds = (
    select (restrictions #>> '{rateLimit,timeWindow}')::integer from token
    where token.family = rate_window.family and restrictions #> '{rateLimit,timeWindow}' is not null limit 1
);
delete from rate_window where seconds is null;
alter table rate_window add primary key (family, seconds);
