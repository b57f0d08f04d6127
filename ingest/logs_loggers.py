"""Loggers: structlog in front, stdlib logging behind, so that logging.yaml rules both.

This module must not know where lines go or what they look like.
"""

from __future__ import annotations

import logging
from typing import Any, cast

import structlog

#: What happens to an event before stdlib logging takes it; the formatter does the rest.
_PROCESSORS: tuple[Any, ...] = (
    structlog.stdlib.filter_by_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger: `log.warning("journal.torn_tail_cut", bytes=17)`.

    Args:
        name: `__name__` of the module; levels per name are set in logging.yaml.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=_PROCESSORS,
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast(structlog.stdlib.BoundLogger, logger)


def configure_structlog() -> None:
    """Send what legacy code logs through `structlog.get_logger()` the same way."""
    structlog.configure(
        processors=list(_PROCESSORS),
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
