//! How a client proves who it is.

use std::sync::Arc;

use pgwire::auth::{Stored, md5, scram};
use pgwire::frontend::{self, kind};
use pgwire::startup::Replication;
use pgwire::{backend, sqlstate};

use super::lookup::Lookup;
use super::{Asked, LoginAttempt, send, talk_end};
use crate::clients::random_u64;
use crate::connect::random_nonce;
use crate::error::End;
use crate::logic::hba::{Facts, Method};
use crate::logic::ldap::Directory;
use crate::pool::Credential;
use crate::settings::{ADMIN_DATABASE, AuthType, Database, Secret, Settings, ldap_options};
use crate::talk::Talk;

impl LoginAttempt<'_> {
    /// Ok: who it says it is. Some: what the proof is good for towards Postgres.
    pub(super) async fn authenticate(
        &self,
        talk: &mut Talk,
        settings: &Arc<Settings>,
        asked: &Asked,
        database: Option<&Arc<Database>>,
    ) -> Result<Option<Credential>, End> {
        let Chosen { method, map, directory } = self.method(talk, settings, asked)?;
        if settings.auth_type == AuthType::Any {
            return Ok(None);
        }
        if let Some(directory) = directory {
            // The directory knows its users; they need no entry of ours.
            return self.by_directory(talk, asked, &directory).await;
        }
        let secret = self.secret(settings, asked, database).await?;
        match method {
            Method::Trust if secret.is_none() => {
                tracing::info!("{} no such user: {}", self.entry.name(), asked.user);
                let text = "\"trust\" authentication failed";
                Err(End::client(sqlstate::INVALID_AUTHORIZATION, text))
            }
            Method::Trust => Ok(secret.map(Credential::Stored)),
            Method::Reject => Err(End::client(sqlstate::INVALID_AUTHORIZATION, "login rejected")),
            Method::Plain => self.by_password(talk, asked, secret).await,
            // A verifier cannot check md5: the stronger exchange is asked for, as Postgres does.
            Method::Md5 if secret.as_ref().is_some_and(is_scram) => {
                self.by_scram(talk, settings, asked, secret).await
            }
            Method::Md5 => self.by_md5(talk, asked, secret).await,
            Method::Scram => self.by_scram(talk, settings, asked, secret).await,
            Method::Cert => self.by_certificate(talk, settings, asked, Proof { secret, map }),
            Method::Peer => self.by_peer(talk, settings, asked, Proof { secret, map }),
            Method::Ldap => Err(End::client(sqlstate::CONFIG_FILE_ERROR, "auth_ldap_options is null")),
        }
    }

    fn method(&self, talk: &Talk, settings: &Settings, asked: &Asked) -> Result<Chosen, End> {
        let method = match settings.auth_type {
            AuthType::Any | AuthType::Trust => Method::Trust,
            AuthType::Plain => Method::Plain,
            AuthType::Md5 => Method::Md5,
            AuthType::Scram => Method::Scram,
            AuthType::Cert => Method::Cert,
            AuthType::Hba => {
                let address = talk.wire.tcp_stream().and_then(|s| s.peer_addr().ok()).map(|a| a.ip());
                let facts = Facts {
                    address,
                    tls: self.entry.tls.get().is_some(),
                    database: &asked.database,
                    user: &asked.user,
                    // The keyword is about the physical kind; the other names a database like any client.
                    replication: asked.replication == Replication::Physical,
                };
                let refused = "no authentication method is found";
                let rule = settings.hba.find(&facts);
                let rule = rule.ok_or_else(|| End::client(sqlstate::INVALID_AUTHORIZATION, refused))?;
                let (map, directory) = (rule.map.clone(), rule.directory.clone());
                return Ok(Chosen { method: rule.method, map, directory });
            }
            AuthType::Ldap => {
                // Checked when it was set.
                let options = settings.auth_ldap_options.as_deref();
                let directory = options.and_then(|text| ldap_options::parse(text).ok());
                return Ok(Chosen { method: Method::Ldap, map: None, directory });
            }
        };
        Ok(Chosen { method, map: None, directory: None })
    }

    /// What is stored for the user: in auth_file, else what auth_query finds.
    async fn secret(
        &self,
        settings: &Arc<Settings>,
        asked: &Asked,
        database: Option<&Arc<Database>>,
    ) -> Result<Option<Secret>, End> {
        if let Some(secret) = settings.credentials.get(&asked.user) {
            return Ok(Some(secret.clone()));
        }
        if database.is_none() && asked.database != ADMIN_DATABASE {
            return Ok(None);
        }
        let lookup = Lookup { worker: self.worker, entry: self.entry, settings, database };
        match lookup.auth_user() {
            Some(auth_user) => lookup.run(auth_user, &asked.user).await.map(Some),
            None => Ok(None),
        }
    }

    async fn by_password(
        &self,
        talk: &mut Talk,
        asked: &Asked,
        secret: Option<Secret>,
    ) -> Result<Option<Credential>, End> {
        let mut out = Vec::new();
        backend::authentication_cleartext(&mut out);
        send(talk, &out).await?;
        let body = self.answer(talk).await?;
        let password = frontend::parse_password(&body).map_err(|e| super::refuse(&e.to_string()))?.to_vec();
        let Some(stored) = secret else { return Err(wrong_password(asked)) };
        if !self.accepts(asked, &stored, &password).await {
            return Err(wrong_password(asked));
        }
        // What is no text is no password for Postgres either, but may be what the stored form was made of.
        let proved = String::from_utf8(password).map_or(stored, Secret::new);
        Ok(Some(Credential::Stored(proved)))
    }

    async fn by_directory(
        &self,
        talk: &mut Talk,
        asked: &Asked,
        directory: &Directory,
    ) -> Result<Option<Credential>, End> {
        let mut out = Vec::new();
        backend::authentication_cleartext(&mut out);
        send(talk, &out).await?;
        let body = self.answer(talk).await?;
        let password = frontend::parse_password(&body).map_err(|e| super::refuse(&e.to_string()))?;
        let Ok(password) = std::str::from_utf8(password) else { return Err(wrong_password(asked)) };
        match self.ask_directory(asked, directory, password).await {
            Ok(()) => Ok(Some(Credential::Stored(Secret::new(password)))),
            Err(what) => {
                tracing::warn!("{} LDAP: {what}", self.entry.name_as(&asked.database, &asked.user));
                Err(wrong_password(asked))
            }
        }
    }

    async fn ask_directory(
        &self,
        asked: &Asked,
        directory: &Directory,
        password: &str,
    ) -> Result<(), String> {
        let house = &self.worker.house;
        let (to, conf) = (directory.clone(), house.ldap_conf.get().cloned());
        let settings = house.derivations.run(move || crate::ldap::settings(&to, conf.as_deref())).await;
        let settings = settings.ok_or("the settings cannot be read")??;
        crate::ldap::check(directory, &settings, &asked.user, password).await
    }

    async fn accepts(&self, asked: &Asked, stored: &Secret, given: &[u8]) -> bool {
        if !is_scram(stored) {
            return Stored::parse(stored.expose()).accepts(&asked.user, given);
        }
        let (user, stored, given) = (asked.user.clone(), stored.clone(), given.to_vec());
        let check = move || Stored::parse(stored.expose()).accepts(&user, &given);
        self.worker.house.derivations.run(check).await.unwrap_or(false)
    }

    async fn by_md5(
        &self,
        talk: &mut Talk,
        asked: &Asked,
        secret: Option<Secret>,
    ) -> Result<Option<Credential>, End> {
        let salt = (random_u64() as u32).to_be_bytes();
        let mut out = Vec::new();
        backend::authentication_md5(&mut out, salt);
        send(talk, &out).await?;
        let body = self.answer(talk).await?;
        let answer = frontend::parse_password(&body).map_err(|e| super::refuse(&e.to_string()))?;
        let Some(secret) = secret else { return Err(wrong_password(asked)) };
        let hash = match Stored::parse(secret.expose()) {
            Stored::Md5(hash) => hash.to_string(),
            Stored::Plain("") | Stored::Scram(_) => return Err(wrong_password(asked)),
            Stored::Plain(plain) => md5::hash(&asked.user, plain.as_bytes()),
        };
        if md5::accepts(&hash, salt, answer) {
            Ok(Some(Credential::Stored(secret)))
        } else {
            Err(wrong_password(asked))
        }
    }

    async fn by_scram(
        &self,
        talk: &mut Talk,
        settings: &Settings,
        asked: &Asked,
        secret: Option<Secret>,
    ) -> Result<Option<Credential>, End> {
        let mut out = Vec::new();
        backend::authentication_sasl(&mut out, &[scram::MECHANISM]);
        send(talk, &out).await?;
        let body = self.answer(talk).await?;
        let (mechanism, first) =
            frontend::parse_sasl_initial(&body).map_err(|e| super::refuse(&e.to_string()))?;
        if mechanism != scram::MECHANISM.as_bytes() {
            return Err(super::refuse("client selected an invalid SASL authentication mechanism"));
        }
        let verifier = self.verifier(asked, secret, settings.scram_iterations).await;
        let mut server = scram::Server::new(verifier, scram::nonce(random_nonce()));
        let challenge = server.challenge(first).map_err(|_| sasl_failed(asked))?;
        out.clear();
        backend::authentication_sasl_continue(&mut out, challenge.as_bytes());
        send(talk, &out).await?;
        let body = self.answer(talk).await?;
        let (last, keys) = server.verify(&body).map_err(|_| sasl_failed(asked))?;
        out.clear();
        backend::authentication_sasl_final(&mut out, last.as_bytes());
        send(talk, &out).await?;
        Ok(Some(Credential::ScramKeys(keys)))
    }

    /// Of an unknown user a made-up one: the exchange looks the same and fails at its end.
    async fn verifier(&self, asked: &Asked, secret: Option<Secret>, iterations: u32) -> scram::Verifier {
        let mock = || scram::Verifier::mock(&asked.user, &self.worker.house.login_secret, iterations);
        let Some(secret) = secret else { return mock() };
        match Stored::parse(secret.expose()) {
            Stored::Scram(verifier) => verifier,
            Stored::Md5(_) | Stored::Plain("") => mock(),
            Stored::Plain(_) => {
                let derivations = &self.worker.house.derivations;
                derivations.verifier(&asked.user, &secret, iterations).await.unwrap_or_else(mock)
            }
        }
    }

    /// A certificate that bears the user's name, or one that the map gives for it.
    fn by_certificate(
        &self,
        talk: &Talk,
        settings: &Settings,
        asked: &Asked,
        proof: Proof,
    ) -> Result<Option<Credential>, End> {
        let refuse = |what: &str| {
            tracing::error!("{} {what}", self.entry.name_as(&asked.database, &asked.user));
            Err(End::client(sqlstate::INVALID_AUTHORIZATION, "certificate authentication failed"))
        };
        if self.entry.tls.get().is_none() {
            return refuse("TLS connection required");
        }
        if !crate::tls::client_has_certificate(&talk.wire) {
            return refuse("TLS client certificate required");
        }
        let Some(secret) = proof.secret else { return refuse("no such user") };
        let is_named = |name: &str| crate::tls::client_is_named(&talk.wire, name);
        match &proof.map {
            Some(map) if settings.hba.mapped_by(map, &asked.user, is_named) => {}
            Some(map) => return refuse(&format!("ident map: {map} does not have a match")),
            None if is_named(&asked.user) => {}
            None => return refuse("TLS certificate name mismatch"),
        }
        Ok(Some(Credential::Stored(secret)))
    }

    /// A process of the user's own name, or of one that the map gives for it.
    fn by_peer(
        &self,
        talk: &Talk,
        settings: &Settings,
        asked: &Asked,
        proof: Proof,
    ) -> Result<Option<Credential>, End> {
        let system_name = talk.wire.unix_stream().and_then(|s| s.peer_cred().ok()).and_then(|peer| {
            nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(peer.uid())).ok().flatten().map(|u| u.name)
        });
        let is_named = |name: &str| system_name.as_deref() == Some(name);
        let fits = match &proof.map {
            Some(map) => settings.hba.mapped_by(map, &asked.user, is_named),
            None => is_named(&asked.user),
        };
        if let (Some(map), false) = (&proof.map, fits) {
            let name = self.entry.name_as(&asked.database, &asked.user);
            tracing::error!("{name} ident map {map} cannot be matched");
        }
        match proof.secret {
            Some(secret) if fits => Ok(Some(Credential::Stored(secret))),
            _ => Err(End::client(sqlstate::INVALID_AUTHORIZATION, "unix socket login rejected")),
        }
    }

    /// The next message has to be the client's answer. Another startup message in its place is no answer.
    async fn answer(&self, talk: &mut Talk) -> Result<Vec<u8>, End> {
        let message = talk.next_of_kind(kind::PASSWORD).await.map_err(talk_end)?;
        let message = message.ok_or_else(|| super::refuse("expected password response"))?;
        Ok(message.body)
    }
}

/// The method that counts for a client, and the ident map that goes with it.
struct Chosen {
    method: Method,
    map: Option<String>,
    directory: Option<Directory>,
}

/// What is stored for the user, and the map of the rule.
struct Proof {
    secret: Option<Secret>,
    map: Option<String>,
}

fn is_scram(secret: &Secret) -> bool {
    matches!(Stored::parse(secret.expose()), Stored::Scram(_))
}

fn wrong_password(asked: &Asked) -> End {
    let text = format!("password authentication failed for user \"{}\"", asked.user);
    End::client(sqlstate::INVALID_PASSWORD, "password authentication failed")
        .told_as(sqlstate::INVALID_PASSWORD, text)
}

fn sasl_failed(asked: &Asked) -> End {
    let text = format!("SASL authentication failed for user \"{}\"", asked.user);
    End::client(sqlstate::INVALID_PASSWORD, "SASL authentication failed")
        .told_as(sqlstate::INVALID_PASSWORD, text)
}
