"""An origin that accepts nothing but RFC 9112's grammar as a sender must write it, and logs all that it sees.

    strict_origin.py PORT LOG

A line per request; `BAD id=...` for what is no request. Nothing is guessed: the connection ends there.
"""
import asyncio, re, signal, sys

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") (/[\x21-\x7e\x80-\xff]*|\*) HTTP/1\.[01]")
FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*([^\r\n\0]*?)[ \t]*")
SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
QUERY = re.compile(rb"id=(\d+)")


class Bad(Exception):
    pass


def parse(head):
    first, *lines = head[:-4].split(b"\r\n")
    line = REQUEST_LINE.fullmatch(first)
    if not line:
        raise Bad("request line")
    fields = {}
    for text in lines:
        field = FIELD.fullmatch(text)
        if not field:
            raise Bad("field line")
        fields.setdefault(field[1].lower(), []).append(field[2])
    if len(fields.get(b"host", [])) != 1:
        raise Bad("host")
    lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
    if len(lengths) + len(codings) > 1 or lengths and not lengths[0].isdigit() or codings and codings[0] != b"chunked":
        raise Bad("framing")
    return line, int(lengths[0]) if lengths else 0, bool(codings)


async def read_chunks(reader):
    while True:
        size = SIZE.fullmatch((await reader.readuntil(b"\r\n"))[:-2])
        if not size:
            raise Bad("chunk size")
        length = int(size[0], 16)
        if length == 0:
            break
        data = await reader.readexactly(length + 2)
        if data[-2:] != b"\r\n":
            raise Bad("chunk end")
    while (trailer := await reader.readuntil(b"\r\n")) != b"\r\n":
        if not FIELD.fullmatch(trailer[:-2]):
            raise Bad("trailer")


async def serve(reader, writer, log):
    line = None
    try:
        while True:
            head, line = await reader.readuntil(b"\r\n\r\n"), None
            line, length, is_chunked = parse(head)
            log.write(line[0] + b"\n")
            if is_chunked:
                await read_chunks(reader)
            else:
                await reader.readexactly(length)
            found = QUERY.search(line[2])
            echo = found[1] if found else b"0"
            body = b"" if line[1] == b"HEAD" else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nX-Echo: id=" + echo + b"\r\nContent-Length: 2\r\n\r\n" + body)
            closes = re.search(rb"(?i)\r\nconnection:[^\r]*close", head)
            if closes:
                break
    except asyncio.IncompleteReadError as cut:
        # Between requests that is how a connection ends; inside a body the balancer gave up on its client.
        if line is None and cut.partial:
            log.write(b"BAD cut head: " + repr(cut.partial).encode() + b"\n")
    except (Bad, asyncio.LimitOverrunError) as fault:
        log.write(b"BAD " + str(fault).encode() + b" " + repr(head).encode() + b"\n")
    except ConnectionError:
        pass
    writer.close()


async def main():
    with open(sys.argv[2], "wb", buffering=1 << 16) as log:
        server = await asyncio.start_server(lambda r, w: serve(r, w, log), "127.0.0.1", int(sys.argv[1]), limit=1 << 20)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await ended.wait()
        server.close()


asyncio.run(main())
