-- finds: rows of no record
-- reads: contamination, records
SELECT record_id FROM contamination ANTI JOIN records USING (record_id);
