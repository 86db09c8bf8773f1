//! A private Redis Cluster: three masters, of which the first has a replica.

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, FromRedisValue};

use super::programs::{Guarded, START_MAX, free_port, new_dir, until};
use super::redis::wait_for;

/// Silence after which the others take a node for dead.
const NODE_TIMEOUT_MS: u32 = 2000;
const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10_922), (10_923, 16_383)];

/// A cluster of one test. Everything ends when it is dropped.
pub struct Cluster {
    masters: Vec<Node>,
    replica: Node,
}

struct Node {
    port: u16,
    bus_port: u16,
    server: Option<Guarded>,
}

impl Cluster {
    pub async fn start() -> Self {
        let (one, two, three, replica) =
            tokio::join!(Node::start(), Node::start(), Node::start(), Node::start());
        let cluster = Self { masters: vec![one, two, three], replica };
        for (node, (first, last)) in cluster.masters.iter().zip(SLOTS) {
            let () = node.ask(redis::cmd("CLUSTER").arg("ADDSLOTSRANGE").arg(first).arg(last)).await;
        }
        let first = &cluster.masters[0];
        for (node, epoch) in cluster.nodes().zip(1..) {
            // As redis-cli does: without it two masters may have to find out by themselves whose word is newer.
            let () = node.ask(redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(epoch)).await;
        }
        for node in cluster.nodes().skip(1) {
            let mut meet = redis::cmd("CLUSTER");
            meet.arg("MEET").arg("127.0.0.1").arg(node.port).arg(node.bus_port);
            let () = first.ask(&meet).await;
        }
        cluster.wait_until("all nodes know each other", |told| told.contains("cluster_known_nodes:4")).await;
        let first_id: String = first.ask(redis::cmd("CLUSTER").arg("MYID")).await;
        let () = cluster.replica.ask(redis::cmd("CLUSTER").arg("REPLICATE").arg(first_id)).await;
        until("the replica follows its master", START_MAX, async || {
            let told: String = cluster.replica.ask(redis::cmd("INFO").arg("replication")).await;
            told.contains("master_link_status:up")
        })
        .await;
        cluster.wait_until("the cluster is whole", |told| told.contains("cluster_state:ok")).await;
        cluster.wait_until_all_know_the_replica().await;
        cluster
    }

    /// `host:port` of the masters, as the setting wants them.
    pub fn places(&self) -> String {
        let places: Vec<String> = self.masters.iter().map(Node::place).collect();
        places.join(",")
    }

    /// The same of the master that has a replica alone.
    pub fn first_place(&self) -> String {
        self.masters[0].place()
    }

    /// kill -9 for the master that has a replica.
    pub async fn kill_first(&mut self) {
        let server = self.masters[0].server.take();
        tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
    }

    pub async fn wait_until_the_replica_is_master(&self) {
        until("the replica is promoted", START_MAX, async || {
            let told: String = self.replica.ask(redis::cmd("INFO").arg("replication")).await;
            told.contains("role:master")
        })
        .await;
    }

    /// Stops all processes without ending them.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Asks the cluster's master of the key.
    pub async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> T {
        let nodes = self.nodes().map(|node| format!("redis://{}", node.place()));
        let client = redis::cluster::ClusterClient::new(nodes).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        question.query_async(&mut connection).await.unwrap()
    }

    fn signal(&self, name: &str) {
        self.nodes().for_each(|node| node.server.as_ref().expect("the node runs").signal(name));
    }

    fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.masters.iter().chain([&self.replica])
    }

    /// Until this holds for what each node tells about the cluster.
    async fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) {
        for node in self.nodes() {
            until(what, START_MAX, async || {
                let told: String = node.ask(redis::cmd("CLUSTER").arg("INFO")).await;
                holds(&told)
            })
            .await;
        }
    }

    async fn wait_until_all_know_the_replica(&self) {
        for node in self.nodes() {
            until("a node knows who is a replica", START_MAX, async || {
                let told: String = node.ask(redis::cmd("CLUSTER").arg("NODES")).await;
                told.lines().any(|line| line.contains("slave"))
            })
            .await;
        }
    }
}

impl Node {
    async fn start() -> Self {
        let (dir, port, bus_port) = (new_dir("cluster"), free_port(), free_port());
        let server = format!(
            "redis-server --port {port} --bind 127.0.0.1 --cluster-enabled yes --cluster-port {bus_port} \
             --cluster-node-timeout {NODE_TIMEOUT_MS} --cluster-replica-validity-factor 0 \
             --repl-diskless-sync-delay 0 --save '' --appendonly no --dir {}",
            dir.display()
        );
        let node = Self { port, bus_port, server: Some(Guarded::start(&server, "KILL", &dir)) };
        wait_for(port).await;
        node
    }

    fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> T {
        question.query_async(&mut self.connection().await).await.unwrap()
    }

    async fn connection(&self) -> MultiplexedConnection {
        let client = Client::open(format!("redis://{}", self.place())).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }
}
