-- finds: more than one row of a record
-- reads: decisions
SELECT record_id FROM decisions GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: decisions, records
SELECT record_id FROM decisions ANTI JOIN records USING (record_id);

-- finds: records without a decision
-- reads: decisions, records
SELECT record_id FROM records ANTI JOIN decisions USING (record_id);

-- finds: keep and stage contradict each other
-- reads: decisions
SELECT record_id FROM decisions WHERE keep <> (stage = 'keep');

-- finds: decisions that their score and threshold do not bear out
-- reads: decisions
SELECT record_id FROM decisions WHERE stage IN ('keep', 'prune') AND score IS NOT NULL
  AND CASE WHEN keep THEN score < threshold ELSE score > threshold END;

-- finds: duplicates that are in no group
-- reads: decisions, duplicates
SELECT record_id FROM decisions ANTI JOIN duplicates USING (record_id)
WHERE stage = 'duplicates';

-- finds: semantic duplicates that are in no group
-- reads: decisions, semantic_duplicates
SELECT record_id FROM decisions ANTI JOIN semantic_duplicates USING (record_id)
WHERE stage = 'semantic';

-- finds: records dropped for a benchmark that they do not hit
-- reads: decisions, contamination
SELECT record_id FROM decisions ANTI JOIN contamination USING (record_id)
WHERE stage = 'decontaminate';

-- finds: records dropped by a filter that did not measure them
-- reads: decisions, filter_scores
SELECT record_id FROM decisions ANTI JOIN filter_scores USING (record_id)
WHERE stage = 'filter';

-- finds: duplicates of which it does not say what stays
-- reads: decisions
SELECT record_id FROM decisions
WHERE stage IN ('duplicates', 'semantic') AND representative_id IS NULL;
