-- Counting and removing messages by age. BRIN: messages come in the order of their time, so a few bytes per block will do,
-- and storing one costs nothing more.

CREATE INDEX messages_by_time ON messages USING brin (created_at) WITH (autosummarize = on);
