"""Bombs: small bodies that inflate to as much as one likes. Made in no time."""

from __future__ import annotations

import struct
import zlib

_BLOCK = 16 << 20


def _zeros(size: int) -> bytes:
    """Raw deflate of zeros, out of one block that stands on its own, over and over."""
    coder = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = coder.compress(bytes(_BLOCK)) + coder.flush(zlib.Z_FULL_FLUSH)
    return block * (size // _BLOCK) + b"\x03\x00"  # the last block: final, and empty


def gzip_bomb(size: int) -> bytes:
    """A gzip member of `size` zeros (a multiple of 16 MiB); its CRC is wrong."""
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return header + _zeros(size) + struct.pack("<II", 0, size & 0xFFFFFFFF)


def deflate_bomb(size: int) -> bytes:
    """A zlib stream of `size` zeros (a multiple of 16 MiB); its checksum is wrong."""
    return b"\x78\x9c" + _zeros(size) + bytes(4)


def zstd_bomb(size: int) -> bytes:
    """A zstd frame of `size` zeros (a multiple of 128 KiB), in blocks of four bytes.

    RFC 8878 section 3.1.1: a window of 8 MiB, and blocks that repeat one byte.
    """
    header = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([13 << 3])
    repeat = ((128 << 10) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    last = (1).to_bytes(3, "little")  # final, raw, and empty
    return header + repeat * (size // (128 << 10)) + last
