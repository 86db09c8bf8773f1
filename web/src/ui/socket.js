// One room's WebSocket: comes back by itself with `since`, and sends what was not acknowledged again.

const BACKOFF_MIN_MS = 300;
const BACKOFF_MAX_MS = 15_000;
/** Errors that pass by themselves: what they refused is sent again. */
const PASSING = new Set(["rate_limit", "too-many", "unavailable"]);
const REMOVED = 4403;
const TOKEN_EXPIRED = 4401;
/** The access token behind the socket lasts 15 minutes; a new one is handed over before. */
const REFRESH_MS = 10 * 60_000;
/** The server pings every 25 s, which a page cannot see; its own ping shows that the way is open. */
const PING_MS = 30_000;
const PONG_WAIT_MS = 10_000;

/**
 * Events: `state` {state: "on"|"wait"|"off", text}, `frame` (each frame of the server, messages once and in order).
 */
export class RoomSocket extends EventTarget {
  #api;
  #session;
  #since;
  #socket = null;
  #failures = 0;
  #timers = new Set();
  #closed = false;
  /** Counts tries to connect: what a later one overtakes ends without a word. */
  #turn = 0;
  /** client_msg_id → {frame, refusals}, until its ack. */
  #unacknowledged = new Map();

  constructor(api, session, since) {
    super();
    this.#api = api;
    this.#session = session;
    this.#since = since;
    this.wake = () => this.#connectNow();
    addEventListener("online", this.wake);
    this.#connect();
  }

  close() {
    this.#closed = true;
    removeEventListener("online", this.wake);
    this.#clearTimers();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  /** Sends a message or a question; it is kept until the server has stored it. Gives its id. */
  submit(type, content) {
    const frame = { type, client_msg_id: newId(), content };
    this.#unacknowledged.set(frame.client_msg_id, { frame, refusals: 0 });
    this.#say(frame);
    return frame.client_msg_id;
  }

  typing() {
    this.#say({ type: "typing" });
  }

  #say(frame) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  async #connect() {
    this.#clearTimers();
    this.#tell("wait", this.#failures ? "reconnecting…" : "connecting…");
    const turn = ++this.#turn;
    let ticket;
    try {
      ({ ticket } = await this.#api.request("POST", "/api/auth/ws-ticket"));
      // Why a WebSocket is refused cannot be seen from a page: ask in a way that tells.
      if (this.#failures > 1) await this.#api.request("GET", `/api/sessions/${this.#session}`);
    } catch (error) {
      if (turn !== this.#turn) return;
      if (error.status === 401 || error.status === 403 || error.status === 404) return this.#stop(error.message);
      return this.#comeBack();
    }
    if (this.#closed || turn !== this.#turn) return;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const query = `token=${encodeURIComponent(ticket)}&since=${this.#since}`;
    const socket = new WebSocket(`${scheme}://${location.host}/ws/chat/session/${this.#session}/?${query}`, ["arena.v1"]);
    this.#socket = socket;
    socket.onmessage = (event) => {
      if (this.#socket === socket) this.#onFrame(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (this.#socket === socket) this.#onClose(event);
    };
  }

  #onFrame(frame) {
    if (frame.type === "welcome") this.#onWelcome(frame);
    if (frame.type === "pong") clearTimeout(this.pongTimer);
    if (isPassing(frame)) this.#sendLater(frame.client_msg_id);
    else if (frame.type === "ack" || frame.type === "error") this.#unacknowledged.delete(frame.client_msg_id);
    if (frame.type === "message") {
      if (frame.offset <= this.#since) return;
      this.#since = frame.offset;
    }
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }

  /** After a pause that grows; a new connection sends it at once. */
  #sendLater(id) {
    const waiting = this.#unacknowledged.get(id);
    if (!waiting) return;
    waiting.refusals += 1;
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.#unacknowledged.has(id)) this.#say(waiting.frame);
    }, backoff(waiting.refusals));
    this.#timers.add(timer);
  }

  #onWelcome(frame) {
    this.#failures = 0;
    // The room goes less far than what is shown here: the database has lost its tail, and offsets are given anew.
    if (!frame.resumed) this.#since = frame.offset;
    this.#tell("on", `connected to ${frame.served_by}`);
    for (const { frame: waiting } of this.#unacknowledged.values()) this.#say(waiting);
    this.#every(REFRESH_MS, async () => this.#say({ type: "auth.refresh", token: await this.#api.freshToken() }));
    this.#every(PING_MS, () => {
      this.#say({ type: "ping" });
      clearTimeout(this.pongTimer);
      const socket = this.#socket;
      this.pongTimer = setTimeout(() => this.#socket === socket && this.#abandon(), PONG_WAIT_MS);
    });
  }

  /** The way is dead, though nobody said so. */
  #abandon() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#comeBack();
  }

  #onClose(event) {
    this.#socket = null;
    if (this.#closed) return;
    if (event.code === REMOVED) return this.#stop("You are not a member of this session any more.");
    if (event.code === TOKEN_EXPIRED) return this.#connect();
    let wait = null;
    try {
      wait = JSON.parse(event.reason).retry_after_ms;
    } catch {
      // Most reasons are words.
    }
    this.#comeBack(wait);
  }

  /** Later, and not at the same time as everybody else. */
  #comeBack(wait = null) {
    if (this.#closed) return;
    this.#clearTimers();
    this.#failures += 1;
    const pause = wait ?? backoff(this.#failures);
    this.#tell("wait", "reconnecting…");
    this.#timers.add(setTimeout(() => this.#connect(), pause));
  }

  #connectNow() {
    if (!this.#closed && !this.#socket) this.#connect();
  }

  #stop(text) {
    this.#clearTimers();
    this.#closed = true;
    this.#tell("off", text);
  }

  #every(period, work) {
    this.#timers.add(setInterval(() => Promise.resolve(work()).catch(() => {}), period));
  }

  #clearTimers() {
    clearTimeout(this.pongTimer);
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
  }

  #tell(state, text) {
    this.dispatchEvent(new CustomEvent("state", { detail: { state, text } }));
  }
}

/** Whether the frame refuses something that may be accepted later. */
export function isPassing(frame) {
  return frame.type === "error" && Boolean(frame.client_msg_id) && PASSING.has(frame.code);
}

/** Longer each time, and not the same for everybody. */
function backoff(failures) {
  const limit = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(failures, 10));
  return limit / 2 + (Math.random() * limit) / 2;
}

/** crypto.randomUUID needs a secure page; this does not. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
