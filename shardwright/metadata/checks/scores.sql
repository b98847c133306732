-- finds: more than one row of a record
-- reads: scores
SELECT record_id FROM scores GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: scores, records
SELECT record_id FROM scores ANTI JOIN records USING (record_id);

-- finds: records that no stage before pruning dropped and that have no score
-- reads: scores, decisions
SELECT record_id FROM decisions ANTI JOIN scores USING (record_id)
WHERE stage IN ('prune', 'keep');
