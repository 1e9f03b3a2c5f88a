"""The encoding of a body, as other clients declare it: compression, charset and byte order mark.

`content_encoding` names a compression (HTTP's meaning), a charset (kombu, Spring AMQP) or both (`gzip:UTF-8`, Spring
AMQP).
"""

from __future__ import annotations

import codecs
import importlib
import re
import sys
import zlib
from collections.abc import Callable
from encodings import normalize_encoding
from encodings.aliases import aliases
from functools import lru_cache
from typing import Any, NamedTuple

from runner.message import MAX_BODY_BYTES, Envelope
from runner.outcome import InvalidMessage

JSON = "application/json"
TEXT = "text/plain"
BYTES = "application/octet-stream"

MAX_RATIO = 500
"""The maximum compression ratio of a body of more than 1 MiB. Real texts stay below it, bombs do not."""

MAX_GZIP_MEMBERS = 1000
"""The maximum number of members of a gzip body. Each costs time, even if it is empty."""

_RATIO_MATTERS = 1024 * 1024
_PIECE = 64 * 1024
_UNPACKED_AT_ONCE = 1024 * 1024

_USUAL = frozenset({None, JSON, TEXT})
"""Content types that need no parsing."""

_NO_ENCODINGS = frozenset({"", "identity", "binary", "7bit", "8bit"})
_NO_CHARSETS = frozenset({"binary", "utf_8"})
_COMPRESSIONS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate", "zstd": "zstd"}
_NOT_CHARSETS = {"base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs"}
_CHARSETS = frozenset(aliases.values()) - _NOT_CHARSETS - {"utf_7"} | {"koi8_u", "utf_8_sig"}
"""A closed list: looking up an unknown name in Python's codecs would import a module, and cache each failure."""

ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
"""The module for zstd, which is a part of Python from 3.14 on."""

_MAX_WINDOW_LOG = 24
"""Limits the memory that decompressing zstd takes to that of the largest body."""

WIDE_FILE = "it is UTF-16 or UTF-32: save it as UTF-8"

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^"';\s]+)""", re.IGNORECASE)
_SEPARATORS = re.compile(r"[,:\s]+")
_UTF8_MARK = codecs.BOM_UTF8
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE begins like UTF-16-LE


class ContentType(NamedTuple):
    """A media type in lower case without parameters ("" for none), and its charset (None for UTF-8)."""

    media: str
    charset: str | None = None

    @property
    def is_json(self) -> bool:
        """Whether the body is JSON."""
        return self.media == JSON or self.media.endswith("+json")

    @property
    def is_text(self) -> bool:
        """Whether the body is text."""
        return self.media.startswith("text/")


@lru_cache(maxsize=256)
def content_type(written: str | None) -> ContentType:
    """Parse a content type. Raises InvalidMessage for an unknown charset."""
    if not written:
        return ContentType("")
    named = _CHARSET.search(written)
    charset = _charset(named[1]) if named else None
    if named and charset is None:
        raise InvalidMessage(f'charset "{named[1]}" is not supported')
    return ContentType(written.partition(";")[0].strip().lower(), charset if charset not in _NO_CHARSETS else None)


def uncompressed(envelope: Envelope) -> bytes:
    """Return the uncompressed body. Raises InvalidMessage for an unsupported encoding."""
    compression, _ = _content_encoding(envelope.content_encoding)
    return _inflated(envelope.body, compression) if compression else envelope.body


def plain_bytes(envelope: Envelope) -> bytes:
    """Return the body for a handler that takes bytes: uncompressed, or as it is if its encoding is not supported."""
    try:
        _content_encoding(envelope.content_encoding)
    except InvalidMessage:
        return envelope.body
    return uncompressed(envelope)


def readable(envelope: Envelope) -> Envelope:
    """Return a message for people: with its uncompressed body, or unchanged if that cannot be read."""
    try:
        return envelope._replace(body=uncompressed(envelope)) if envelope.content_encoding else envelope
    except InvalidMessage:
        return envelope


def compressor(encoding: str, over: int) -> Callable[[bytes], tuple[bytes, str | None]]:
    """Return the function that compresses bodies of more than `over` bytes.

    It returns the body and its content encoding. A body that does not become smaller, or that would be refused on
    arrival, stays as it is. The same body is always compressed to the same bytes.
    """

    def compress(body: bytes) -> tuple[bytes, str | None]:
        if not over < len(body) <= MAX_BODY_BYTES:
            return body, None
        if encoding == "zstd":
            packed: bytes = importlib.import_module(ZSTD).compress(body)
        else:
            packed = zlib.compress(body, wbits=zlib.MAX_WBITS | 16 if encoding == "gzip" else zlib.MAX_WBITS)
        return (packed, encoding) if len(packed) < len(body) <= _limit(packed) else (body, None)

    return compress


def utf8(envelope: Envelope) -> bytes:
    """Return a text or JSON body as UTF-8, uncompressed and without a byte order mark.

    The charset of the content type comes first, then that of the content encoding, then UTF-8. Raises InvalidMessage
    and UnicodeDecodeError.
    """
    body = envelope.body
    if not envelope.content_encoding and envelope.content_type in _USUAL:
        return body if body[:1] != b"\xef" else without_mark(body)
    charset = content_type(envelope.content_type).charset
    if envelope.content_encoding:
        compression, encoding = _content_encoding(envelope.content_encoding)
        charset = charset or encoding
        body = _inflated(body, compression) if compression else body
    if charset is not None:
        body = body.decode(charset).encode()
    return without_mark(body)


def without_mark(body: bytes) -> bytes:
    """Return a body without the byte order mark of UTF-8 (RFC 8259, 8.1)."""
    return body[len(_UTF8_MARK) :] if body[:1] == b"\xef" and body.startswith(_UTF8_MARK) else body


def is_wide(body: bytes) -> bool:
    """Whether a body starts with the byte order mark of UTF-16 or UTF-32."""
    return body.startswith(_WIDE_MARKS)


@lru_cache(maxsize=256)
def _content_encoding(written: str | None) -> tuple[str | None, str | None]:
    """Return the compression and the charset of a content encoding, None for each that it does not name."""
    compression = charset = None
    for part in _SEPARATORS.split((written or "").strip().lower()):
        if part in _NO_ENCODINGS:
            continue
        if part in _COMPRESSIONS and compression is None:
            compression = _COMPRESSIONS[part]
        elif (found := _charset(part)) is not None and charset is None:
            charset = found
        else:
            raise InvalidMessage(f'content encoding "{written}" is not supported')
    return compression, charset if charset not in _NO_CHARSETS else None


def _charset(name: str) -> str | None:
    """Return Python's name of a charset, None for an unknown one."""
    if not name.isascii():
        return None
    normal = normalize_encoding(name).lower()
    found = aliases.get(normal, normal)
    return found if found in _CHARSETS or found in _NO_CHARSETS else None


def _limit(body: bytes) -> int:
    """Return how large a compressed body may become: by its ratio, and by the maximum size of bodies."""
    return min(MAX_BODY_BYTES, max(_RATIO_MATTERS, len(body) * MAX_RATIO))


def _inflated(body: bytes, compression: str) -> bytes:
    """Decompress a body, up to the maximum size of bodies."""
    limit = _limit(body)
    if compression == "zstd":
        return _unpacked_zstd(body, limit)
    try:
        if compression == "gzip":
            return _gunzipped(body, limit)
        try:
            return _one_stream(zlib.decompressobj(zlib.MAX_WBITS), body, limit)
        except zlib.error:  # deflate in HTTP has a zlib header, which some writers leave out
            return _one_stream(zlib.decompressobj(-zlib.MAX_WBITS), body, limit)
    except zlib.error as error:
        raise InvalidMessage(f"the body is not {compression}: {error}") from error


def _unpacked_zstd(body: bytes, limit: int) -> bytes:
    try:
        zstd = importlib.import_module(ZSTD)
    except ImportError:
        raise InvalidMessage('content encoding "zstd" needs a library: pip install "mqrunner[zstd]"') from None
    options = {zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG}
    try:
        return _one_stream(zstd.ZstdDecompressor(options=options), body, limit)
    except zstd.ZstdError as error:
        raise InvalidMessage(f"the body is not zstd: {error}") from error


def _gunzipped(body: bytes, limit: int) -> bytes:
    """Decompress all members of a gzip body. Zeros at its end are padding."""
    members: list[bytes] = []
    rest, size = memoryview(body), 0
    while rest and not (members and rest[0] == 0 and not bytes(rest).strip(b"\0")):
        if len(members) >= MAX_GZIP_MEMBERS:
            raise InvalidMessage(f"the body has more than {MAX_GZIP_MEMBERS} members of gzip")
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            member, used = _stream(stream, rest, limit - size)
        except InvalidMessage:
            members.clear()  # as in _stream
            raise
        members.append(member)
        size, rest = size + len(member), rest[used:]
    if not members:
        raise InvalidMessage("the body is not gzip: it is empty")
    return b"".join(members)


def _one_stream(stream: Any, body: bytes, limit: int) -> bytes:
    found, used = _stream(stream, memoryview(body), limit)
    if used < len(body):
        raise InvalidMessage(f"the body goes on after the end of its compressed part, at byte {used}")
    return found


def _stream(stream: Any, data: memoryview, limit: int) -> tuple[bytes, int]:
    """Return the data of one compressed stream, and the number of bytes that it occupies.

    The input is fed in pieces, so that data after the stream is not copied for each stream.
    """
    found: list[bytes] = []
    size = at = 0
    while not stream.eof:
        tail = getattr(stream, "unconsumed_tail", b"")  # zstd keeps its own
        piece = tail or data[at : at + _PIECE]
        at += 0 if tail else len(piece)
        found.append(stream.decompress(piece, min(_UNPACKED_AT_ONCE, limit - size + 1)))
        if not piece and not found[-1]:  # no input and no output is left
            raise InvalidMessage("the body ends in the middle of its compressed part")
        size += len(found[-1])
        if size > limit:
            found.clear()  # the error refers to this frame until its message is settled
            text = f"the body has more than {MAX_BODY_BYTES} bytes when it is no longer compressed"
            if limit < MAX_BODY_BYTES:
                text = f"the body is compressed to less than 1/{MAX_RATIO} of its size"
            raise InvalidMessage(text, "too-large")
    return b"".join(found), at - len(stream.unused_data)
