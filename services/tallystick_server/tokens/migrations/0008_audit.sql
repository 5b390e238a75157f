-- Rejected attempts are audited as well, and no row of the audit is changed or deleted.

alter table audit add column rejected boolean not null default false;
create index audit_changes_by_token on audit (token, id desc) where not rejected;
create index audit_rejections_by_token on audit (token, id desc) where rejected;
-- For the bound on rejected attempts of one actor, and for what a leaked token did.
create index audit_by_actor on audit (actor_token, at);
drop index audit_by_token;

-- The owner of a table has its rights without a grant; revoking takes them until the owner grants them to itself.
do $$
declare
    owner text := (select pg_get_userbyid(relowner) from pg_class where oid = 'audit'::regclass);
begin
    execute format('revoke update, delete, truncate on audit from %I, current_user, public', owner);
end
$$;

-- Rights do not bind a superuser.
create function reject_audit_change() returns trigger language plpgsql as $$
begin
    raise exception 'the table audit is append-only'
        using errcode = 'insufficient_privilege', hint = 'see docs/security-model.md';
end
$$;
create trigger append_only before update or delete or truncate on audit
    for each statement execute function reject_audit_change();
