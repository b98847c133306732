-- finds: more than one row of a record
-- reads: clusters
SELECT record_id FROM clusters GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: clusters, records
SELECT record_id FROM clusters ANTI JOIN records USING (record_id);

-- finds: clusters without a centroid
-- reads: clusters, centroids
SELECT record_id FROM clusters ANTI JOIN centroids USING (cluster);

-- finds: records that no stage before pruning dropped and that have no cluster
-- reads: clusters, decisions
SELECT record_id FROM decisions ANTI JOIN clusters USING (record_id)
WHERE stage IN ('prune', 'keep');
