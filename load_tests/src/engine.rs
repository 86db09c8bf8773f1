//! What the docker engine knows of a stack under compose: addresses on the bridge, killing and starting containers.

use crate::logic::fleet::{Address, Replica};
use anyhow::Context;
use tokio::process::Command;

/// The port that replicas serve on.
const REPLICA_PORT: u16 = 8000;
const ADDRESSES: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";

/// Runs a command of the engine and gives what it printed.
pub async fn docker(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("docker").args(args).output().await.context("cannot run docker")?;
    let told = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "docker {}: {}", args.join(" "), told.trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The name of a part's container.
pub fn container_of(part: &str) -> String {
    format!("arena-{part}")
}

/// All replicas there are. One that does not run is an error.
pub async fn replicas() -> anyhow::Result<Vec<Replica>> {
    let filter = format!("name=^{}[0-9]+$", container_of("web-"));
    let containers = docker(&["ps", "-a", "--format", "{{.Names}}", "--filter", &filter]).await?;
    let mut replicas = Vec::new();
    for container in containers.lines() {
        let name = container.strip_prefix(&container_of("")).unwrap_or(container).to_owned();
        let address = bridge_address(container).await?;
        replicas.push(Replica { name, url: format!("http://{address}:{REPLICA_PORT}"), pid: None });
    }
    anyhow::ensure!(
        !replicas.is_empty(),
        "no container is named {}N: does the stack run?",
        container_of("web-")
    );
    replicas.sort_by_key(|replica| (replica.name.len(), replica.name.clone()));
    Ok(replicas)
}

/// Where another service of the compose file is; `None` where it has no container (an operator's own database).
pub async fn address_of(service: &str, port: u16) -> anyhow::Result<Option<Address>> {
    let container = container_of(service);
    let running = docker(&["ps", "-q", "--filter", &format!("name=^{container}$")]).await?;
    if running.is_empty() {
        return Ok(None);
    }
    Ok(Some(Address { host: bridge_address(&container).await?, port }))
}

async fn bridge_address(container: &str) -> anyhow::Result<String> {
    let addresses = docker(&["inspect", "-f", ADDRESSES, container]).await?;
    let address = addresses.split_whitespace().next();
    address.map(str::to_owned).with_context(|| format!("{container} has no address: does it run?"))
}
