-- When the owner last wrote. One that fell silent is followed by another, whatever became of its connection.
alter table stream_position add column seen timestamptz not null default '-infinity';
