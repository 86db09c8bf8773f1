//! Keys derived from passwords. PBKDF2 takes a millisecond and more, and a hostile peer may ask for a quarter of a second:
//! it runs on threads of its own, few at a time, and what a password of ours gave is kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use pgwire::auth::scram::Verifier;
use tokio::sync::Semaphore;

use crate::connect::random_nonce;
use crate::settings::Secret;

/// Users whose verifier is kept. Few installations know more; there it is only derived again now and then.
const KEPT_MAX: usize = 10_000;

pub struct Derivations {
    /// Half of the cores: a flood of logins leaves the others to the queries.
    permits: Arc<Semaphore>,
    /// By user.
    verifiers: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    password: Secret,
    iterations: u32,
    verifier: Verifier,
}

impl Derivations {
    pub fn new(workers: usize) -> Derivations {
        Derivations { permits: Arc::new(Semaphore::new((workers / 2).max(1))), verifiers: Mutex::default() }
    }

    /// What checks a user who is known by the password itself. The salt stays the same while the process lives, as that
    /// of a stored verifier does.
    pub async fn verifier(&self, user: &str, password: &Secret, iterations: u32) -> Option<Verifier> {
        if let Some(verifier) = self.kept(user, password, iterations) {
            return Some(verifier);
        }
        let text = password.clone();
        let salt = random_nonce();
        let verifier = self.run(move || Verifier::make(text.expose(), &salt[..16], iterations)).await?;
        let kept = Kept { password: password.clone(), iterations, verifier: verifier.clone() };
        let mut verifiers = self.lock();
        if verifiers.len() >= KEPT_MAX && !verifiers.contains_key(user) {
            verifiers.clear();
        }
        verifiers.insert(user.to_string(), kept);
        Some(verifier)
    }

    /// Runs something slow elsewhere, when its turn comes. None: it panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let work = move || {
            // Until the work ends, not until somebody gives up waiting for it.
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }

    fn kept(&self, user: &str, password: &Secret, iterations: u32) -> Option<Verifier> {
        let verifiers = self.lock();
        let kept = verifiers.get(user)?;
        let is_same = kept.iterations == iterations && kept.password == *password;
        is_same.then(|| kept.verifier.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Kept>> {
        self.verifiers.lock().expect("no code panics while it holds what was derived")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn secret(text: &str) -> Secret {
        Secret::new(text)
    }

    #[tokio::test]
    async fn a_password_is_derived_once_until_it_or_the_count_changes() {
        let derivations = Derivations::new(2);
        let first = derivations.verifier("u", &secret("a"), 16).await.unwrap();
        assert!(first.accepts(b"a"));
        assert!(derivations.verifier("u", &secret("a"), 16).await.unwrap() == first, "kept");
        let other = derivations.verifier("u", &secret("b"), 16).await.unwrap();
        assert!(other.accepts(b"b") && !other.accepts(b"a"), "a changed password counts at once");
        assert_eq!(derivations.verifier("u", &secret("b"), 17).await.unwrap().iterations(), 17);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn few_run_at_a_time() {
        let derivations = Arc::new(Derivations::new(4));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..40)
            .map(|_| {
                let (derivations, running, most) = (derivations.clone(), running.clone(), most.clone());
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        Verifier::make("password", b"0123456789abcdef", 200);
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    derivations.run(work).await
                })
            })
            .collect();
        for task in tasks {
            assert!(task.await.unwrap().is_some());
        }
        assert!((1..=2).contains(&most.load(Ordering::SeqCst)), "{most:?}");
    }
}
