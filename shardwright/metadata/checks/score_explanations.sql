-- finds: more than one row of a record
-- reads: score_explanations
SELECT record_id FROM score_explanations GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: score_explanations, records
SELECT record_id FROM score_explanations ANTI JOIN records USING (record_id);
