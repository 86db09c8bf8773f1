// What a room shows of answers of which one fails and of one whose end is told before its message: after each step, its texts.
let socket;
window.WebSocket = class {
  static OPEN = 1;
  constructor() {
    socket = this;
  }
  close() {}
  send() {}
};
const api = { user: { id: "me" }, request: async () => ({ ticket: "t" }) };
return (async () => {
  const { Room } = await import("/assets/room.js");
  const room = new Room(api, { id: "room", title: "Room", slug: null, last_offset: 0 }, () => {});
  while (!socket) await new Promise((resolve) => setTimeout(resolve));
  const shown = () => [...document.querySelectorAll("#log .text")].map((text) => text.textContent);
  const say = (frame) => {
    socket.onmessage({ data: JSON.stringify(frame) });
    return shown();
  };
  const token = (stream_id, i, text) => say({ type: "token", stream_id, i, text });
  const created_at = "2026-01-01T00:00:00Z";
  const bob = { id: "bob", display_name: "Bob" };
  const message = (offset, author, content, client_msg_id) =>
    say({ type: "message", offset, role: author ? "user" : "assistant", author, content, created_at, client_msg_id });
  say({ type: "welcome", session_id: "room", offset: 0, served_by: "web-1", resumed: true });
  token("one", 0, "lives");
  const steps = [
    token("two", 0, "dies"),
    say({ type: "error", code: "responder-failed", detail: "ask again" }),
    token("one", 1, " on"),
    message(1, bob, "next", "c1"),
    message(2, null, "lives on, whole", "answer:one"),
    say({ type: "stream.done", stream_id: "one", offset: 2 }),
  ];
  token("three", 0, "late");
  say({ type: "stream.done", stream_id: "three", offset: 3 });
  steps.push(message(3, null, "late, whole", "answer:three"));
  room.close();
  return steps;
})();
