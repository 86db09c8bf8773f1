//! auth_query: asks Postgres what is stored for a user who is in no file.

use std::rc::Rc;
use std::sync::Arc;

use crate::clients::ClientEntry;
use crate::error::End;
use crate::settings::{Database, Secret, Settings};
use crate::worker::Worker;

/// What the query gives. None: no such user, or one without a password.
pub async fn auth_query(
    worker: &Rc<Worker>,
    entry: &Arc<ClientEntry>,
    settings: &Arc<Settings>,
    database: &Arc<Database>,
    user: &str,
) -> Result<Option<Secret>, End> {
    let _ = (worker, entry, settings, database, user);
    Ok(None)
}
