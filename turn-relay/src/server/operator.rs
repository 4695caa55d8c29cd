//! What an operator does to a relay that goes on running.

use std::sync::Arc;

use turn_relay_proto::{Ledger, Relay};

use super::Server;
use crate::shard::Command;
use crate::shards::Shards;

impl Server {
    /// Refuses new allocations (508, or 300 towards an alternate server), or makes them again; the
    /// existing ones live on.
    pub fn set_draining(&self, draining: bool) {
        for shard in &self.shards {
            let visit = move |relay: &mut Relay, _| relay.set_draining(draining);
            shard.handle.tell(Command::Visit(Box::new(visit)));
        }
    }

    /// Ends every allocation, and serves on.
    pub fn end_allocations(&self) {
        for shard in &self.shards {
            let visit = |relay: &mut Relay, now| relay.end_all(now);
            shard.handle.tell(Command::Visit(Box::new(visit)));
        }
    }

    /// The way to all shards; it outlives them.
    pub(crate) fn shards(&self) -> Shards {
        Shards::new(self.shards.iter().map(|shard| Arc::clone(&shard.handle)))
    }

    /// What is held on all shards together.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.setup.ledger)
    }
}
