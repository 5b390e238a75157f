-- Reserved for the migration of limits; delete this file when that one is merged.
select 1;
