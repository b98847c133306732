-- finds: more than one row of a record
-- reads: device_statistics
SELECT record_id FROM device_statistics GROUP BY record_id HAVING count(*) > 1;

-- finds: rows of no record
-- reads: device_statistics, records
SELECT record_id FROM device_statistics ANTI JOIN records USING (record_id);

-- finds: records that it does not hold
-- reads: device_statistics, records
SELECT record_id FROM records ANTI JOIN device_statistics USING (record_id);
