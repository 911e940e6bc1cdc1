"""Pictures for tests, made and read by a few lines of our own, and forms to send them in."""
import struct
import zlib


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, pixel, *more):
    """A PNG file. pixel(x, y) gives a tuple: grey, grey and alpha, RGB or RGBA. more: chunks before the pixels."""
    n_channels = len(pixel(0, 0))
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[n_channels]
    rows = b"".join(b"\0" + bytes(value for x in range(width) for value in pixel(x, y)) for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)) + b"".join(more) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def chunks_of(data):
    """Names and contents of a PNG file's chunks."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:8]
    at, found = 8, []
    while at < len(data):
        n, name = struct.unpack(">I4s", data[at:at + 8])
        found.append((name, data[at + 8:at + 8 + n]))
        at += 12 + n
    return found


def pixels_of(data):
    """Rows of an 8-bit RGB or grey PNG without interlace, undone by hand."""
    chunks = chunks_of(data)
    width, height, _, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    n_channels = {0: 1, 2: 3}[kind]
    raw = zlib.decompress(b"".join(body for name, body in chunks if name == b"IDAT"))
    stride, before, rows = width * n_channels, bytes(width * n_channels), []
    for y in range(height):
        kind, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            left, up = line[i - n_channels] if i >= n_channels else 0, before[i]
            corner = before[i - n_channels] if i >= n_channels else 0
            guess = left + up - corner
            best = min((left, up, corner), key=lambda value: abs(guess - value))
            line[i] = (line[i] + (0, left, up, (left + up) // 2, best)[kind]) & 255
        before = bytes(line)
        rows.append(before)
    return rows


def multipart(fields, files):
    """A form's body and its type. fields: (name, text); files: (name, file name, bytes)."""
    boundary = "da22fae2a408d12df367041dc1273642"
    body = b""
    for name, value in fields:
        body += ("--%s\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n" % (boundary, name, value)).encode()
    for name, file_name, data in files:
        body += ("--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"%s\"\r\nContent-Type: image/png\r\n\r\n" %
                 (boundary, name, file_name)).encode() + data + b"\r\n"
    return body + ("--%s--\r\n" % boundary).encode(), "multipart/form-data; boundary=" + boundary
