//! What is not nginx.conf's to say: the environment's settings. They win over `ops_listen` and, where it is longer,
//! `worker_shutdown_timeout` of the configuration.

use chassis::settings::{Setting, shared};

pub static SETTINGS: &[Setting] =
    &[shared::BALANCER_OPS_PORT_ALONE, shared::BALANCER_OPS_ADDR, shared::BALANCER_DRAIN_TIMEOUT];
