// The chat page: log in, choose a session, talk. Rooms are in room.js, requests in api.js.

import { Api } from "./api.js";
import { byId, element, showLink, showProblem } from "./dom.js";
import { Room } from "./room.js";

/** How long a message may be, in bytes: as it is, and as JSON, which makes six of a control character. */
const CONTENT_MAX = 16_384;
const CONTENT_JSON_MAX = 61_440;

const api = new Api();
let room = null;
let openId = null;
let registering = false;

function showEntry() {
  closeRoom();
  byId("app").hidden = true;
  byId("me").hidden = true;
  byId("link").hidden = true;
  byId("entry").hidden = false;
  byId("username").focus();
}

async function showApp() {
  byId("entry").hidden = true;
  byId("app").hidden = false;
  byId("me").hidden = false;
  byId("my-name").textContent = api.user.display_name;
  // On a small screen the list would cover the conversation.
  byId("side-details").open = !matchMedia("(max-width: 44rem)").matches || !location.hash;
  await listSessions();
  await openFromAddress();
}

function setEntry(toRegister) {
  registering = toRegister;
  const [title, other] = toRegister
    ? ["Register", "Have an account? Log in"]
    : ["Log in", "No account yet? Register"];
  byId("entry-title").textContent = title;
  byId("entry-submit").textContent = title;
  byId("entry-switch").textContent = other;
  byId("password").autocomplete = toRegister ? "new-password" : "current-password";
  byId("password-hint").hidden = !toRegister;
  showProblem(byId("entry-error"), null);
}

async function onEntry(event) {
  event.preventDefault();
  await showing(byId("entry-error"), byId("entry-submit"), async () => {
    const [username, password] = [byId("username").value.trim(), byId("password").value];
    await (registering ? api.register(username, password) : api.login(username, password));
    byId("password").value = "";
    await showApp();
  });
}

async function listSessions() {
  const page = await api.request("GET", "/api/sessions?limit=100");
  byId("sessions").replaceChildren(...page.items.map(sessionItem));
  byId("no-sessions").hidden = page.items.length > 0;
}

function sessionItem(session) {
  const button = element("button", { type: "button", title: session.title }, session.title);
  button.setAttribute("aria-current", String(session.id === openId));
  button.onclick = () => {
    location.hash = session.slug ?? session.id;
  };
  return element("li", {}, button);
}

async function openFromAddress() {
  const id = decodeURIComponent(location.hash.slice(1));
  if (!id || !api.user) return;
  await showing(byId("side-error"), null, async () => {
    const session = await api.request("GET", `/api/sessions/${encodeURIComponent(id)}`);
    if (session.id === openId) return;
    closeRoom();
    openId = session.id;
    byId("room").hidden = false;
    byId("room-empty").hidden = true;
    byId("link").hidden = false;
    document.title = `${session.title} – Arena chat`;
    room = new Room(api, session, ({ state, text }) => showLink(byId("link"), state, text));
    await listSessions();
    if (matchMedia("(max-width: 44rem)").matches) byId("side-details").open = false;
    byId("content").focus();
  });
}

function closeRoom() {
  room?.close();
  room = null;
  openId = null;
  byId("room").hidden = true;
  byId("room-empty").hidden = false;
}

async function onCreate(event) {
  event.preventDefault();
  await showing(byId("side-error"), event.submitter, async () => {
    const visibility = byId("create-public").checked ? "public" : "private";
    const session = await api.request("POST", "/api/sessions", { title: byId("create-title").value, visibility });
    byId("create-title").value = "";
    location.hash = session.id;
  });
}

async function onJoin(event) {
  event.preventDefault();
  await showing(byId("side-error"), event.submitter, async () => {
    const id = byId("join-id").value.trim();
    await api.request("POST", `/api/sessions/${encodeURIComponent(id)}/join`);
    byId("join-id").value = "";
    location.hash = id;
  });
}

function submit(type) {
  const field = byId("content");
  const content = field.value.trim();
  if (!content || !room) return;
  const over = bytesOver(content);
  showProblem(byId("room-error"), over > 0 ? `This message is ${over} bytes too long. Shorten it, or send it in parts.` : null);
  field.focus();
  if (over > 0) return;
  room.submit(type, content);
  field.value = "";
}

/** By how much a text is too long. */
function bytesOver(content) {
  const bytes = (text) => new TextEncoder().encode(text).length;
  const quotes = 2;
  return Math.max(bytes(content) - CONTENT_MAX, bytes(JSON.stringify(content)) - quotes - CONTENT_JSON_MAX);
}

/** Runs `work`; what goes wrong is shown in `place`, and `button` rests meanwhile. */
async function showing(place, button, work) {
  showProblem(place, null);
  if (button) button.disabled = true;
  try {
    await work();
  } catch (error) {
    showProblem(place, error.message);
  } finally {
    if (button) button.disabled = false;
  }
}

byId("entry-form").addEventListener("submit", onEntry);
byId("entry-switch").addEventListener("click", () => setEntry(!registering));
byId("logout").addEventListener("click", () => api.logout().catch(() => {}));
byId("create-form").addEventListener("submit", onCreate);
byId("join-form").addEventListener("submit", onJoin);
byId("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit("message.send");
});
byId("ask").addEventListener("click", () => submit("ask"));
byId("content").addEventListener("input", () => room?.onInput());
byId("content").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    submit("message.send");
  }
});
byId("earlier").addEventListener("click", () =>
  showing(byId("room-error"), byId("earlier"), () => room?.showEarlier()));
addEventListener("hashchange", openFromAddress);
api.addEventListener("loggedout", showEntry);

if (api.user) showApp().catch((error) => showProblem(byId("side-error"), error.message));
else showEntry();
