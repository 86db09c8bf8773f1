-- Tickets for WebSockets that were made without Redis and are used up: each is good once, on whichever replica. Their rows
-- are removed soon after the tickets' end.

CREATE TABLE used_tickets (
    id       uuid PRIMARY KEY,
    -- Names the unit that used it: a second run of the same one is no second use.
    used_by  uuid NOT NULL,
    ends_at  timestamptz NOT NULL
);
