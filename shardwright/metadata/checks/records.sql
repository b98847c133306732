-- finds: more than one row of a record
-- reads: records
SELECT record_id FROM records GROUP BY record_id HAVING count(*) > 1;
