// The fleet page for admins: replicas, databases, Redis and alerts, asked for every two seconds.

import { Api } from "./api.js";
import { byId, element, showLink, showProblem } from "./dom.js";

const PERIOD_MS = 2000;
const api = new Api();
const counted = new Map();

async function look() {
  const status = await api.request("GET", "/status/");
  const alerts = await api.request("GET", "/api/admin/monitoring/connections/alerts");
  showTiles(status);
  byId("replicas").replaceChildren(...status.replicas.sort(byName).map(replicaRow));
  byId("checks").replaceChildren(...checkRows(status.checks));
  showAlerts(alerts);
  byId("fleet").hidden = false;
  showProblem(byId("ops-error"), null);
  showLink(byId("fresh"), "on", `told by ${status.container}, ${new Date().toLocaleTimeString()}`);
}

const byName = (a, b) => a.container.localeCompare(b.container, undefined, { numeric: true });

function showTiles({ replicas }) {
  const sum = (name) => replicas.reduce((total, replica) => total + (replica[name] ?? 0), 0);
  const healthy = replicas.filter((replica) => replica.healthy).length;
  const tiles = [
    [`${healthy} / ${replicas.length}`, "replicas healthy"],
    [sum("connections"), "WebSockets"],
    [sum("rooms"), "rooms, counted on each replica"],
    [`${sum("pool_in_use")} / ${sum("pool_size")}`, "pool connections in use"],
  ];
  byId("tiles").replaceChildren(...tiles.map(([figure, name]) => element("li", {}, element("strong", {}, String(figure)), name)));
}

/** Requests per second of a replica since the last look; both counts are as old as the replica says. */
function requestRate({ container, requests, age_s, uptime_s }) {
  const said = performance.now() / 1000 - age_s;
  const before = counted.get(container);
  if (!before || said - before.said > 0.5) counted.set(container, { requests, said, uptime_s });
  if (!before || uptime_s < before.uptime_s || said - before.said <= 0.5) return before?.rate ?? "–";
  const rate = ((requests - before.requests) / (said - before.said)).toFixed(1);
  counted.get(container).rate = rate;
  return rate;
}

function replicaRow(replica) {
  const [word, tone] = replica.draining ? ["draining", "fair"] : replica.healthy ? ["healthy", "good"] : ["unhealthy", "bad"];
  return element("tr", {},
    element("th", { scope: "row" }, replica.container),
    element("td", { className: tone }, word),
    element("td", {}, replica.version),
    number(span(replica.uptime_s)),
    number(requestRate(replica)),
    number(replica.connections ?? "–"),
    number(replica.rooms ?? "–"),
    number(replica.pool_size === undefined ? "–" : `${replica.pool_in_use} / ${replica.pool_size}`),
    number(replica.age_s === undefined ? "–" : `${replica.age_s.toFixed(1)} s ago`));
}

function checkRows({ database, redis }) {
  const row = (name, check, address) => element("tr", {},
    element("th", { scope: "row" }, name),
    element("td", { className: check.healthy ? "good" : "bad" }, check.healthy ? "healthy" : "away"),
    element("td", {}, address),
    number(check.response_ms === null ? "–" : `${check.response_ms.toFixed(1)} ms`),
    element("td", {}, check.detail ?? remarks(check)));
  const rows = Object.entries(database).map(([name, check]) => row(name, check, `${check.host}:${check.port}`));
  return [...rows, row("redis", redis, "")];
}

function showAlerts({ alerts }) {
  const items = alerts.map((alert) => element("li", { className: alert.startsWith("WARNING") ? "fair" : "bad" }, alert));
  byId("alerts").replaceChildren(...(items.length ? items : [element("li", {}, "None.")]));
}

function remarks({ pool_in_use, pool_size, lag_ms }) {
  const pool = `${pool_in_use} of ${pool_size} connections in use here`;
  if (lag_ms === undefined) return pool;
  return lag_ms === null ? "does not follow" : `${pool}; lags ${(lag_ms / 1000).toFixed(1)} s`;
}

const number = (text) => element("td", { className: "number" }, String(text));

function span(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  const found = parts.find(([length]) => seconds >= length);
  return found ? `${Math.floor(seconds / found[0])} ${found[1]}` : `${seconds} s`;
}

async function keepLooking() {
  for (;;) {
    try {
      await look();
    } catch (error) {
      const advice = { 401: "Log in on the chat page first.", 403: "This page is for admins." }[error.status];
      showProblem(byId("ops-error"), advice ?? error.message);
      showLink(byId("fresh"), "off", "no news");
      if (advice) return;
    }
    await new Promise((done) => setTimeout(done, PERIOD_MS));
  }
}

keepLooking();
