-- select_events: all
SELECT originator_version, topic, state FROM "dogs_events" WHERE originator_id = ? ORDER BY originator_version ASC;

-- select_events: gt
SELECT originator_version, topic, state FROM "dogs_events" WHERE originator_id = ? AND originator_version > ? ORDER BY originator_version ASC;

-- select_events: lte
SELECT originator_version, topic, state FROM "dogs_events" WHERE originator_id = ? AND originator_version <= ? ORDER BY originator_version ASC;

-- select_events: gt, lte, desc, limit
SELECT originator_version, topic, state FROM "dogs_events" WHERE originator_id = ? AND originator_version > ? AND originator_version <= ? ORDER BY originator_version DESC LIMIT ?;

-- select_events: desc
SELECT originator_version, topic, state FROM "dogs_events" WHERE originator_id = ? ORDER BY originator_version DESC;

-- select_events: limit
SELECT originator_version, topic, state FROM "dogs_events" WHERE originator_id = ? ORDER BY originator_version ASC LIMIT ?;

-- select_events of snapshots: the last
SELECT originator_version, topic, state FROM "dogs_snapshots" WHERE originator_id = ? ORDER BY originator_version DESC LIMIT ?;

-- select_notifications: from the beginning
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" ORDER BY id LIMIT ?;

-- select_notifications: start
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" WHERE id >= ? ORDER BY id LIMIT ?;

-- select_notifications: start, exclusive
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" WHERE id > ? ORDER BY id LIMIT ?;

-- select_notifications: start, stop
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" WHERE id >= ? AND id <= ? ORDER BY id LIMIT ?;

-- select_notifications: stop
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" WHERE id <= ? ORDER BY id LIMIT ?;

-- select_notifications: one topic
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" WHERE topic IN (?) ORDER BY id LIMIT ?;

-- select_notifications: start, stop, two topics
SELECT id, originator_id, originator_version, topic, state FROM "dogs_events" WHERE id >= ? AND id <= ? AND topic IN (?, ?) ORDER BY id LIMIT ?;

-- max_notification_id
SELECT max(id) FROM "dogs_events";

-- max_notification_id of a table with an odd name
SELECT max(id) FROM "100 % ""dogs""";

-- max_tracking_id
SELECT notification_id FROM "dogs_tracking" WHERE application_name = ?;

-- whether there are positions
SELECT 1 FROM "dogs_tracking" LIMIT 1;

-- select_events of a table with an odd name
SELECT originator_version, topic, state FROM "100 % ""dogs""" WHERE originator_id = ? ORDER BY originator_version ASC;

-- after an ambiguous commit
SELECT id, topic, state FROM "dogs_events" WHERE originator_id = ? AND originator_version = ?;

-- after an ambiguous commit of a snapshot
SELECT 0, topic, state FROM "dogs_snapshots" WHERE originator_id = ? AND originator_version = ?;
