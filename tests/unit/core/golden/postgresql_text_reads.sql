-- select_events: all
SELECT originator_version, topic, state FROM "school"."dogs_events" WHERE originator_id = %s ORDER BY originator_version ASC;

-- select_events: gt
SELECT originator_version, topic, state FROM "school"."dogs_events" WHERE originator_id = %s AND originator_version > %s ORDER BY originator_version ASC;

-- select_events: lte
SELECT originator_version, topic, state FROM "school"."dogs_events" WHERE originator_id = %s AND originator_version <= %s ORDER BY originator_version ASC;

-- select_events: gt, lte, desc, limit
SELECT originator_version, topic, state FROM "school"."dogs_events" WHERE originator_id = %s AND originator_version > %s AND originator_version <= %s ORDER BY originator_version DESC LIMIT %s;

-- select_events: desc
SELECT originator_version, topic, state FROM "school"."dogs_events" WHERE originator_id = %s ORDER BY originator_version DESC;

-- select_events: limit
SELECT originator_version, topic, state FROM "school"."dogs_events" WHERE originator_id = %s ORDER BY originator_version ASC LIMIT %s;

-- select_events of snapshots: the last
SELECT originator_version, topic, state FROM "school"."dogs_snapshots" WHERE originator_id = %s ORDER BY originator_version DESC LIMIT %s;

-- select_notifications: from the beginning
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" ORDER BY id LIMIT %s;

-- select_notifications: start
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" WHERE id >= %s ORDER BY id LIMIT %s;

-- select_notifications: start, exclusive
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" WHERE id > %s ORDER BY id LIMIT %s;

-- select_notifications: start, stop
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" WHERE id >= %s AND id <= %s ORDER BY id LIMIT %s;

-- select_notifications: stop
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" WHERE id <= %s ORDER BY id LIMIT %s;

-- select_notifications: one topic
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" WHERE topic IN (%s) ORDER BY id LIMIT %s;

-- select_notifications: start, stop, two topics
SELECT id, originator_id, originator_version, topic, state FROM "school"."dogs_events" WHERE id >= %s AND id <= %s AND topic IN (%s, %s) ORDER BY id LIMIT %s;

-- max_notification_id
SELECT max(id) FROM "school"."dogs_events";

-- max_notification_id of a table with an odd name
SELECT max(id) FROM "Größe ""1"""."100 % ""dogs""";

-- max_tracking_id
SELECT notification_id FROM "school"."dogs_tracking" WHERE application_name = %s;

-- whether there are positions
SELECT 1 FROM "school"."dogs_tracking" LIMIT 1;

-- select_events of a table with an odd name
SELECT originator_version, topic, state FROM "Größe ""1"""."100 %% ""dogs""" WHERE originator_id = %s ORDER BY originator_version ASC;

-- after an ambiguous commit
SELECT id, topic, state FROM "school"."dogs_events" WHERE originator_id = %s AND originator_version = %s;

-- after an ambiguous commit of a snapshot
SELECT 0, topic, state FROM "school"."dogs_snapshots" WHERE originator_id = %s AND originator_version = %s;
