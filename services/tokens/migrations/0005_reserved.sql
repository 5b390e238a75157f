-- Reserved: migrations are numbered without gaps.
select 1;
