//! A story of two versions: while one replaces the other, forth and back, both work on one database and one broker.

use std::path::PathBuf;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::arena::Arena;
use crate::outcome::RowOutcome;
use crate::process::Node;
use crate::{amqp_url, database_url};

/// So long nothing gets done only where nothing will.
const QUIET: Duration = Duration::from_secs(40);

/// A node of a busy machine starts within this time.
const SOON: Duration = Duration::from_secs(60);

/// Nodes of two versions, one of which is replaced by one of the other version at each turn.
#[derive(Debug)]
pub struct Rolling {
    /// What everything is drawn from.
    pub seed: u64,
    /// The program of a node of the earlier version.
    pub earlier: PathBuf,
    /// How often a node is replaced.
    pub turns: usize,
    /// How many messages each node publishes between two turns.
    pub messages: usize,
}

impl Rolling {
    /// Plays it on the shared servers.
    pub async fn play(&self) -> RowOutcome {
        let arena = Arena::new(self.seed, &amqp_url(), &database_url()).await;
        // A handler that fails in the turmoil of a start is nobody's fault.
        let arena = arena.with(|settings| settings.attempts = 40);
        arena.play(async |arena| self.on(arena).await).await
    }

    /// The earlier version makes the schema and the queues; the update and the way back follow, and then turns at random.
    async fn on(&self, arena: &Arena) -> RowOutcome {
        let mut random = Rng::with_seed(self.seed);
        let mut nodes = vec![self.started(arena, true).await, self.started(arena, true).await];
        for turn in 0..self.turns {
            for (_, node) in &mut nodes {
                node.publish(self.messages).await;
            }
            sleep(Duration::from_millis(random.u64(100..700))).await;
            let (was_earlier, node) = nodes.remove(if turn < 4 { 0 } else { random.usize(..nodes.len()) });
            if random.bool() {
                arena.kill(node).await;
            } else {
                arena.end(vec![node]).await;
            }
            nodes.push(self.started(arena, !was_earlier).await);
        }
        for (_, node) in &mut nodes {
            node.publish(self.messages).await;
        }
        let mut all: Vec<Node> = nodes.into_iter().map(|(_, node)| node).collect();
        for node in &mut all {
            node.has_published().await;
        }
        arena.close(all, QUIET).await
    }

    async fn started(&self, arena: &Arena, earlier: bool) -> (bool, Node) {
        let mut node =
            if earlier { arena.node_of(&self.earlier, |_| {}, &[]).await } else { arena.node().await };
        assert!(node.says("ready", SOON).await, "{} does not start; see its log", node.name());
        (earlier, node)
    }
}
