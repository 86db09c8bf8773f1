// One open room on the page: its messages, answers as they are made, who is here, who writes.

import { byId, element, showProblem } from "./dom.js";
import { RoomSocket, isPassing } from "./socket.js";

const FIRST_LEN = 50;
const PAGE_LEN = 50;
const TYPING_SHOWN_MS = 3000;
const TYPING_SENT_MS = 2000;
const ANSWER_KEY = "answer:";
/** An answer without news for so long is not being made any more, and the word of its end was lost. */
const SILENCE_MAX_MS = 90_000;
/** What is not stored stays below what is. */
const NOT_STORED = ".pending, .failed, .making";

export class Room {
  #api;
  #session;
  #socket;
  #log = byId("log");
  #scroll = byId("scroll");
  #first = Infinity;
  /** client_msg_id → element of what is on its way. */
  #pending = new Map();
  /** stream_id → {place, tokens, timer} of answers in the making, {done} of those whose message has come. */
  #answers = new Map();
  #typists = new Map();
  #typed = 0;

  constructor(api, session, onState) {
    this.#api = api;
    this.#session = session;
    this.#log.replaceChildren();
    byId("room-title").textContent = session.title;
    byId("room-id").textContent = session.slug ?? session.id;
    byId("presence").textContent = "";
    byId("typing").textContent = "";
    showProblem(byId("room-error"), null);
    const since = Math.max(0, session.last_offset - FIRST_LEN);
    this.#first = since + 1;
    byId("earlier").hidden = since === 0;
    this.#socket = new RoomSocket(api, session.id, since);
    this.#socket.addEventListener("frame", (event) => this.#onFrame(event.detail));
    this.#socket.addEventListener("state", (event) => onState(event.detail));
  }

  close() {
    this.#socket.close();
    for (const { timer } of [...this.#typists.values(), ...this.#answers.values()]) clearTimeout(timer);
  }

  submit(type, content) {
    const id = this.#socket.submit(type, content);
    const place = this.#place({ author: this.#api.user, role: "user", content, created_at: null });
    place.classList.add("pending");
    this.#pending.set(id, place);
    this.#append(place, true);
  }

  onInput() {
    if (Date.now() - this.#typed < TYPING_SENT_MS) return;
    this.#typed = Date.now();
    this.#socket.typing();
  }

  async showEarlier() {
    const path = `/api/sessions/${this.#session.id}/messages?before=${this.#first}&limit=${PAGE_LEN}`;
    const page = await this.#api.request("GET", path);
    const height = this.#scroll.scrollHeight;
    this.#log.prepend(...page.items.map((message) => this.#place(message)));
    // What the reader looks at stays where it is.
    this.#scroll.scrollTop += this.#scroll.scrollHeight - height;
    this.#first = page.items[0]?.offset ?? 1;
    byId("earlier").hidden = this.#first <= 1;
  }

  #onFrame(frame) {
    switch (frame.type) {
      case "welcome": return frame.resumed || this.#startOver(frame.offset);
      case "message": return this.#onMessage(frame);
      case "presence": return this.#onPresence(frame);
      case "typing": return this.#onTyping(frame.author);
      case "token": return this.#onToken(frame);
      case "stream.done": return this.#onStreamDone(frame.stream_id);
      case "ack": return showProblem(byId("room-error"), null);
      case "error": return this.#onError(frame);
    }
  }

  /** Shows what the database has, in place of what it had. */
  async #startOver(offset) {
    for (const place of this.#log.querySelectorAll(".message:not(.pending, .failed)")) place.remove();
    for (const { timer } of this.#answers.values()) clearTimeout(timer);
    this.#answers.clear();
    this.#first = offset + 1;
    byId("earlier").hidden = offset === 0;
    try {
      await this.showEarlier();
      this.#toEnd();
    } catch (error) {
      showProblem(byId("room-error"), error.message);
    }
  }

  #onMessage(message) {
    const mine = message.author?.id === this.#api.user?.id;
    if (mine && message.client_msg_id) this.#drop(this.#pending, message.client_msg_id);
    if (message.author) this.#stopTyping(message.author.id);
    const stream = message.client_msg_id?.startsWith(ANSWER_KEY) && message.client_msg_id.slice(ANSWER_KEY.length);
    const making = stream && this.#answers.get(stream);
    const place = this.#place(message);
    if (making?.place) {
      clearTimeout(making.timer);
      this.#answers.set(stream, { done: true });
    }
    if (making?.place?.isConnected) {
      const stays = this.#isAtEnd();
      making.place.replaceWith(place);
      if (stays) this.#toEnd();
    } else {
      this.#append(place, mine);
    }
  }

  /** Its message may come later than the word of it. */
  #onStreamDone(stream) {
    if (this.#answers.get(stream)?.done) this.#answers.delete(stream);
  }

  /** Tokens may be lost or come twice: each has its number, and the stored answer replaces them all. */
  #onToken({ stream_id, i, text }) {
    let answer = this.#answers.get(stream_id);
    if (answer?.done) return;
    if (!answer) {
      const place = this.#place({ author: null, role: "assistant", content: "", created_at: null });
      place.classList.add("making");
      // Read aloud once, when it is whole.
      place.setAttribute("aria-busy", "true");
      answer = { place, tokens: [] };
      this.#answers.set(stream_id, answer);
    }
    // New, or put aside before.
    if (!answer.place.isConnected) this.#append(answer.place, false);
    clearTimeout(answer.timer);
    answer.timer = setTimeout(() => answer.place.remove(), SILENCE_MAX_MS);
    const stays = this.#isAtEnd();
    answer.tokens[i] = text;
    answer.place.querySelector(".text").textContent = Array.from(answer.tokens, (token) => token ?? "").join("");
    if (stays) this.#toEnd();
  }

  #onPresence({ joined, left, count }) {
    byId("presence").textContent = count === 1 ? "only you are here" : `${count} people here`;
    const names = (people) => people.map((person) => person.display_name).join(", ");
    const others = joined.filter((person) => person.id !== this.#api.user?.id);
    const news = [others.length && `${names(others)} joined`, left.length && `${names(left)} left`].filter(Boolean);
    byId("presence").title = news.join("; ") || "People in this session now";
    left.forEach((person) => this.#stopTyping(person.id));
  }

  #onTyping(author) {
    if (author.id === this.#api.user?.id) return;
    this.#stopTyping(author.id);
    const timer = setTimeout(() => this.#stopTyping(author.id), TYPING_SHOWN_MS);
    this.#typists.set(author.id, { name: author.display_name, timer });
    this.#showTyping();
  }

  #stopTyping(id) {
    clearTimeout(this.#typists.get(id)?.timer);
    this.#typists.delete(id);
    this.#showTyping();
  }

  #showTyping() {
    const names = [...this.#typists.values()].map((typist) => typist.name);
    byId("typing").textContent = names.length ? `${names.join(", ")} ${names.length > 1 ? "are" : "is"} writing…` : "";
  }

  #onError(frame) {
    showProblem(byId("room-error"), frame.detail);
    if (!frame.client_msg_id) this.#putAside();
    else if (!isPassing(frame)) this.#onRefused(frame.client_msg_id, frame.detail);
  }

  /** An answer may have failed, and the frame does not say which: those that live come back with their next token. */
  #putAside() {
    for (const { place } of this.#answers.values()) place?.remove();
  }

  /** What was typed stays, to be edited. */
  #onRefused(id, detail) {
    const place = this.#pending.get(id);
    if (!place) return;
    this.#pending.delete(id);
    place.classList.replace("pending", "failed");
    const edit = element("button", { type: "button", className: "quiet" }, "Edit");
    edit.onclick = () => {
      place.remove();
      putBack(place.querySelector(".text").textContent);
    };
    place.append(element("p", { className: "problem" }, `Not sent: ${detail}`), edit);
  }

  #drop(places, id) {
    places.get(id)?.remove();
    places.delete(id);
  }

  #place({ author, role, content, created_at }) {
    const mine = author && author.id === this.#api.user?.id;
    const name = role === "assistant" ? "Responder" : (author?.display_name ?? "?");
    const head = element("div", { className: "head" }, element("span", { className: "author" }, name));
    if (created_at) head.append(element("time", { dateTime: created_at }, timeOf(created_at)));
    const text = element("div", { className: "text" }, content);
    return element("article", { className: `message ${role}${mine ? " mine" : ""}` }, head, text);
  }

  #append(place, mine) {
    const stays = mine || this.#isAtEnd();
    const first = this.#log.querySelector(NOT_STORED);
    if (first && !place.matches(NOT_STORED)) first.before(place);
    else this.#log.append(place);
    if (stays) this.#toEnd();
  }

  #isAtEnd() {
    return this.#scroll.scrollHeight - this.#scroll.scrollTop - this.#scroll.clientHeight < 80;
  }

  #toEnd() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }
}

/** Into the field where it was typed, behind what stands there by now. */
function putBack(text) {
  const field = byId("content");
  field.value = field.value ? `${field.value}\n${text}` : text;
  field.focus();
}

function timeOf(text) {
  const date = new Date(text);
  const today = date.toDateString() === new Date().toDateString();
  return today ? date.toLocaleTimeString([], { timeStyle: "short" }) : date.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}
