"""Load test of the chat stack for locust 2.x: the same mix as the `load_tests` binary (API, streaming, WebSocket users).

    pip install locust websocket-client
    locust -f load_tests/locustfile.py --host=http://localhost:8080 --users 100 --spawn-rate 10 --run-time 2m --headless

Answers are checked, not only timed: status, shape, offsets without gap, every message once, tokens complete. The exit
code is 1 when more than LOAD_FAIL_RATIO of the requests failed (0.001: 0.1 %), when the 95th percentile of a route on
/api/ but /api/auth/ is above LOAD_P95_MS (400), or when nothing ran. LOAD_ACCOUNTS (50) accounts are registered and shared by the
users: passwords are hashed slowly on purpose, and a registration per user would measure little else.
"""

import contextlib
import itertools
import json
import os
import random
import time
import uuid

import websocket
from gevent.lock import Semaphore
from locust import HttpUser, between, events, task

ACCOUNTS = int(os.environ.get("LOAD_ACCOUNTS", "50"))
FAIL_RATIO = float(os.environ.get("LOAD_FAIL_RATIO", "0.001"))
P95_MS = float(os.environ.get("LOAD_P95_MS", "400"))
ROOM_SIZE = int(os.environ.get("LOAD_ROOM_SIZE", "10"))
TIMEOUT_S = 30
RUN = uuid.uuid4().hex[:8]
MESSAGES = "/api/sessions/[id]/messages"
STREAM = "/messages/stream/"


class Wrong(Exception):
    """An answer that breaks the contract."""


def expect(condition, rule):
    if not condition:
        raise Wrong(rule)


class Account:
    """A registered user; its token is renewed at half its life."""

    def __init__(self, number):
        self.username = f"locust_{RUN}_{number}"
        self.password = uuid.uuid4().hex
        self.access = self.refresh = None
        self.renew_at = 0.0
        self.lock = Semaphore()

    def token(self, client):
        with self.lock:
            if self.access is None:
                body = {"username": self.username, "password": self.password}
                self._take(client.post("/api/auth/register", json=body), 201)
            elif time.monotonic() > self.renew_at:
                body = {"refresh_token": self.refresh}
                self._take(client.post("/api/auth/refresh", json=body), 200)
            return self.access

    def _take(self, response, status):
        expect(response.status_code == status, f"log in: status {response.status_code}, expected {status}")
        answer = response.json()
        self.access, self.refresh = answer["access_token"], answer["refresh_token"]
        self.renew_at = time.monotonic() + answer["expires_in"] / 2


class World:
    """What the users of this process share."""

    accounts = [Account(number) for number in range(ACCOUNTS)]
    numbers = itertools.count()
    seats = itertools.count()
    rooms = {}
    lock = Semaphore()

    @classmethod
    def room(cls, seat, user):
        """The room of a seat: the first member to come creates it."""
        with cls.lock:
            table = seat // ROOM_SIZE
            if table not in cls.rooms:
                cls.rooms[table] = user.create_session("public")
            return cls.rooms[table]


class ChatUser(HttpUser):
    """What all kinds of users can do."""

    abstract = True
    wait_time = between(0.5, 1.5)

    def on_start(self):
        self.number = next(World.numbers)
        self.account = World.accounts[self.number % len(World.accounts)]

    def ask(self, method, path, name, status, check=lambda answer, response: None, **rest):
        """One request; a wrong answer counts as failed. Gives the JSON answer, or None."""
        rest.setdefault("headers", {})["Authorization"] = f"Bearer {self.account.token(self.client)}"
        call = self.client.request(method, path, name=name, catch_response=True, timeout=TIMEOUT_S, **rest)
        with call as response:
            if response.status_code not in status:
                response.failure(f"status {response.status_code}, expected {' or '.join(map(str, status))}")
                return None
            try:
                answer = response.json()
                check(answer, response)
                return answer
            except (ValueError, KeyError, TypeError) as error:
                response.failure(f"wrong shape: {error!r}")
            except Wrong as error:
                response.failure(f"wrong: {error}")
            return None

    def create_session(self, visibility):
        body = {"title": f"locust {RUN} user {self.number}", "visibility": visibility}
        answer = self.ask("POST", "/api/sessions", "/api/sessions", [201], json=body)
        return answer and answer["id"]

    def record(self, kind, name, began, error=None, length=0):
        events.request.fire(
            request_type=kind, name=name, response_time=(time.perf_counter() - began) * 1000, response_length=length,
            exception=error, context={},
        )


class ApiUser(ChatUser):
    """Lists people, reads and writes a session of its own, and knows what every page must show."""

    weight = 6

    def on_start(self):
        super().on_start()
        self.session = None
        self.stored = 0
        self.consistency_token = None

    def text(self, n):
        return f"message {n} of {self.number}: " + " ".join(["river", "lantern", "copper"][: n % 3 + 1])

    def own_session(self):
        if self.session is None:
            self.session, self.stored = self.create_session("private"), 0
        return self.session

    def check_message(self, message, n):
        expect(message["offset"] == n, "an offset is not the next one")
        expect(message["content"] == self.text(n) and message["role"] == "user", "another message at this offset")

    @task(3)
    def people(self):
        def check(answer, _):
            expect(0 < len(answer["items"]) <= 10, "a page longer than its limit, or empty")
            expect(answer["has_more"] == (answer["next"] is not None), "has_more and next disagree")

        self.ask("GET", "/api/users?limit=10", "/api/users", [200], check)

    @task(2)
    def me(self):
        def check(answer, _):
            expect(answer["username"] == self.account.username, "another user's profile")

        self.ask("GET", "/api/users/me", "/api/users/me", [200], check)

    @task(2)
    def sessions(self):
        self.ask("GET", "/api/sessions?limit=20", "/api/sessions", [200], lambda answer, _: answer["items"])

    @task(4)
    def read(self):
        if self.own_session() is None:
            return
        after = max(0, self.stored - 1 - random.randrange(20))
        headers = {"X-Consistency-Token": self.consistency_token} if self.consistency_token else {}

        def check(answer, _):
            due = min(self.stored - after, 20)
            expect(len(answer["items"]) == due, f"{len(answer['items'])} messages where {due} are stored")
            for n, message in enumerate(answer["items"], after + 1):
                self.check_message(message, n)

        path = f"/api/sessions/{self.session}/messages?after={after}&limit=20"
        self.ask("GET", path, MESSAGES, [200], check, headers=headers)

    def post(self, n, statuses, name):
        def check(answer, response):
            self.check_message(answer, n)
            replayed = response.headers.get("Idempotency-Replayed") == "true"
            expect(replayed == (response.status_code == 200), "status and Idempotency-Replayed disagree")
            self.consistency_token = response.headers.get("X-Consistency-Token", self.consistency_token)

        body = {"content": self.text(n), "client_msg_id": f"{self.number}-{n}"}
        return self.ask("POST", f"/api/sessions/{self.session}/messages", name, statuses, check, json=body)

    @task(3)
    def write(self):
        if self.own_session() is None:
            return
        # A try whose answer was lost may be stored: its retry, with the same key, may then be a replay.
        if self.post(self.stored + 1, [201, 200], MESSAGES) is None:
            self.session = None
        else:
            self.stored += 1

    @task(1)
    def repeat(self):
        if self.session is not None and self.stored > 0:
            self.post(self.stored, [200], f"{MESSAGES} (again)")


class StreamUser(ChatUser):
    """Asks and reads the answer as it is made; every fifth time it loses the connection and resumes."""

    weight = 2

    def on_start(self):
        super().on_start()
        self.session = None
        self.asked = 0

    @task
    def ask_and_read(self):
        self.session = self.session or self.create_session("private")
        if self.session is None:
            return
        self.asked += 1
        body = {
            "session_id": self.session,
            "content": f"question {self.asked} of {self.number}",
            "client_msg_id": f"q{self.number}-{self.asked}",
        }
        seen = {"tokens": [], "stream_id": None, "last_id": None, "done": None}
        cut_after = 2 if self.asked % 5 == 0 else None
        good = self.follow("POST", STREAM, STREAM, seen, cut_after, json=body)
        if good and seen["done"] is None:
            headers = {"Last-Event-ID": seen["last_id"]}
            path = f"{STREAM}{seen['stream_id']}"
            good = self.follow("GET", path, f"{STREAM}[id] (resumed)", seen, None, headers=headers)
        if not good:
            self.session = None

    def follow(self, method, path, name, seen, cut_after, **rest):
        headers = {**rest.pop("headers", {}), "Accept": "text/event-stream"}
        headers["Authorization"] = f"Bearer {self.account.token(self.client)}"
        began = time.perf_counter()
        error = None
        try:
            response = self.client.request(
                method, path, name=f"{name} (to first byte)", headers=headers, stream=True, timeout=TIMEOUT_S, **rest
            )
            with contextlib.closing(response):
                expect(response.status_code == 200, f"status {response.status_code}, expected 200")
                for event, data, event_id in read_events(response):
                    self.on_event(event, data, event_id, seen, began)
                    if cut_after and len(seen["tokens"]) >= cut_after:
                        break
            expect(seen["done"] is not None or cut_after, "the stream ended before its answer was done")
        except Exception as fault:  # noqa: BLE001 - every fault of a stream is a figure, none ends the user
            error = fault
        self.record("SSE", name, began, error)
        return error is None

    def on_event(self, event, data, event_id, seen, began):
        seen["last_id"] = event_id or seen["last_id"]
        if event == "start":
            seen["stream_id"] = data["stream_id"]
        elif event == "token":
            if not seen["tokens"]:
                self.record("SPAN", "first token of a stream", began)
            expect(data["i"] == len(seen["tokens"]), "a token was left out or came twice")
            expect(event_id == f"{seen['stream_id']}:{data['i']}", "a token's id is not STREAM:i")
            seen["tokens"].append(data["text"])
        elif event == "done":
            expect(data["content"] == "".join(seen["tokens"]), "the tokens are not the stored answer")
            seen["done"] = data
        elif event == "error":
            raise Wrong(f"the stream ended with an error event: {data.get('title')}")


def read_events(response):
    """Server-sent events of a response: name, JSON data, id."""
    name, data, event_id = "message", [], None
    # Lines of bytes: text would also be split at U+2028 and its like, which stand inside a message.
    for line in response.iter_lines(chunk_size=None):
        line = line.decode()
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if data:
                yield name, json.loads("\n".join(data)), event_id
            name, data, event_id = "message", [], None
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value


class SocketUser(ChatUser):
    """A member of a room: sends, and checks that every message comes once and in order, reconnections included."""

    weight = 2

    def on_start(self):
        super().on_start()
        self.seat = next(World.seats)
        self.session = None
        self.last_offset = None
        self.socket = None
        self.count = 0
        self.sends_left = 0

    def on_stop(self):
        self.hang_up()

    def hang_up(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    @task
    def converse(self):
        try:
            if self.socket is None and not self.connect():
                return
            self.send()
            self.listen(random.uniform(0.1, 0.5))
            self.sends_left -= 1
            if self.sends_left == 0:
                self.hang_up()
        except Exception as fault:  # noqa: BLE001 - every fault of a socket is a figure, none ends the user
            self.record("WS", "message.send (to ack)", time.perf_counter(), fault)
            self.hang_up()

    def connect(self):
        if self.session is None:
            self.session = World.room(self.seat, self)
            if self.session is None:
                return False
            path = f"/api/sessions/{self.session}/join"
            if self.ask("POST", path, "/api/sessions/[id]/join", [200, 201], json={}) is None:
                self.session = None
                return False
        began = time.perf_counter()
        error = None
        try:
            since = "" if self.last_offset is None else f"&since={self.last_offset}"
            url = self.host.rstrip("/").replace("http", "ws", 1)
            url = f"{url}/ws/chat/session/{self.session}/?token={self.account.token(self.client)}{since}"
            self.socket = websocket.create_connection(url, timeout=TIMEOUT_S)
            welcome = json.loads(self.socket.recv())
            expect(welcome["type"] == "welcome", "another frame came before the welcome")
            if self.last_offset is None:
                self.last_offset = welcome["offset"]
            self.sends_left = random.randint(10, 20)
        except Exception as fault:  # noqa: BLE001 - as above
            error = fault
            self.hang_up()
        self.record("WS", "/ws/chat/session/[id]/ (to welcome)", began, error)
        return error is None

    def send(self):
        self.count += 1
        key = f"w{self.number}-{self.count}"
        content = f"lt/{RUN}/{time.monotonic_ns()} message {self.count} of {self.number}"
        began = time.perf_counter()
        self.socket.send(json.dumps({"type": "message.send", "client_msg_id": key, "content": content}))
        acked = delivered = None
        while acked is None or delivered is None:
            self.socket.settimeout(TIMEOUT_S)
            frame = self.on_frame(self.socket.recv())
            if frame.get("client_msg_id") == key and frame["type"] == "ack":
                acked = frame["offset"]
                self.record("WS", "message.send (to ack)", began)
            elif frame.get("client_msg_id") == key and frame["type"] == "message":
                delivered = frame["offset"]
        expect(acked == delivered, "ack and delivery name different offsets")

    def listen(self, seconds):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                self.on_frame(self.socket.recv())
            except websocket.WebSocketTimeoutException:
                return

    def on_frame(self, text):
        frame = json.loads(text)
        if frame["type"] == "message":
            expect(frame["offset"] == self.last_offset + 1, "an offset was left out, came twice or late")
            self.last_offset = frame["offset"]
        elif frame["type"] == "error":
            raise Wrong(f"an error frame: {frame['code']}")
        return frame


@events.quitting.add_listener
def judge(environment, **_):
    """The exit code, from the thresholds of the documents."""
    total = environment.stats.total
    # Log-in is left out: hashing a password is slow on purpose.
    routes = environment.stats.entries.values()
    api = [route for route in routes if route.name.startswith("/api/") and not route.name.startswith("/api/auth/")]
    worst = max((entry.get_response_time_percentile(0.95) or 0 for entry in api), default=0)
    if total.num_requests == 0:
        verdict = "nothing ran"
    elif total.fail_ratio > FAIL_RATIO:
        verdict = f"{total.fail_ratio:.2%} of the requests failed, {FAIL_RATIO:.2%} may"
    elif worst > P95_MS:
        verdict = f"the 95th percentile of a route on /api/ is {worst:.0f} ms, {P95_MS:.0f} ms are allowed"
    else:
        environment.process_exit_code = 0
        return
    print(f"FAILED: {verdict}")
    environment.process_exit_code = 1
