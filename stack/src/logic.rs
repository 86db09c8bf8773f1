//! What the stack decides without touching anything: plan, configuration texts, restarts, shapes of reports.

pub mod addresses;
pub mod balancer_conf;
pub mod names;
pub mod plan;
pub mod ports;
pub mod report;
pub mod restart;
pub mod template;
pub mod url;
