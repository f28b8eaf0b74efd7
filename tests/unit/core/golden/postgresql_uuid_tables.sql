-- events and tracking
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s))
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s));
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN (%s);
SELECT set_config('lock_timeout', '30000', true);
SELECT pg_advisory_xact_lock(6805293447024020500);
CREATE SCHEMA IF NOT EXISTS "school";
CREATE TABLE IF NOT EXISTS "school"."dogs_events" (
	id BIGSERIAL NOT NULL,
	originator_id UUID NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BYTEA NOT NULL,
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX IF NOT EXISTS "dogs_events_aggregate_idx" ON "school"."dogs_events" (originator_id, originator_version);
CREATE TABLE IF NOT EXISTS "school"."dogs_tracking" (
	application_name TEXT NOT NULL,
	notification_id BIGINT NOT NULL,
	PRIMARY KEY (application_name)
);
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s))
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s));

-- snapshots
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s))
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s));
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN (%s);
SELECT set_config('lock_timeout', '30000', true);
SELECT pg_advisory_xact_lock(6805293447024020500);
CREATE SCHEMA IF NOT EXISTS "school";
CREATE TABLE IF NOT EXISTS "school"."dogs_snapshots" (
	originator_id UUID NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BYTEA NOT NULL,
	PRIMARY KEY (originator_id, originator_version)
);
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s))
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s));

-- odd names
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname ~ '(events|snapshots|tracking)$'
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE c.relname ~ '(events|snapshots|tracking)$';
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s))
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s));
SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname IN (%s);
SELECT set_config('lock_timeout', '30000', true);
SELECT pg_advisory_xact_lock(1786172051892242064);
CREATE SCHEMA IF NOT EXISTS "Größe ""1""";
CREATE TABLE IF NOT EXISTS "Größe ""1"""."100 % ""dogs""" (
	id BIGSERIAL NOT NULL,
	originator_id UUID NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BYTEA NOT NULL,
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX IF NOT EXISTS "100 % ""dogs""_aggregate_idx" ON "Größe ""1"""."100 % ""dogs""" (originator_id, originator_version);
CREATE TABLE IF NOT EXISTS "Größe ""1"""."it's tracked" (
	application_name TEXT NOT NULL,
	notification_id BIGINT NOT NULL,
	PRIMARY KEY (application_name)
);
SELECT n.nspname, c.relname, a.attname, t.typname
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s))
UNION ALL
SELECT n.nspname, c.relname,
  (
    SELECT string_agg(a.attname, ',') FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey)
  ), NULL
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisunique AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
WHERE (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = %s) AND c.relname IN (%s, %s));
