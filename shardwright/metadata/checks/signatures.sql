-- finds: more than one row of a record
-- reads: signatures
SELECT record_id FROM signatures GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: signatures, records
SELECT record_id FROM signatures ANTI JOIN records USING (record_id);
