//! What is not nginx.conf's to say: the environment's settings. `ops_listen` in the configuration says the same as these
//! two, which win.

use chassis::settings::{Setting, shared};

pub static SETTINGS: &[Setting] = &[shared::BALANCER_OPS_PORT_ALONE, shared::BALANCER_OPS_ADDR];
