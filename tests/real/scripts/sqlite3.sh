# sqlite3
{ sqlite3 x.db <<'E'
create table t(i integer primary key, s text);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 50000)
insert into t select i, hex(i * 7919 % 65537) from n;
create index s on t(s);
select count(*), sum(i), max(s) from t;
pragma journal_mode = wal;
delete from t where i % 3 = 0;
vacuum;
pragma integrity_check;
.dump t
.exit
E
} | sha256sum; sha256sum x.db
