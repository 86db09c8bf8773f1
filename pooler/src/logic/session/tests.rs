//! Scripts of one session between a client and a server.
