-- finds: more than one row of a record
-- reads: lookup
SELECT record_id FROM lookup GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: lookup, records
SELECT record_id FROM lookup ANTI JOIN records USING (record_id);

-- finds: records that it does not hold
-- reads: lookup, records
SELECT record_id FROM records ANTI JOIN lookup USING (record_id);
