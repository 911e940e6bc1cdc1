"""An OpenAI-compatible endpoint that behaves as its path says: /normal/v1/chat/completions, /cut/v1/…; it keeps what it was sent."""
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORDS = ["A cat ", "sits on ", "a warm roof, ", "and the ", "light is low."]
TEXT = "".join(WORDS)


def chunk(text=None, finish=None, model="fake-1", **delta):
    if text is not None:
        delta["content"] = text
    return {"id": "c1", "object": "chat.completion.chunk", "model": model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def completion(text, finish="stop"):
    return {"id": "c1", "object": "chat.completion", "model": "fake-1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        behaviour = self.path.split("/")[1]
        server = self.server.owner
        server.requests.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
        try:
            getattr(self, "be_" + behaviour)()
        except (BrokenPipeError, ConnectionResetError):
            server.n_left += 1
        self.close_connection = True

    do_GET = do_POST

    def head(self, status=200, kind="text/event-stream", **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def event(self, data, end="\n\n"):
        self.wfile.write(b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + end.encode())
        self.wfile.flush()

    def answer(self, status, value, **headers):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.head(status, "application/json", Content_Length=str(len(data)), **headers)
        self.wfile.write(data)

    def be_normal(self):  # as OpenAI and Hugging Face's router stream
        self.head()
        self.event(chunk("", role="assistant"))
        for word in WORDS:
            self.event(chunk(word))
        self.event(chunk(finish="stop"))
        self.event(b"[DONE]")

    def be_ollama(self):  # text/event-stream with usage at the end, an empty content and no role
        self.head()
        for word in WORDS:
            self.event(chunk(word, role="assistant", model="llama3.2:3b"))
        self.event(chunk("", finish="stop", model="llama3.2:3b"))
        self.event({"id": "c1", "model": "llama3.2:3b", "choices": [], "usage": {"total_tokens": 9}})
        self.event(b"[DONE]")

    def be_llamacpp(self):  # chunked, null content first, timings at the end, CRLF line ends
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        pieces = [chunk(None, model="model.gguf", role="assistant", content=None)] + [chunk(word, model="model.gguf") for word in WORDS]
        pieces.append({"choices": [{"finish_reason": "stop", "index": 0, "delta": {}}], "model": "model.gguf", "timings": {"predicted_ms": 1.5}})
        for piece in [json.dumps(p) for p in pieces] + ["[DONE]"]:
            data = ("data: %s\r\n\r\n" % piece).encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def be_thinking(self):
        self.head()
        for word in ["<th", "ink>\nThey want ", "a cat.</thi", "nk>\n\n\"", "A cat ", "on a **roof**.", "\""]:
            self.event(chunk(word))
        self.event(chunk(finish="stop"))

    def be_whole(self):  # does not stream
        self.answer(200, completion("```text\nPrompt: \u201c%s\u201d\n```" % TEXT))

    def be_comments(self):
        self.head()
        self.wfile.write(b": OPENROUTER PROCESSING\n\n\nevent: message\nid: 3\nretry: 5\n")
        for word in WORDS:
            self.event(chunk(word))
            self.wfile.write(b": still here\n\n")
        self.event(b"[DONE]")

    def be_slow(self):
        self.head()
        for i in range(100):
            self.event(chunk("word%d " % i))
            time.sleep(0.1)

    def be_silent(self):
        time.sleep(20)

    def be_endless(self):
        self.head()
        while True:
            self.event(chunk("on and on "))

    def be_huge(self):  # one line without an end
        self.head()
        self.wfile.write(b"data: {\"choices\": \"")
        while True:
            self.wfile.write(b"x" * 65536)

    def be_hugeobject(self):
        self.head(200, "application/json")
        self.wfile.write(b"{\"choices\": \"")
        while True:
            self.wfile.write(b"x" * 65536)

    def be_long(self):
        self.answer(200, completion("A long sentence of words. " * 1000))

    def be_invalid(self):
        self.head()
        self.wfile.write(b"data: {\"choices\":[{\"delta\":{\"content\":\"A c\xff\xfeat \x1b[31m\\u0007\\u202eon a\\u0000\"}}]}\n\n")
        self.event(b"[DONE]")

    def be_bytes(self):
        self.head()
        self.wfile.write(b"data: {\"choices\":[{\"delta\":{\"content\":\"A c\xff\xfeat \\u001b[31m\\u0007\\u202eon a roof.\"}}]}\n\n")
        self.event(b"[DONE]")

    def be_cut(self):
        self.head(200, "text/event-stream", Content_Length="100000")
        self.event(chunk("A cat "))

    def be_cutclean(self):  # an end without [DONE] or a reason
        self.head()
        self.event(chunk("A cat "))

    def be_nothing(self):
        self.close_connection = True

    def be_empty(self):
        self.answer(200, b"")

    def be_notext(self):
        self.answer(200, completion(""))

    def be_html(self):
        self.head(200, "text/html")
        self.wfile.write(b"<!doctype html><title>Router</title>\n<p>Welcome")

    def be_refusal(self):
        self.answer(200, completion("", "content_filter"))

    def be_midway(self):  # an error within the stream
        self.head()
        self.event(chunk("A cat "))
        time.sleep(0.3)
        self.event({"error": {"message": "the GPU fell off", "code": 500}})

    def be_unauthorised(self):
        key = self.headers.get("Authorization", "")
        self.answer(401, {"error": {"message": "Incorrect API key provided: %s" % key}})

    def be_unknown(self):
        self.answer(404, {"error": {"message": "model 'tiny' not found, try pulling it first"}})

    def be_busy(self):
        self.answer(429, {"error": {"message": "slow down"}}, Retry_After="17")

    def be_spent(self):
        self.answer(402, {"error": "You have exceeded your monthly included credits"})

    def be_broken(self):
        self.answer(500, {"error": {"message": "out of\nmemory, key was %s" % self.headers.get("Authorization", "")}})

    def be_badrequest(self):
        self.answer(400, {"error": {"message": "Unsupported value: 'temperature' does not support 0.8"}})

    def be_redirect(self):
        self.answer(307, {}, Location=self.server.owner.other_url + "/normal/v1/chat/completions")

    def be_half(self):  # every second request fails
        server = self.server.owner
        server.n_half += 1
        if server.n_half % 2 == 0:
            self.answer(500, {"error": {"message": "every second one fails"}})
        else:
            time.sleep(0.2)
            self.be_normal()


class FakeEndpoint:
    """One endpoint on a port of its own. Use with "with"."""

    def __init__(self, other_url=None):
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.owner = self
        self.requests, self.n_left, self.n_half, self.other_url = [], 0, 0, other_url
        self.url = "http://127.0.0.1:%d" % self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
