#!/usr/bin/env python3
"""Stands in for pooler, balancer and web: answers its health check, ends on the signals of its part."""
import http.server, os, re, signal, sys, threading

name = os.path.basename(sys.argv[0])
if name == "web" and sys.argv[1] == "check":
    queue = os.environ.get("CHAT_QUEUE_BYTES", "1")
    wrong = [] if queue.isdigit() else [f'CHAT_QUEUE_BYTES: "{queue}" is no whole number']
    wrong += [] if len(os.environ["SECRET_KEY"]) >= 32 else ["SECRET_KEY: too short"]
    print("\n".join(wrong))
    sys.exit(len(wrong))
if name == "web" and sys.argv[1] != "serve":
    print(f"{sys.argv[1]} for {os.environ['DATABASE_URL_DIRECT'].rsplit('@')[1]}")
    sys.exit(int(os.environ.get("FAKE_MIGRATION_STATUS", "0")))

if name == "web":
    port = int(os.environ["PORT"])
elif name == "balancer":
    port = int(os.environ["BALANCER_OPS_PORT"])
else:
    port = int(re.search(r"^metrics_listen_port = (\d+)", open(sys.argv[1]).read(), re.M)[1])

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Health)
# shutdown() waits for the loop that the handler interrupts: it needs a thread of its own.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
if name == "balancer":
    signal.signal(signal.SIGHUP, lambda *_: print("read again", open(sys.argv[2]).read().count("server 127.0.0.1:"), flush=True))
print(name, "serves", flush=True)
server.serve_forever()
print(name, "ended well", flush=True)
