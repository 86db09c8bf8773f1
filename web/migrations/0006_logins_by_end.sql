-- Every replica reads the last ends of logins all the time; the logins that have not ended are of no interest there.

CREATE INDEX logins_by_end ON logins (revoked_at) WHERE revoked_at IS NOT NULL;
