-- finds: more than one row of a method and family
-- reads: evaluation
SELECT method || ' ' || family AS record_id FROM evaluation GROUP BY method, family
HAVING count(*) > 1;
