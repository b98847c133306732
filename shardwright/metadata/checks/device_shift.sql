-- finds: rows of a group that is not compared
-- reads: device_shift, device_groups
SELECT group_a AS record_id FROM device_shift
WHERE group_a IS NOT NULL
  AND group_a NOT IN (SELECT "group" FROM device_groups WHERE compared);

-- finds: rows of a group that is not compared
-- reads: device_shift, device_groups
SELECT group_b AS record_id FROM device_shift
WHERE group_b IS NOT NULL
  AND group_b NOT IN (SELECT "group" FROM device_groups WHERE compared);
