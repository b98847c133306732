-- finds: inputs that are records too
-- reads: rejects, records
SELECT path AS record_id FROM rejects SEMI JOIN records USING (source, path)
WHERE reason <> 'duplicate_path';
