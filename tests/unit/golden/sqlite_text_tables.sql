-- events and tracking
SELECT name, type, pk FROM pragma_table_info(?);
SELECT name, type, pk FROM pragma_table_info(?);
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
SELECT name, type, pk FROM pragma_table_info(?);
SELECT name, type, pk FROM pragma_table_info(?);

-- snapshots
SELECT name, type, pk FROM pragma_table_info(?);
CREATE TABLE IF NOT EXISTS "dogs_snapshots" (
	originator_id TEXT NOT NULL,
	originator_version BIGINT NOT NULL,
	topic TEXT NOT NULL,
	state BLOB NOT NULL,
	PRIMARY KEY (originator_id, originator_version)
);
SELECT name, type, pk FROM pragma_table_info(?);

-- odd names
SELECT name, type, pk FROM pragma_table_info(?);
SELECT name, type, pk FROM pragma_table_info(?);
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
SELECT name, type, pk FROM pragma_table_info(?);
SELECT name, type, pk FROM pragma_table_info(?);
