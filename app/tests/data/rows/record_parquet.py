"""Writes the small parquet files of the tests.

    pip install pyarrow==26.0.1
    python tests/data/rows/record_parquet.py
"""

from pathlib import Path

import pyarrow
import pyarrow.parquet

here = Path(__file__).parent
message = pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())])


def write(name, schema, rows, codec):
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(schema))
    pyarrow.parquet.write_table(table, here / name, compression=codec)


write("two.parquet", [("q", pyarrow.string()), ("n", pyarrow.string())],
      [{"q": 'a "b"\nc', "n": "1"}, {"q": "한국어", "n": "2"}], "snappy")
write("nested.parquet", [("id", pyarrow.int64()), ("messages", pyarrow.list_(message))],
      [{"id": 1, "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
       {"id": None, "messages": []}], "zstd")
