-- finds: more than one row of a record
-- reads: semantic_duplicates
SELECT record_id FROM semantic_duplicates GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: semantic_duplicates, records
SELECT record_id FROM semantic_duplicates ANTI JOIN records USING (record_id);
