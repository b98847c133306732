-- finds: more than one row of a record
-- reads: tokens
SELECT record_id FROM tokens GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: tokens, records
SELECT record_id FROM tokens ANTI JOIN records USING (record_id);

-- finds: kept records that it does not hold
-- reads: tokens, decisions
SELECT record_id FROM decisions ANTI JOIN tokens USING (record_id) WHERE keep;

-- finds: records that are not kept
-- reads: tokens, decisions
SELECT record_id FROM tokens
ANTI JOIN (SELECT record_id FROM decisions WHERE keep) USING (record_id);
