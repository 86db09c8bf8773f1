-- The totals of the monitoring pages: counting all messages takes long, so it is done on a schedule and not for each reader.

CREATE MATERIALIZED VIEW admin_totals AS
SELECT 1 AS id,
       (SELECT count(*) FROM users WHERE deleted_at IS NULL) AS users,
       (SELECT count(*) FROM sessions) AS sessions,
       (SELECT count(*) FROM messages) AS messages,
       recent.messages_24h,
       recent.active_users_24h,
       now() AS computed_at
  FROM (SELECT count(*) AS messages_24h, count(DISTINCT author_id) AS active_users_24h
          FROM messages WHERE created_at > now() - interval '24 hours') recent;

-- Without a unique index a refresh would keep readers out.
CREATE UNIQUE INDEX admin_totals_id ON admin_totals (id);

-- Every replica calls it on its own clock; the first one that finds the totals too old counts, the others go on.
-- As its owner, because only the owner of a view may refresh it, and the service may log in as somebody else.
CREATE FUNCTION refresh_admin_totals(age_max interval) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(hashtext('refresh_admin_totals'))
       OR (SELECT computed_at FROM admin_totals) > now() - age_max THEN
        RETURN false;
    END IF;
    REFRESH MATERIALIZED VIEW CONCURRENTLY admin_totals;
    RETURN true;
END $$;
