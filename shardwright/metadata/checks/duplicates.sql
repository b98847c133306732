-- finds: more than one row of a record
-- reads: duplicates
SELECT record_id FROM duplicates GROUP BY record_id, kind HAVING count(*) > 1;

-- finds: rows of no record
-- reads: duplicates, records
SELECT record_id FROM duplicates ANTI JOIN records USING (record_id);
