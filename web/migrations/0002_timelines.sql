-- The timelines that this database has lived through, entered by whoever meets a new one after a failover. A standby
-- has the row once it follows the new timeline, and a consistency token of an older one is honoured only up to `began`.

CREATE TABLE timelines (
    timeline  bigint PRIMARY KEY,
    -- Up to where the log of the timeline before was replayed when this one began; null where nobody can tell.
    began     pg_lsn
);
