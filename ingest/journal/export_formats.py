"""The formats of `journal export`.

This module must not know where the records come from.

Source: RFC 4180 (CSV), but for line feeds as line ends.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, BinaryIO, ClassVar

from ingest.journal.export_rows import Columns, row_of, text_of
from ingest.journal.selection import text_of as lines_of

#: A row group of a Parquet file ends at so many rows or bytes of JSON: it is kept until then.
GROUP_ROWS = 50_000
GROUP_BYTES = 16 << 20


class FormatMissing(Exception):
    """A format needs what is not installed; the message says how to get it."""


class Sink:
    """Writes records into a file.

    Args:
        file: is written to and not closed.
        columns: of the table.
    """

    #: whether it has columns
    tabular: ClassVar[bool] = False
    #: whether it has to know what they hold
    typed: ClassVar[bool] = False

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        self._file = file
        self._columns = columns

    @classmethod
    def check(cls) -> None:
        """Raise FormatMissing if it cannot be written here."""

    def write(self, partition: int, offsets: Sequence[int], lines: Sequence[bytes]) -> None:
        """Write some records of a partition."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what there is still to write."""


class Ndjson(Sink):
    """The records as the journal has them, without commit marks."""

    def write(self, partition: int, offsets: Sequence[int], lines: Sequence[bytes]) -> None:
        self._file.write(lines_of(list(lines)))


class Csv(Sink):
    """A line with the columns' names, then a line for each event."""

    tabular = True

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        super().__init__(file, columns)
        self._names = columns.names
        self._text = io.StringIO()
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(self._names)

    def write(self, partition: int, offsets: Sequence[int], lines: Sequence[bytes]) -> None:
        for offset, line in zip(offsets, lines, strict=True):
            row = row_of(partition, offset, line)
            self._writer.writerow([text_of(row.get(name)) for name in self._names])
        self._flush()

    def close(self) -> None:
        self._flush()

    def _flush(self) -> None:
        # A lone surrogate is no UTF-8; it is shown as the escape it was sent as.
        self._file.write(self._text.getvalue().encode("utf-8", "backslashreplace"))
        self._text.seek(0)
        self._text.truncate()


class Parquet(Sink):
    """A Parquet file: integers, numbers, booleans, times and texts by what the columns hold."""

    tabular = True
    typed = True

    def __init__(self, file: BinaryIO, columns: Columns) -> None:
        super().__init__(file, columns)
        import pyarrow
        import pyarrow.parquet

        types = {
            "boolean": pyarrow.bool_(),
            "integer": pyarrow.int64(),
            "number": pyarrow.float64(),
            "time": pyarrow.timestamp("ms", tz="UTC"),
            "text": pyarrow.string(),
        }
        self._pyarrow = pyarrow
        self._kinds = {name: columns.kind(name) for name in columns.names}
        self._kinds.update({n: "integer" for n in ("partition", "offset") if n in self._kinds})
        self._schema = pyarrow.schema([(name, types[k]) for name, k in self._kinds.items()])
        self._values: dict[str, list[Any]] = {name: [] for name in self._kinds}
        self._rows = self._bytes = 0
        self._writer = pyarrow.parquet.ParquetWriter(file, self._schema, compression="zstd")

    @classmethod
    def check(cls) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise FormatMissing(
                "parquet needs pyarrow, which is not installed: pip install 'ingest[parquet]'"
            ) from None

    def write(self, partition: int, offsets: Sequence[int], lines: Sequence[bytes]) -> None:
        for offset, line in zip(offsets, lines, strict=True):
            row = row_of(partition, offset, line)
            for name, kind in self._kinds.items():
                self._values[name].append(_value(row.get(name), kind))
            self._rows += 1
            self._bytes += len(line)
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()

    def close(self) -> None:
        if self._rows:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        arrays = [
            self._pyarrow.array(self._values[field.name], field.type) for field in self._schema
        ]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))
        for values in self._values.values():
            values.clear()
        self._rows = self._bytes = 0


def _value(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text":
        return text_of(value).encode("utf-8", "backslashreplace").decode()
    if kind == "time":
        moment = datetime.fromisoformat(value[:-1]).replace(tzinfo=timezone.utc)
        return round(moment.timestamp() * 1000)
    return float(value) if kind == "number" else value


#: Name → how it is written.
FORMATS: dict[str, type[Sink]] = {"ndjson": Ndjson, "csv": Csv, "parquet": Parquet}
