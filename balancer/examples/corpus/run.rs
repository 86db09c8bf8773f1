//! One run: an origin, the balancer before it, the cases, and the comparison of what was sent with what was seen.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::answers;
use crate::drive::{self, Plan, Tally};
use crate::origins::Origin;
use crate::world::Balancer;

/// Runs the plan before the origin of that name.
pub fn run(balancer: &Path, name: &str, plan: Plan) -> Tally {
    let dir = tempfile::tempdir().expect("a folder can be made");
    // Origins that drop their privileges write their logs there.
    set_permissions(dir.path(), Permissions::from_mode(0o777)).expect("the folder is ours");
    if name == "answers" {
        let port = answers::scripted_origin(plan.seed);
        let (_balancer, door) = Balancer::start(balancer, dir.path(), port, plan.directives);
        return answers::run(door.buffered, plan);
    }
    let origin = Origin::start(name, dir.path());
    let (balancer, door) = Balancer::start(balancer, dir.path(), origin.port, plan.directives);
    let mut tally = drive::run(door, plan);
    drive::compare(&mut tally, &balancer.into_log(), &origin.into_log());
    tally
}
