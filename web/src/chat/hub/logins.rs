//! Which sockets belong to which login, so that those of a login that has ended are found without a look at all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use uuid::Uuid;

use super::Member;
use crate::logic::outbox::End;

#[derive(Default)]
pub struct Logins {
    members: Mutex<HashMap<Uuid, Vec<Arc<Member>>>>,
}

impl Logins {
    pub fn enter(&self, login: Uuid, member: &Arc<Member>) {
        self.lock().entry(login).or_default().push(Arc::clone(member));
    }

    pub fn leave(&self, login: Uuid, member: &Member) {
        let mut members = self.lock();
        let Some(of_login) = members.get_mut(&login) else { return };
        of_login.retain(|entered| entered.id != member.id);
        if of_login.is_empty() {
            members.remove(&login);
        }
    }

    /// Closes the sockets of these logins.
    pub fn close(&self, ended: &[Uuid]) {
        let members = self.lock();
        for member in ended.iter().filter_map(|login| members.get(login)).flatten() {
            member.close(End::TokenExpired);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<Arc<Member>>>> {
        self.members.lock().expect("nobody panics while holding it")
    }
}
