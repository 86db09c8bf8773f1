//! Password hashes: argon2id, off the runtime's threads, a bounded number at once.

use std::sync::{Arc, OnceLock};

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use tokio::sync::Semaphore;

use crate::error::Error;

/// A hash takes 19 MiB and a core for some 15 ms: more at once than cores only makes all of them late.
const AT_ONCE_MAX: usize = 4;
/// Callers that may wait for a hash; at 15 ms each the last one waits for about a second.
const WAITING_MAX: usize = 256;

/// Hashes and checks passwords.
pub struct Passwords {
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
    /// The hash of a password that nobody has, made once: checking it takes as long as checking a real one.
    nobody: OnceLock<String>,
}

impl Passwords {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            running: Arc::new(Semaphore::new(cores.min(AT_ONCE_MAX))),
            admitted: Arc::new(Semaphore::new(WAITING_MAX)),
            nobody: OnceLock::new(),
        }
    }

    /// # Errors
    /// Too many are waiting.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.run(move || hash(&password)).await?
    }

    /// Whether `password` belongs to `hash`. Without a hash, as for a user who does not exist, it takes as long and
    /// says no.
    ///
    /// # Errors
    /// Too many are waiting.
    pub async fn matches(&self, password: String, hash_of_user: Option<String>) -> Result<bool, Error> {
        if self.nobody.get().is_none() {
            let made = self.hash("nobody has this password".to_owned()).await?;
            self.nobody.get_or_init(|| made);
        }
        let exists = hash_of_user.is_some();
        let against = hash_of_user.or_else(|| self.nobody.get().cloned()).unwrap_or_default();
        let fits = self
            .run(move || Argon2::default().verify_password(password.as_bytes(), against.as_str()).is_ok())
            .await?;
        Ok(fits && exists)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let crowded = || Error::unavailable("too many logins at once; try again");
        let _admitted = self.admitted.try_acquire().map_err(|_| crowded())?;
        let permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| crowded())?;
        let done = tokio::task::spawn_blocking(move || {
            // Held by the work itself: a caller that goes away does not make room that is not there.
            let _permit = permit;
            work()
        });
        done.await.map_err(|_| Error::internal("hashing a password panicked"))
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

fn hash(password: &str) -> Result<String, Error> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string()).map_err(|cause| Error::internal(format!("argon2: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.matches("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.matches("wrong".into(), Some(hash)).await.unwrap());
        assert!(!passwords.matches("nobody has this password".into(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_damaged_hash_matches_nothing() {
        assert!(!Passwords::new().matches("x".into(), Some("no hash".into())).await.unwrap());
    }
}
