-- finds: rows of a group that is not compared
-- reads: device_transfer, device_groups
SELECT train_group AS record_id FROM device_transfer
WHERE train_group IS NOT NULL
  AND train_group NOT IN (SELECT "group" FROM device_groups WHERE compared);

-- finds: rows of a group that is not compared
-- reads: device_transfer, device_groups
SELECT test_group AS record_id FROM device_transfer
WHERE test_group IS NOT NULL
  AND test_group NOT IN (SELECT "group" FROM device_groups WHERE compared);
