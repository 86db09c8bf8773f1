-- Users, logins, sessions, members, messages.

CREATE TABLE users (
    id            uuid PRIMARY KEY,
    username      text NOT NULL UNIQUE,
    display_name  text NOT NULL,
    password_hash text NOT NULL,
    role          text NOT NULL DEFAULT 'user' CHECK (role IN ('user', 'admin')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- Messages of a deleted user stay: the row is kept without name and password.
    deleted_at    timestamptz
);

-- One login is one family of refresh tokens: a token that comes back after its successor was made ends the family.
CREATE TABLE logins (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- SHA-256 of the only refresh token that is valid now.
    token_hash    bytea NOT NULL UNIQUE,
    user_agent    text NOT NULL,
    address       text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    refreshed_at  timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL,
    revoked_at    timestamptz
);
CREATE INDEX logins_of_user ON logins (user_id, id);

-- Refresh tokens that were used up: whoever brings one again has stolen it, or was stolen from.
CREATE TABLE spent_tokens (
    token_hash  bytea PRIMARY KEY,
    login_id    uuid NOT NULL REFERENCES logins ON DELETE CASCADE,
    spent_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX spent_tokens_of_login ON spent_tokens (login_id);

CREATE TABLE sessions (
    id           uuid PRIMARY KEY,
    slug         text UNIQUE CHECK (slug ~ '^[a-z0-9-]{3,64}$'),
    title        text NOT NULL,
    visibility   text NOT NULL CHECK (visibility IN ('private', 'public')),
    owner_id     uuid NOT NULL REFERENCES users,
    -- The offset of the newest message. Whoever stores one takes the next by updating this row, so that
    -- offsets come without gaps and in the order of commits.
    last_offset  bigint NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now()
)
-- Room on each page, so that counting up last_offset need not touch an index.
WITH (fillfactor = 70);

CREATE TABLE members (
    session_id  uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    joined_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, user_id)
);
CREATE INDEX members_by_user ON members (user_id, session_id);

CREATE TABLE messages (
    session_id     uuid NOT NULL REFERENCES sessions ON DELETE CASCADE,
    "offset"       bigint NOT NULL,
    id             uuid NOT NULL UNIQUE,
    role           text NOT NULL CHECK (role IN ('user', 'assistant')),
    -- Null where the responder speaks.
    author_id      uuid REFERENCES users,
    content        text NOT NULL,
    client_msg_id  text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (session_id, "offset")
);
-- The same message sent again is found here and not stored twice; the responder counts as one author.
CREATE UNIQUE INDEX messages_sent_once
    ON messages (session_id, coalesce(author_id, '00000000-0000-0000-0000-000000000000'::uuid), client_msg_id)
    WHERE client_msg_id IS NOT NULL;
