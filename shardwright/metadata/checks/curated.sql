-- finds: more than one row of a record
-- reads: curated
SELECT record_id FROM curated GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: curated, records
SELECT record_id FROM curated ANTI JOIN records USING (record_id);

-- finds: kept records that it does not hold
-- reads: curated, decisions
SELECT record_id FROM decisions ANTI JOIN curated USING (record_id) WHERE keep;

-- finds: records that are not kept
-- reads: curated, decisions
SELECT record_id FROM curated
ANTI JOIN (SELECT record_id FROM decisions WHERE keep) USING (record_id);

-- finds: another split than in shards
-- reads: curated, shards
SELECT record_id FROM curated JOIN shards USING (record_id)
WHERE curated.split <> shards.split;

-- finds: other source, path or size than in records
-- reads: curated, records
SELECT record_id FROM curated AS c JOIN records AS r USING (record_id)
WHERE (c.source, c.path, c.bytes) <> (r.source, r.path, r.bytes);
