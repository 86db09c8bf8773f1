//! HTTP reverse proxy and load balancer that reads nginx.conf. `main` parses the command line; everything else is here.

pub mod conf;
pub mod logic;
