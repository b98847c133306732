-- finds: more than one row of a record
-- reads: similarities
SELECT record_id FROM similarities GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: similarities, records
SELECT record_id FROM similarities ANTI JOIN records USING (record_id);
