//! The settings that passwords and names may come from; none of the secrets among them may stand on a command line.

use chassis::settings::{Kind, Setting, fixed, shared};

pub static SETTINGS: &[Setting] = &[
    shared::DB_NAME,
    shared::DB_USER,
    shared::DB_PASSWORD,
    fixed(
        "ADMIN_TOKEN",
        Kind::Secret,
        "",
        "an admin's access token, as `./deploy-loadbalanced.sh token` prints it",
    ),
    fixed(
        "PGPASSFILE",
        Kind::Path,
        "",
        "libpq's password file; empty: the one that the stack's status names",
    ),
];
