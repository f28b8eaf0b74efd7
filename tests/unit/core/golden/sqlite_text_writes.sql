-- events: one
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();

-- events: two
BEGIN IMMEDIATE;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- events: large ones
BEGIN IMMEDIATE;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- snapshots: one
INSERT INTO "dogs_snapshots" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);

-- snapshots: two
BEGIN IMMEDIATE;
INSERT INTO "dogs_snapshots" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
COMMIT;

-- snapshots: large ones
BEGIN IMMEDIATE;
INSERT INTO "dogs_snapshots" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
COMMIT;

-- odd: one
INSERT INTO "100 % ""dogs""" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();

-- odd: two
BEGIN IMMEDIATE;
INSERT INTO "100 % ""dogs""" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- odd: large ones
BEGIN IMMEDIATE;
INSERT INTO "100 % ""dogs""" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- events with tracking: one
BEGIN IMMEDIATE;
INSERT INTO "dogs_tracking" AS x (application_name, notification_id) VALUES (?, ?) ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id WHERE x.notification_id < excluded.notification_id RETURNING 1;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- events with tracking: two
BEGIN IMMEDIATE;
INSERT INTO "dogs_tracking" AS x (application_name, notification_id) VALUES (?, ?) ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id WHERE x.notification_id < excluded.notification_id RETURNING 1;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- events with tracking: large ones
BEGIN IMMEDIATE;
INSERT INTO "dogs_tracking" AS x (application_name, notification_id) VALUES (?, ?) ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id WHERE x.notification_id < excluded.notification_id RETURNING 1;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- no events with tracking
INSERT INTO "dogs_tracking" AS x (application_name, notification_id) VALUES (?, ?) ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id WHERE x.notification_id < excluded.notification_id RETURNING 1;

-- tracking alone
INSERT INTO "dogs_tracking" AS x (application_name, notification_id) VALUES (?, ?) ON CONFLICT (application_name) DO UPDATE SET notification_id = excluded.notification_id WHERE x.notification_id < excluded.notification_id RETURNING 1;

-- events with conditional tracking: one
BEGIN IMMEDIATE;
UPDATE "dogs_tracking" SET notification_id = ? WHERE application_name = ? AND notification_id >= ? AND notification_id < ? RETURNING 1;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- events with conditional tracking: two
BEGIN IMMEDIATE;
UPDATE "dogs_tracking" SET notification_id = ? WHERE application_name = ? AND notification_id >= ? AND notification_id < ? RETURNING 1;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- events with conditional tracking: large ones
BEGIN IMMEDIATE;
UPDATE "dogs_tracking" SET notification_id = ? WHERE application_name = ? AND notification_id >= ? AND notification_id < ? RETURNING 1;
INSERT INTO "dogs_events" (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?);
SELECT last_insert_rowid();
COMMIT;

-- conditional tracking alone
UPDATE "dogs_tracking" SET notification_id = ? WHERE application_name = ? AND notification_id >= ? AND notification_id < ? RETURNING 1;
