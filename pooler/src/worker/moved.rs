//! A client that came from the process we take over from, up to where its relay goes on.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pgwire::auth::scram::Keys;
use pgwire::sqlstate;

use super::Worker;
use super::relay::{Member, Presence, Relay};
use crate::client::Client;
use crate::clients::{ClientEntry, Endpoint, Login, Newcomer};
use crate::error::End;
use crate::logic::cancel_key::ClientKey;
use crate::logic::moving::{MovedClient, MovedCredential, MovedServer};
use crate::logic::session::Session;
use crate::moving::Parcel;
use crate::pool::{Bringer, Credential, Lease, PoolInfo};
use crate::settings::Secret;
use crate::wire::Wire;

impl Worker {
    /// Goes on with a client where another process left it.
    pub(super) fn serve_moved(self: Rc<Self>, parcel: Parcel) {
        let Parcel { client: moved, socket, server } = parcel;
        let mut wire = match Wire::from_fd(socket) {
            Ok(wire) => wire,
            Err(error) => return tracing::warn!("the socket of a moved client cannot be used: {error}"),
        };
        let entry = self.enter_moved(&moved, &wire);
        let presence = Presence { house: self.house.clone(), entry: entry.clone() };
        let placed = self.pool_of(&moved).and_then(|pool| {
            let lease = self.take_server(&entry, &pool, moved.server.clone().zip(server))?;
            Ok((pool, lease))
        });
        let (pool, lease) = match placed {
            Ok(placed) => placed,
            Err(end) => {
                self.log_end(&entry, &end);
                return wire.try_farewell(&end.message());
            }
        };
        let login = Login {
            database: moved.database.clone(),
            user: moved.user.clone(),
            pool: Some(pool.clone()),
            application_name: moved.application_name.clone(),
            replication: pgwire::startup::Replication::None,
        };
        let _ = entry.login.set(login);
        let member = Member::new(&self.house, &pool);
        let rules = crate::login::rules(&self.house.settings(), &pool, moved.mode);
        let intern = |query: &[u8], types: &[u8]| self.house.intern(query, types);
        let extra = self.house.extra.clone();
        let session = Session::from_moved(entry.id, rules, &moved, extra, &intern);
        let mut client = Client::new(self.clone(), entry, pool, wire, session);
        client.start(moved.unread, lease);
        tokio::task::spawn_local(Relay::new(client, presence, member));
    }

    fn enter_moved(&self, moved: &MovedClient, wire: &Wire) -> Arc<ClientEntry> {
        let newcomer = Newcomer {
            id: self.house.next_id(),
            worker: self.id,
            peer: Endpoint::from_host(&moved.peer.0, moved.peer.1),
            local: Endpoint::from_host(&moved.local.0, moved.local.1),
            fd: wire.fd(),
        };
        let key = ClientKey::from_halves(moved.process_id, moved.secret);
        let since = UNIX_EPOCH + Duration::from_micros(moved.connected_at);
        self.house.clients.enter_moved(newcomer, key, since)
    }

    /// The pool of the moved client, as the settings of this process have it.
    fn pool_of(&self, moved: &MovedClient) -> Result<Arc<PoolInfo>, End> {
        let database = self.house.settings().database(&moved.database);
        let database = database.ok_or_else(|| End::pool(sqlstate::DATABASE_DROPPED, "database removed"))?;
        let user = database.user.clone().unwrap_or_else(|| moved.user.clone());
        let pool = self.house.pools.pool(&self.house, &database, &user);
        if let Some(credential) = to_credential(&moved.credential) {
            pool.set_credential(credential);
        }
        Ok(pool)
    }

    fn take_server(
        &self,
        entry: &ClientEntry,
        pool: &PoolInfo,
        server: Option<(MovedServer, OwnedFd)>,
    ) -> Result<Option<Lease>, End> {
        let Some((moved, socket)) = server else { return Ok(None) };
        let gone = || End::server_gone("server conn crashed?");
        let wire = Wire::from_fd(socket).map_err(|_| gone())?;
        let by = Bringer { pool, client: entry.id, worker: self.id };
        self.house.pools.adopt(&self.house, by, moved, wire).ok_or_else(gone).map(Some)
    }
}

fn to_credential(moved: &MovedCredential) -> Option<Credential> {
    match moved {
        MovedCredential::None => None,
        MovedCredential::Stored(secret) => Some(Credential::Stored(Secret::new(secret.as_str()))),
        MovedCredential::ScramKeys { client_key, server_key } => Some(Credential::ScramKeys(Keys {
            client_key: client_key.as_slice().try_into().ok()?,
            server_key: server_key.as_slice().try_into().ok()?,
        })),
    }
}
