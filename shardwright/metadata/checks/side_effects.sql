-- finds: groupings that do not add up to the scored records
-- reads: side_effects, scores
SELECT method || ' ' || grouping AS record_id FROM side_effects
GROUP BY method, grouping
HAVING sum(records) <> (SELECT count(*) FROM scores);

-- finds: no groups of a method and grouping
-- reads: side_effects, scores
SELECT column_name || ' ' || grouping AS record_id
FROM (DESCRIBE scores), (SELECT DISTINCT grouping FROM side_effects)
WHERE column_name <> 'record_id'
  AND (column_name, grouping) NOT IN (SELECT (method, grouping) FROM side_effects);
