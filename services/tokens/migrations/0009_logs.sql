-- Who revoked a token is a part of its record, and an account's log is read from the audit.

alter table token add column revoked_by text;
update token set revoked_by = (
    select actor from audit where audit.token = token.id and action = 'token.revoked' order by id desc limit 1
) where revoked is not null;

create index audit_by_account on audit ((details ->> 'account'), id desc) where token is null;
