-- finds: more than one row of a record
-- reads: embeddings
SELECT record_id FROM embeddings GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: embeddings, records
SELECT record_id FROM embeddings ANTI JOIN records USING (record_id);

-- finds: vectors that are not finite
-- reads: embeddings
SELECT record_id FROM embeddings
WHERE len(list_filter(vector::FLOAT[], lambda v: v IS NULL OR NOT isfinite(v))) > 0;

-- finds: records that neither filters nor duplicates dropped and that have no vector
-- reads: embeddings, decisions
SELECT record_id FROM decisions ANTI JOIN embeddings USING (record_id)
WHERE stage NOT IN ('filter', 'duplicates');
