-- finds: more than one row of a record
-- reads: filter_scores
SELECT record_id FROM filter_scores GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: filter_scores, records
SELECT record_id FROM filter_scores ANTI JOIN records USING (record_id);
