// Counts the WebSockets of a room whose page is told to connect while it is about to, and the frames shown after its end.
const made = [];
window.WebSocket = class {
  static OPEN = 1;
  constructor() {
    made.push(this);
  }
  close() {}
};
const tickets = [];
const api = { request: () => new Promise((resolve) => tickets.push(resolve)) };
const answered = () => new Promise((resolve) => setTimeout(resolve));
return (async () => {
  const { RoomSocket } = await import("/assets/socket.js");
  const room = new RoomSocket(api, "room", 0);
  const shown = [];
  room.addEventListener("frame", (event) => shown.push(event.detail));
  dispatchEvent(new Event("online"));
  tickets.forEach((resolve) => resolve({ ticket: "t" }));
  await answered();
  const say = (offset) => made.at(-1).onmessage({ data: JSON.stringify({ type: "message", offset }) });
  say(1);
  room.close();
  say(2);
  return [made.length, shown.length];
})();
