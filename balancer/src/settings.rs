//! What is not nginx.conf's to say: the environment's settings. They win over `ops_listen` and, where it is longer,
//! `worker_shutdown_timeout` of the configuration.

use chassis::settings::{Kind, Setting, shared};

pub static SETTINGS: &[Setting] = &[
    shared::BALANCER_OPS_PORT_ALONE,
    shared::BALANCER_OPS_ADDR,
    Setting {
        name: "BALANCER_DRAIN_TIMEOUT",
        kind: Kind::Seconds,
        default: "",
        live: false,
        doc: "at most so long a graceful stop waits for what is under way; empty: as `worker_shutdown_timeout` says",
    },
];
