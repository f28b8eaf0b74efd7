-- events and tracking
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?);
CREATE TABLE IF NOT EXISTS "dogs_events" (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	originator_id TEXT NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS "dogs_events_aggregate_idx" ON "dogs_events" (originator_id, originator_version);
CREATE TABLE IF NOT EXISTS "dogs_tracking" (
	application_name TEXT NOT NULL,
	notification_id BIGINT NOT NULL,
	PRIMARY KEY (application_name)
);
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?);

-- snapshots
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?)
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?)
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?);
CREATE TABLE IF NOT EXISTS "dogs_snapshots" (
	originator_id TEXT NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BLOB NOT NULL,
	PRIMARY KEY (originator_id, originator_version)
);
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?)
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?)
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?);

-- odd names
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?);
CREATE TABLE IF NOT EXISTS "100 % ""dogs""" (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	originator_id TEXT NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS "100 % ""dogs""_aggregate_idx" ON "100 % ""dogs""" (originator_id, originator_version);
CREATE TABLE IF NOT EXISTS "it's tracked" (
	application_name TEXT NOT NULL,
	notification_id BIGINT NOT NULL,
	PRIMARY KEY (application_name)
);
SELECT m.name, c.name, lower(c.type), CASE WHEN c.pk THEN '' END
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, i.name, NULL, l.name
FROM main.sqlite_master AS m, pragma_index_list(m.name, 'main') AS l, pragma_index_info(l.name, 'main') AS i
WHERE l."unique" AND NOT l.partial AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?)
UNION ALL
SELECT m.name, c.name, NULL, NULL
FROM main.sqlite_master AS m, pragma_table_info(m.name, 'main') AS c
WHERE c.name = 'id' AND c.pk AND m.type = 'table' AND m.sql NOT LIKE '%AUTOINCREMENT%' AND m.type IN ('table', 'view') AND m.name COLLATE NOCASE IN (?, ?);
