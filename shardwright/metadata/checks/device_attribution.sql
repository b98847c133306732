-- finds: rows of a group that is not compared
-- reads: device_attribution, device_groups
SELECT group_a AS record_id FROM device_attribution
WHERE group_a IS NOT NULL
  AND group_a NOT IN (SELECT "group" FROM device_groups WHERE compared);

-- finds: rows of a group that is not compared
-- reads: device_attribution, device_groups
SELECT group_b AS record_id FROM device_attribution
WHERE group_b IS NOT NULL
  AND group_b NOT IN (SELECT "group" FROM device_groups WHERE compared);

-- finds: pairs whose ranks are not 1, 2, 3, ... or whose shares add up to more than the whole
-- reads: device_attribution
SELECT group_a || ' ' || group_b AS record_id FROM device_attribution
GROUP BY group_a, group_b
HAVING min(rank) <> 1 OR max(rank) <> count(*)
  OR count(DISTINCT rank) <> count(*) OR sum(share) > 1 + 1e-9;
