"""Documents that stay as they are while they are served: tags and compressed forms.

PURE: no sockets, no clock.

Source: RFC 9110 sections 8.8.3 (a strong tag differs by content coding), 13.1.2.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from ingest.encodings import compress


class Representation(NamedTuple):
    """What one answer carries.

    Attributes:
        body: the content, coded.
        coding: how, `""` for not at all.
        tag: the entity tag with its quotes; strong.
    """

    body: bytes
    coding: str
    tag: str


class Document:
    """A document in all its representations; each is made when it is first asked for.

    Args:
        body: the content without a coding.
        content_type: its media type.
    """

    __slots__ = ("_representations", "body", "content_type")

    def __init__(self, body: bytes, content_type: str) -> None:
        self.body = body
        self.content_type = content_type
        digest = hashlib.sha256(body).hexdigest()[:32]
        self._representations = {"": Representation(body, "", f'"{digest}"')}

    def select(self, coding: str) -> Representation:
        """The representation in a coding, or the one without if the coding does not pay."""
        found = self._representations.get(coding)
        if found is None:
            found = plain = self._representations[""]
            coded = compress(self.body, coding)
            if len(coded) < len(self.body):
                found = Representation(coded, coding, f'{plain.tag[:-1]}-{coding}"')
            self._representations[coding] = found
        return found


def is_current(if_none_match: str, tag: str) -> bool:
    """Whether a client that sent If-None-Match holds the representation with this tag.

    The comparison is the weak one (RFC 9110 section 13.1.2).
    """
    if if_none_match.strip(" \t") == "*":
        return True
    return tag in (part.strip(" \t").removeprefix("W/") for part in if_none_match.split(","))
