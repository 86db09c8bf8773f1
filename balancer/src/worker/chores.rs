//! The tasks without which a worker is of no use: those that accept, tidy and write the logs. None ends by itself; after
//! a panic in one the worker would live on deaf, or without logs.

use std::future::pending;

use tokio::task::{AbortHandle, JoinError, JoinSet};

#[derive(Debug, Default)]
pub(super) struct Chores {
    tasks: JoinSet<()>,
}

impl Chores {
    pub(super) fn begin(&mut self, chore: impl Future<Output = ()> + 'static) -> AbortHandle {
        self.tasks.spawn_local(chore)
    }

    /// Comes back when one has ended that was not aborted.
    pub(super) async fn lost(&mut self) {
        loop {
            match self.tasks.join_next().await {
                Some(ended) if ended.as_ref().is_err_and(JoinError::is_cancelled) => {}
                Some(_) => return,
                None => pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;
    use tokio::task::{LocalSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_chore_is_told_and_an_aborted_one_is_not() {
        let watch = async {
            let mut chores = Chores::default();
            chores.begin(pending());
            let door = chores.begin(pending());
            door.abort();
            while !door.is_finished() {
                yield_now().await;
            }
            assert_eq!(poll!(std::pin::pin!(chores.lost())), Poll::Pending);
            chores.begin(async { panic!("on purpose") });
            chores.lost().await;
        };
        LocalSet::new().run_until(watch).await;
    }

    #[tokio::test]
    async fn a_chore_that_just_ends_is_lost_too() {
        let watch = async {
            let mut chores = Chores::default();
            chores.begin(async {});
            chores.lost().await;
        };
        LocalSet::new().run_until(watch).await;
    }
}
