-- Rises with every take-over: a process that was overtaken without noticing can write nothing any more.
alter table stream_position add column epoch bigint not null default 0;
