-- events: one
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(-2424012544541807031) FROM c) INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) SELECT %s::text, %s::bigint, %s::text, %s::bytea FROM l RETURNING id + CASE WHEN id > coalesce((SELECT o.id FROM "school"."dogs_events" AS o ORDER BY o.id DESC LIMIT 1), 0) THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;

-- events: two
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(-2424012544541807031) FROM c) INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) SELECT u.i, u.v, u.t, u.s FROM l, unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n) ORDER BY u.n RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;

-- events: large ones
BEGIN;
SELECT set_config('idle_in_transaction_session_timeout', '30000', true);
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) SELECT pg_advisory_xact_lock(-2424012544541807031) FROM c;
INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
COMMIT;

-- snapshots: one
INSERT INTO "school"."dogs_snapshots" (originator_id, originator_version, topic, state) SELECT %s::text, %s::bigint, %s::text, %s::bytea;

-- snapshots: two
INSERT INTO "school"."dogs_snapshots" (originator_id, originator_version, topic, state) SELECT u.i, u.v, u.t, u.s FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n) ORDER BY u.n;

-- snapshots: large ones
BEGIN;
SELECT set_config('idle_in_transaction_session_timeout', '30000', true);
INSERT INTO "school"."dogs_snapshots" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea);
INSERT INTO "school"."dogs_snapshots" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea);
COMMIT;

-- odd: one
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(8498478612357527471) FROM c) INSERT INTO "Größe ""1"""."100 %% ""dogs""" (originator_id, originator_version, topic, state) SELECT %s::text, %s::bigint, %s::text, %s::bytea FROM l RETURNING id + CASE WHEN id > coalesce((SELECT o.id FROM "Größe ""1"""."100 %% ""dogs""" AS o ORDER BY o.id DESC LIMIT 1), 0) THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;

-- odd: two
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(8498478612357527471) FROM c) INSERT INTO "Größe ""1"""."100 %% ""dogs""" (originator_id, originator_version, topic, state) SELECT u.i, u.v, u.t, u.s FROM l, unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n) ORDER BY u.n RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;

-- odd: large ones
BEGIN;
SELECT set_config('idle_in_transaction_session_timeout', '30000', true);
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) SELECT pg_advisory_xact_lock(8498478612357527471) FROM c;
INSERT INTO "Größe ""1"""."100 %% ""dogs""" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
INSERT INTO "Größe ""1"""."100 %% ""dogs""" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
COMMIT;

-- events with tracking: one
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), t AS (INSERT INTO "school"."dogs_tracking" AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(-2424012544541807031) FROM t), i AS (INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) SELECT %s::text, %s::bigint, %s::text, %s::bytea FROM l RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id) SELECT 0 FROM t UNION ALL SELECT id FROM i;

-- events with tracking: two
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), t AS (INSERT INTO "school"."dogs_tracking" AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(-2424012544541807031) FROM t), i AS (INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) SELECT u.i, u.v, u.t, u.s FROM l, unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n) ORDER BY u.n RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id) SELECT 0 FROM t UNION ALL SELECT id FROM i;

-- events with tracking: large ones
BEGIN;
SELECT set_config('idle_in_transaction_session_timeout', '30000', true);
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) INSERT INTO "school"."dogs_tracking" AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1;
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) SELECT pg_advisory_xact_lock(-2424012544541807031) FROM c;
INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
COMMIT;

-- no events with tracking
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) INSERT INTO "school"."dogs_tracking" AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1;

-- tracking alone
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) INSERT INTO "school"."dogs_tracking" AS x (application_name, notification_id) SELECT %s, %s::bigint FROM c ON CONFLICT (application_name) DO UPDATE SET notification_id = EXCLUDED.notification_id WHERE x.notification_id < EXCLUDED.notification_id RETURNING 1;

-- events with conditional tracking: one
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), t AS (UPDATE "school"."dogs_tracking" AS x SET notification_id = %s::bigint FROM c WHERE x.application_name = %s AND x.notification_id >= %s::bigint AND x.notification_id < %s::bigint RETURNING 1), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(-2424012544541807031) FROM t), i AS (INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) SELECT %s::text, %s::bigint, %s::text, %s::bytea FROM l RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id) SELECT 0 FROM t UNION ALL SELECT id FROM i;

-- events with conditional tracking: two
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)), t AS (UPDATE "school"."dogs_tracking" AS x SET notification_id = %s::bigint FROM c WHERE x.application_name = %s AND x.notification_id >= %s::bigint AND x.notification_id < %s::bigint RETURNING 1), l AS MATERIALIZED (SELECT pg_advisory_xact_lock(-2424012544541807031) FROM t), i AS (INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) SELECT u.i, u.v, u.t, u.s FROM l, unnest(%s::text[], %s::bigint[], %s::text[], %s::bytea[]) WITH ORDINALITY AS u (i, v, t, s, n) ORDER BY u.n RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id) SELECT 0 FROM t UNION ALL SELECT id FROM i;

-- events with conditional tracking: large ones
BEGIN;
SELECT set_config('idle_in_transaction_session_timeout', '30000', true);
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) UPDATE "school"."dogs_tracking" AS x SET notification_id = %s::bigint FROM c WHERE x.application_name = %s AND x.notification_id >= %s::bigint AND x.notification_id < %s::bigint RETURNING 1;
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) SELECT pg_advisory_xact_lock(-2424012544541807031) FROM c;
INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
INSERT INTO "school"."dogs_events" (originator_id, originator_version, topic, state) VALUES (%s::text, %s, %s, %s::bytea) RETURNING id + CASE WHEN id > %s::bigint THEN 0 ELSE width_bucket(id, 0, 1, 0) END AS id;
COMMIT;

-- conditional tracking alone
WITH c AS MATERIALIZED (SELECT set_config('lock_timeout', '5000', true)) UPDATE "school"."dogs_tracking" AS x SET notification_id = %s::bigint FROM c WHERE x.application_name = %s AND x.notification_id >= %s::bigint AND x.notification_id < %s::bigint RETURNING 1;
