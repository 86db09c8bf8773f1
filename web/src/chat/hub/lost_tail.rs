//! Rooms that have handed out more than the database has: a failover to a standby that lagged has lost their tail. The
//! next messages bear offsets that the members know already, so those leave and come back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Hub, RoomCell};
use crate::error::Error;
use crate::logic::message::Offset;
use crate::logic::outbox::End;

/// Members of such a room come back within this time, not all at once.
const RETURN_SPREAD_MS: u64 = 2_000;

impl RoomCell {
    /// Goes back to where the database stands, unless it has been there meanwhile.
    fn lose_tail(&self, last: Offset, position: Offset) {
        let mut room = self.lock();
        if room.position() < Some(position) {
            return;
        }
        room.on_lost_tail(last);
        for member in room.handles() {
            // 197 is prime to 2000: neighbours come back at different times.
            member.close(End::GoingAway {
                retry_after_ms: 50 + member.id.wrapping_mul(197) % RETURN_SPREAD_MS,
            });
        }
        tracing::warn!(session = %self.session, last, position, "the database has lost messages {}..={position}", last + 1);
    }
}

impl Hub {
    /// A message that comes under an offset that was handed out, `offset`, may be another one than that: the database is
    /// asked, once at a time, how far the room goes.
    pub(super) fn doubt(self: &Arc<Self>, cell: &Arc<RoomCell>, offset: Offset) {
        let is_known = cell.lock().position().is_some_and(|position| offset <= position);
        if !is_known || cell.in_doubt.swap(true, Ordering::AcqRel) {
            return;
        }
        let (hub, cell) = (Arc::clone(self), Arc::clone(cell));
        self.parts.tasks.spawn("lost tail", async move {
            if let Err(cause) = hub.compare_offsets(std::slice::from_ref(&cell)).await {
                tracing::warn!(%cause, session = %cell.session, "a room could not be compared: {cause}");
            }
            cell.in_doubt.store(false, Ordering::Release);
        });
    }

    /// Asks the primary again about rooms of which it seems to have less than was handed out.
    pub(super) async fn look_for_lost_tails(&self, rooms: &[Arc<RoomCell>]) -> Result<(), Error> {
        if rooms.is_empty() {
            return Ok(());
        }
        // Learnt before the look: what is handed out during it, the answer need not know.
        let positions: Vec<Option<Offset>> = rooms.iter().map(|cell| cell.lock().position()).collect();
        let sessions: Vec<_> = rooms.iter().map(|cell| cell.session).collect();
        let found = self.store().messages().last_offsets(&sessions).await?;
        let found: HashMap<_, Offset> = found.into_iter().collect();
        for (cell, position) in rooms.iter().zip(positions) {
            if let (Some(last), Some(position)) = (found.get(&cell.session), position)
                && *last < position
            {
                cell.lose_tail(*last, position);
            }
        }
        Ok(())
    }
}
