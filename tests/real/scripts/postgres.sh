# postgres
export PATH=/usr/lib/postgresql/15/bin:$PATH LC_ALL=C
mkdir /tmp/pg
chown postgres /tmp/pg
cd /tmp/pg
as() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
as initdb -D /tmp/pg/data -E UTF8 --no-sync -A trust >/tmp/pg/init.log 2>&1 || cat /tmp/pg/init.log
as pg_ctl -s -D /tmp/pg/data -o '-k /tmp/pg -p 7003 -F' -l /tmp/pg/log -w start
q() { as psql -h /tmp/pg -p 7003 -At -d postgres -c "$1"; }
q 'select count(*), sum(i::bigint * i) from generate_series(1, 100000) i'
q 'create table t as select i, md5(i::text) m from generate_series(1, 20000) i'
q 'create index on t (m)'
q "select m from t where m like 'abc%' order by m"
q 'select 1 / 0' 2>&1
as pgbench -h /tmp/pg -p 7003 -i -q postgres 2>/dev/null
as pgbench -h /tmp/pg -p 7003 -c 4 -j 2 -t 200 postgres 2>/dev/null | grep -E 'processed|failed'
q 'select count(*) from pgbench_history'
q 'vacuum analyze'
q 'set max_parallel_workers_per_gather = 4'
as pg_ctl -s -D /tmp/pg/data -m fast stop
grep -c 'shut down' /tmp/pg/log
