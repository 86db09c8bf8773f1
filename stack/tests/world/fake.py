#!/usr/bin/env python3
"""Stands in for pooler, balancer and web: answers its health check, ends on the signals of its part.
As the pooler it lets everybody in and answers every query, unless a file no-queries lies in its folder.
As the balancer it drains while a file sockets there is not empty; a replica that is told farewell empties it."""
import http.server, os, re, signal, socketserver, struct, sys, threading, time

name = os.path.basename(sys.argv[0])
if name == "web" and sys.argv[1] == "check":
    queue = os.environ.get("CHAT_QUEUE_BYTES", "1")
    wrong = [] if queue.isdigit() else [f'CHAT_QUEUE_BYTES: "{queue}" is no whole number']
    wrong += [] if len(os.environ["SECRET_KEY"]) >= 32 else ["SECRET_KEY: too short"]
    print("\n".join(wrong))
    sys.exit(len(wrong))
if name == "web" and sys.argv[1] != "serve":
    print(f"{sys.argv[1]} for {os.environ['DATABASE_URL_DIRECT'].rsplit('@')[1]}")
    sys.exit(3 if os.environ.get("LOG_LEVEL") == "no-migration-today" else 0)

if name in ("pooler", "balancer") and sys.argv[1] in ("--check", "-t"):
    file = sys.argv[-1]
    wrong = [f"{file}:{n}: what is that?" for n, line in enumerate(open(file), 1) if line.startswith("nonsense")]
    print("\n".join(wrong), file=sys.stderr)
    sys.exit(bool(wrong))

if name == "web":
    port = int(os.environ["PORT"])
elif name == "balancer":
    port = int(os.environ["BALANCER_OPS_PORT"])
else:
    ini = open(sys.argv[1]).read()
    port, query_port = (int(re.search(rf"^{name} = (\d+)", ini, re.M)[1]) for name in ("metrics_listen_port", "listen_port"))

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass

class Queries(socketserver.StreamRequestHandler):
    def tell(self, kind, body):
        self.wfile.write(kind + struct.pack("!i", len(body) + 4) + body)
    def handle(self):
        self.rfile.read(struct.unpack("!i", self.rfile.read(4))[0] - 4)
        self.tell(b"R", struct.pack("!i", 0))
        self.tell(b"Z", b"I")
        while self.rfile.read(1) == b"Q":
            self.rfile.read(struct.unpack("!i", self.rfile.read(4))[0] - 4)
            if os.path.exists("no-queries"):
                self.tell(b"E", b"SERROR\0VERROR\0C57P01\0Mnot today\0\0")
            else:
                self.tell(b"C", b"SELECT 1\0")
            self.tell(b"Z", b"I")

if name == "pooler":
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    queries = socketserver.ThreadingTCPServer(("127.0.0.1", query_port), Queries)
    queries.daemon_threads = True
    threading.Thread(target=queries.serve_forever, daemon=True).start()

server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Health)

def sockets_are_open():
    return os.path.exists("sockets") and os.path.getsize("sockets") > 0

def end():
    if name == "web":
        print("told to end while sockets were open" if sockets_are_open() else "told to end", flush=True)
    while name == "balancer" and sockets_are_open():
        time.sleep(0.01)
    server.shutdown()

def farewell(*_):
    if sockets_are_open():
        os.truncate("sockets", 0)

# shutdown() waits for the loop that the handler interrupts: it needs a thread of its own.
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda *_: threading.Thread(target=end).start())
if name == "web":
    signal.signal(signal.SIGUSR1, farewell)
if name == "balancer":
    signal.signal(signal.SIGHUP, lambda *_: print("read again", open(sys.argv[2]).read().count("server 127.0.0.1:"), flush=True))
print(name, "serves", flush=True)
server.serve_forever()
print(name, "ended well", flush=True)
