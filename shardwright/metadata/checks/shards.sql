-- finds: more than one row of a record
-- reads: shards
SELECT record_id FROM shards GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: shards, records
SELECT record_id FROM shards ANTI JOIN records USING (record_id);

-- finds: kept records that it does not hold
-- reads: shards, decisions
SELECT record_id FROM decisions ANTI JOIN shards USING (record_id) WHERE keep;

-- finds: records that are not kept
-- reads: shards, decisions
SELECT record_id FROM shards
ANTI JOIN (SELECT record_id FROM decisions WHERE keep) USING (record_id);

-- finds: shards whose positions are not 0, 1, 2, ...
-- reads: shards
SELECT split || '/' || shard AS record_id FROM shards GROUP BY split, shard
HAVING min(position) <> 0 OR max(position) + 1 <> count(*)
  OR count(DISTINCT position) <> count(*);
