"""What other clients say of a body is understood: compression, charset, byte order mark."""

from __future__ import annotations

import gzip
import importlib
import random
import sys
import time
import zlib
from typing import Any

import pytest

from runner.message import MAX_BODY_BYTES, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.body_encoding import MAX_RATIO, ZSTD, compressor, plain_bytes, readable, uncompressed, utf8
from runner.pipeline.codec import decoder, key_reader

TEXT = "Müller & 订单"
LATIN = "Müller"


def zipped(body: bytes) -> bytes:
    """Return a body as gzip, always the same."""
    return gzip.compress(body, mtime=0)


def zstandard(body: bytes, window: int = 0) -> bytes:
    """Return a body as zstd; with a `window`, as a stream that asks for 2 to the power of it as memory."""
    zstd = importlib.import_module(ZSTD)
    if not window:
        return bytes(zstd.compress(body))
    stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window})
    return bytes(stream.compress(body) + stream.flush())


@pytest.mark.parametrize("handler", [str, Any])
@pytest.mark.parametrize(
    ("body", "content_type", "content_encoding", "payload"),
    [
        (TEXT.encode(), "text/plain", None, TEXT),
        (TEXT.encode(), "text/plain", "utf-8", TEXT),
        (TEXT.encode(), "text/plain", "UTF8", TEXT),
        (TEXT.encode(), "text/plain", "identity", TEXT),
        (TEXT.encode(), "text/plain", "binary", TEXT),
        (LATIN.encode("latin-1"), "text/plain", "ISO-8859-1", LATIN),
        (LATIN.encode("latin-1"), "text/plain; charset=iso-8859-1", None, LATIN),
        (LATIN.encode("cp1252"), 'TEXT/Plain;format=flowed; Charset="windows-1252"', "utf-8", LATIN),
        (b"Mueller", "text/plain", "us-ascii", "Mueller"),
        (TEXT.encode("utf-16"), "text/plain; charset=utf-16", None, TEXT),
        (TEXT.encode("utf-16-le"), "text/plain", "utf-16le", TEXT),
        (zipped(TEXT.encode()), "text/plain", "gzip", TEXT),
        (zipped(b"a") + zipped(b"b") + bytes(7), "text/plain", "x-gzip", "ab"),
        (zipped(LATIN.encode("latin-1")), "text/plain", "gzip:ISO-8859-1", LATIN),
        (zipped(LATIN.encode("latin-1")), "text/plain", "iso-8859-1, gzip", LATIN),
        (zlib.compress(TEXT.encode()), "text/plain", "deflate", TEXT),
        (zlib.compress(TEXT.encode(), wbits=-15), "text/plain", "Deflate", TEXT),
        (zstandard(TEXT.encode()), "text/plain", "zstd", TEXT),
        (b"\xef\xbb\xbf" + TEXT.encode(), "text/plain", None, TEXT),
    ],
)
def test_text_is_read_in_its_encoding(
    handler: Any, body: bytes, content_type: str, content_encoding: str | None, payload: str
) -> None:
    """A charset in the content type wins over one in the content encoding."""
    envelope = Envelope(body, content_type=content_type, content_encoding=content_encoding)
    assert decoder(handler)(envelope) == payload
    assert decoder(bytes)(envelope) == uncompressed(envelope)


@pytest.mark.parametrize("handler", [Any, dict, dict[str, int]])
@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.shop+json", None])
@pytest.mark.parametrize(
    ("body", "content_encoding"),
    [
        (b'{"id": 1}', None),
        (b'\xef\xbb\xbf{"id": 1}', None),
        (b'\xef\xbb\xbf{"id": 1}', "utf-8"),
        (b'{"id": 1}', "iso-8859-1"),
        ('{"id": 1}'.encode("utf-16"), "utf-16"),
        (zipped(b'\xef\xbb\xbf{"id": 1}'), "gzip"),
        (zstandard(b'{"id": 1}'), "zstd"),
    ],
)
def test_json_is_read_in_its_encoding(
    handler: Any, content_type: str | None, body: bytes, content_encoding: str | None
) -> None:
    """With a content type and without one, with an annotation and without one; `order_by` reads it too."""
    envelope = Envelope(body, content_type=content_type, content_encoding=content_encoding)
    assert decoder(handler)(envelope) == {"id": 1}
    assert key_reader("id")(envelope) == 1


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"content_encoding": "br"}, 'content encoding "br" is not supported'),
        ({"content_encoding": "gzip, gzip"}, 'content encoding "gzip, gzip" is not supported'),
        ({"content_encoding": "rot13"}, 'content encoding "rot13" is not supported'),
        ({"content_encoding": "aes256"}, 'content encoding "aes256" is not supported'),
        ({"content_type": "application/json; charset=klingon"}, 'charset "klingon" is not supported'),
        ({"content_type": "text/plain; charset=base64"}, 'charset "base64" is not supported'),
    ],
)
@pytest.mark.parametrize("handler", [str, Any, dict])
def test_what_is_not_known_is_named(handler: Any, properties: dict[str, Any], message: str) -> None:
    """And `bytes` gets it all the same."""
    envelope = Envelope(b'{"id": 1}', content_type="application/json")._replace(**properties)
    with pytest.raises(InvalidMessage, match=message):
        decoder(handler)(envelope)
    assert decoder(bytes)(envelope) == b'{"id": 1}'


@pytest.mark.parametrize(
    ("encoding", "body", "message"),
    [
        ("gzip", b"", "not gzip"),
        ("gzip", b"{}", "not gzip"),
        ("gzip", zipped(b"a" * 100)[:-9], "ends in the middle"),
        ("gzip", zipped(b"a") + b"junk", "not gzip"),
        ("gzip", zipped(b"a") + bytes(100_000) + b"junk", "not gzip"),
        ("deflate", zlib.compress(b"a") + b"junk", "goes on after"),
        ("deflate", b"\xff" * 9, "not deflate"),
        ("zstd", b"", "ends in the middle"),
        ("zstd", b"{}" * 9, "not zstd"),
        ("zstd", zstandard(b"a" * 100)[:-3], "ends in the middle"),
        ("zstd", zstandard(b"a") + b"junk", "goes on after"),
        ("zstd", zstandard(b"a", window=27), "not zstd"),
        ("us-ascii", "ü".encode(), "the body is not ASCII: ordinal not in range"),
        ("utf-8", b"\xff", "the body is not UTF-8: invalid start byte at byte 0"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_invalid(encoding: str, body: bytes, message: str) -> None:
    """With the reason."""
    envelope = Envelope(body, content_type="text/plain", content_encoding=encoding)
    with pytest.raises(InvalidMessage, match=message):
        decoder(str)(envelope)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (zipped(bytes(MAX_BODY_BYTES + 1)), "gzip"),
        (zipped(bytes(MAX_BODY_BYTES)) * 2, "gzip"),
        (zipped(bytes(4 * 1024 * 1024)), "gzip"),
        (zlib.compress(bytes(50 * 1024 * 1024)), "deflate"),
        (zstandard(bytes(50 * 1024 * 1024)), "zstd"),
    ],
)
def test_a_bomb_is_too_large(body: bytes, encoding: str) -> None:
    """By its size, or by how much smaller it is when it is compressed; it is never unpacked as a whole."""
    with pytest.raises(InvalidMessage) as caught:
        utf8(Envelope(body, content_encoding=encoding))
    assert caught.value.reason == "too-large"


def test_what_compresses_well_is_no_bomb() -> None:
    """Up to the limit, and anything up to 1 MiB."""
    line = b'{"article": "bolt", "count": 1}\n'
    body = line * (8 * 1024 * 1024 // len(line))
    packed = zipped(body)
    assert len(body) > 100 * len(packed)
    assert len(body) < MAX_RATIO * len(packed)
    assert uncompressed(Envelope(packed, content_encoding="gzip")) == body
    assert uncompressed(Envelope(zipped(bytes(2**20)), content_encoding="gzip")) == bytes(2**20)


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20, 3 * 2**20 + 7])
def test_nothing_is_left_behind_where_the_output_comes_in_pieces(size: int) -> None:
    """Whatever the length, and with something in front that does not compress."""
    body = random.Random(7).randbytes(100_000) + bytes(size)
    assert uncompressed(Envelope(zipped(body), content_encoding="gzip")) == body
    assert uncompressed(Envelope(zlib.compress(body), content_encoding="deflate")) == body


def test_many_members_of_gzip_are_refused_at_once() -> None:
    """A body of 16 MiB may hold 800,000 empty ones."""
    body = zipped(b"") * 800_000
    since = time.perf_counter()
    with pytest.raises(InvalidMessage, match="more than 1000 members"):
        uncompressed(Envelope(body, content_encoding="gzip"))
    assert time.perf_counter() - since < 1


def test_bytes_that_are_said_to_be_bytes_stay_bytes() -> None:
    """Without an annotation they are unpacked, and keep what looks like a byte order mark."""
    body = b"\xef\xbb\xbf\x00"
    kind = "application/octet-stream"
    assert decoder(Any)(Envelope(body, content_type=kind)) == body
    assert decoder(Any)(Envelope(zipped(body), content_type=kind, content_encoding="gzip")) == body


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_what_is_compressed_here_is_understood_here(encoding: str) -> None:
    """The same bytes each time, so that an attempt again is the same message; handlers get what was published."""
    body = b'{"id": 1, "text": "' + b"order " * 1000 + b'"}'
    packed, named = compressor(encoding, 4000)(body)
    envelope = Envelope(packed, content_type="application/json", content_encoding=named)
    assert (named, len(packed) < 200) == (encoding, True)
    assert compressor(encoding, 4000)(body) == (packed, named)
    assert readable(envelope).body == plain_bytes(envelope) == utf8(envelope) == body
    assert decoder(dict)(envelope)["id"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"a" * 4000,
        random.Random(1).randbytes(10_000),
        bytes(8 * 1024 * 1024),
        bytes(MAX_BODY_BYTES + 1),
    ],
    ids=["not over the limit", "random", "refused on arrival as a bomb", "too large, and refused as such"],
)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
def test_what_would_not_help_or_not_arrive_is_not_compressed(encoding: str, body: bytes) -> None:
    assert compressor(encoding, 4000)(body) == (body, None)


def test_zstd_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zstandard(b"a")
    monkeypatch.setitem(sys.modules, ZSTD, None)
    with pytest.raises(InvalidMessage, match=r'pip install "mqrunner\[zstd\]"'):
        utf8(Envelope(packed, content_encoding="zstd"))


def test_a_message_that_cannot_be_uncompressed_is_shown_as_it_is() -> None:
    for encoding in ("gzip", "br", None):
        assert readable(Envelope(b"{}", content_encoding=encoding)).body == b"{}"
