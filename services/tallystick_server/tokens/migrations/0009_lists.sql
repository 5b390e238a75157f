-- Who revoked a token is a part of its record, an account's log is read from the audit, and sorted lists go on from a cursor.

alter table token add column revoked_by text;
update token set revoked_by = (
    select actor from audit where audit.token = token.id and action = 'token.revoked' order by id desc limit 1
) where revoked is not null;

create index audit_by_account on audit ((details ->> 'account'), id desc) where token is null;

-- Not for the order by last use, which every report changes.
create index token_by_expiry on token (coalesce(expires, 'infinity'::timestamptz), id) where revoked is null;
create index token_by_description on token (left(lower(description), 64), id) where revoked is null;
