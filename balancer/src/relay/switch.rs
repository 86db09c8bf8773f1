//! After an upstream's 101: its head goes to the client, and bytes go both ways (`tunnel`).

use std::time::Instant;

use super::{After, Exchange, Step};
use crate::logic::upstreams::Lease;
use crate::tunnel::{self, Patience};
use crate::upstream_conns::UpstreamConn;

impl Exchange<'_> {
    /// The upstream has switched protocols: from here on bytes are bytes.
    pub(super) async fn tunnel(&mut self, mut conn: UpstreamConn, lease: Lease<'_>) -> Step {
        self.scratch.story.status = 101;
        self.write_switch();
        lease.on_switched(self.now_of_groups());
        let patience = Patience { idle: self.location.proxy.read_timeout, send: self.location.send_timeout };
        let ended = tunnel::run(self.down, &mut conn, self.scratch, (self.worker, patience)).await;
        self.now = Instant::now();
        self.end_attempt();
        self.scratch.story.is_complete = ended.is_ok();
        let after = match ended {
            // What the client still says must not destroy the upstream's last words.
            Ok(()) => After::Linger(self.location.lingering.clone()),
            Err(error) => {
                self.log(&error, Some(&lease));
                After::Close
            }
        };
        self.end_lease(lease, self.answered());
        Step::Ended(after)
    }
}
