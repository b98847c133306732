-- finds: more than one row of a record
-- reads: classified
SELECT record_id FROM classified GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: classified, records
SELECT record_id FROM classified ANTI JOIN records USING (record_id);
