"""Sticky sessions: one client's WebSocket connections must all reach one replica.

    pip install websocket-client
    python load_tests/test_sticky_sessions.py [--host http://localhost:8080] [--connections 10]

Registers a user, creates a session, connects ten times and reads `served_by` of each welcome frame, and `upstream: web-N`
of the balancer's log says the same. Exit code 0 when one replica served all connections.
"""

import argparse
import json
import sys
import time
import urllib.request
import uuid

import websocket


def post(host, path, body, token=None):
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(host + path, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def backends(host, connections, pause_s):
    user = {"username": f"sticky_{uuid.uuid4().hex[:8]}", "password": uuid.uuid4().hex}
    token = post(host, "/api/auth/register", user)["access_token"]
    session = post(host, "/api/sessions", {"title": "sticky", "visibility": "private"}, token)["id"]
    url = f"{host.replace('http', 'ws', 1)}/ws/chat/session/{session}/?token={token}"
    seen = []
    for number in range(connections):
        if number:
            time.sleep(pause_s)
        ws = websocket.create_connection(url, timeout=30)
        welcome = json.loads(ws.recv())
        ws.close()
        if welcome["type"] != "welcome":
            sys.exit(f"the first frame is {welcome['type']}, not the welcome")
        seen.append(welcome["served_by"])
    return seen


def main():
    parser = argparse.ArgumentParser(description="Do all WebSocket connections of one client reach one replica?")
    parser.add_argument("--host", default="http://localhost:8080")
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two connections")
    args = parser.parse_args()
    seen = backends(args.host.rstrip("/"), args.connections, args.pause)
    unique = set(seen)
    print(f"Unique backends hit: {len(unique)}")
    print("Expected: 1 (sticky sessions working)")
    print(f"Actual: {unique}")
    sys.exit(len(unique) != 1)


if __name__ == "__main__":
    main()
