"""What the command line's tests share: running the program, pictures and models that are good or broken."""
import glob
import json
import os
import shutil
import struct
import subprocess
import zlib

PROGRAM = os.environ["CYI_PROGRAM"]
FIXTURES = os.environ["CYI_FIXTURES"]
GOLDEN = os.path.join(FIXTURES, "golden")
KLEIN = os.path.join(GOLDEN, "flux2-klein")
BASE = os.path.join(GOLDEN, "flux2-base")
MODELS = os.path.join(os.environ["CYI_SOURCE_ROOT"], "models")
TINY = ["--model", KLEIN, "--width", "64", "--height", "64", "--steps", "2"]


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def lines(self):
        return self.out.splitlines()

    def object(self):
        return json.loads(self.out)


def environment(**more):
    """The user's environment without what would lead out of the test's folder."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "HF_", "CYBERIMAGE_"))}
    env.update(HOME=os.path.join(os.getcwd(), "home"), CYBERIMAGE_MODELS=MODELS, LC_ALL="C.UTF-8", **more)
    return env


def run(*arguments, stdin=None, env=None, program=PROGRAM, timeout=300):
    done = subprocess.run([program, *arguments], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=env or environment(), timeout=timeout)
    return Result(done.returncode, done.stdout.decode("utf-8", "surrogateescape"),
                  done.stderr.decode("utf-8", "surrogateescape"))


def expect(code, *arguments, **more):
    result = run(*arguments, **more)
    assert result.code == code, "exit code %d instead of %d: %s%s" % (result.code, code, result.out, result.err)
    return result


def generate(*arguments, **more):
    """A tiny picture; the words of the prompt do not matter."""
    return expect(0, "generate", "a red fox", *TINY, "--quiet", *arguments, **more)


def expect_refused(*arguments, words=(), **more):
    """Exit code 2, one sentence on stderr that holds the words, nothing on stdout, no file in this folder."""
    before = files_here()
    result = expect(2, *arguments, **more)
    sentences = result.err.splitlines()
    assert len(sentences) == 1 and sentences[0].startswith("cyberimage: "), result.err
    assert result.out == "", result.out
    for word in words:
        assert word in sentences[0], "%r is not in: %s" % (word, sentences[0])
    assert files_here() == before, files_here() - before
    return result


def files_here():
    return {path for path in glob.glob("**/*", recursive=True) + glob.glob(".*") if not path.startswith("home")}


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


# ---- Pictures ----


def png_chunks(data):
    """[(type, payload)]"""
    chunks, at = [], 8
    while at < len(data):
        n, = struct.unpack(">I", data[at:at + 4])
        chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + n]))
        at += 12 + n
    return chunks


def png_build(chunks):
    data = b"\x89PNG\r\n\x1a\n"
    for kind, payload in chunks:
        data += struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))
    return data


def png_make(width, height, pixel=(200, 40, 90), texts=()):
    rows = (b"\0" + bytes(pixel) * width) * height
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))]
    chunks += [(b"tEXt", key.encode() + b"\0" + text.encode("latin-1")) for key, text in texts]
    return png_build(chunks + [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def png_change_pixels(data):
    """The same file with other pixels: settings stay."""
    chunks = png_chunks(data)
    pixels = bytearray(zlib.decompress(b"".join(p for k, p in chunks if k == b"IDAT")))
    width, height, depth, colour = struct.unpack(">IIBB", chunks[0][1][:10])
    assert depth == 8 and colour == 2
    for y in range(height):
        row = y * (3 * width + 1)
        for x in range(1, 3 * width + 1):
            pixels[row + x] ^= 0x55
    kept = [c for c in chunks if c[0] not in (b"IDAT", b"IEND")]
    return png_build(kept + [(b"IDAT", zlib.compress(bytes(pixels))), (b"IEND", b"")])


# ---- Models ----


def copy_model(source, target):
    shutil.copytree(source, target)
    for folder, _, files in os.walk(target):
        os.chmod(folder, 0o755)
        for name in files:
            os.chmod(os.path.join(folder, name), 0o644)
    return target


def change_header(path, change):
    """Lets change() edit a safetensors header in place; the data stays."""
    data = read(path)
    n, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + n])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write(path, struct.pack("<Q", len(text)) + text + data[8 + n:])


def fill_tensor(path, part, two_bytes):
    """Overwrites the first BF16 tensor whose name holds part with one value."""
    data = bytearray(read(path))
    n, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + n])
    name = next(k for k in sorted(header) if part in k and header[k].get("dtype") == "BF16")
    begin, end = header[name]["data_offsets"]
    data[8 + n + begin:8 + n + end] = two_bytes * ((end - begin) // 2)
    write(path, bytes(data))
    return name
