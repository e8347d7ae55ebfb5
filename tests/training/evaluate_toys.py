"""What the tests of evaluation share: a word-counting student, tables on disk, a run of the command. Import it after the skips."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from pins.relevance import OrdinalHead
from tests.training.label_toys import encode
from training.evaluate import main
from training.measures.scorers import VectorScorer

HEAD = OrdinalHead(8.0, (1.0, 3.0, 5.0, 7.0))


def student(encoder=encode, head=HEAD):
    return VectorScorer("words-v1", encoder, head, {"kind": "toy"})


def write(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, rows in tables.items():
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def run(capsys, *arguments):
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)
