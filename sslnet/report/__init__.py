"""Output for people and programs: tables, pictures, JSON.

    tables.py, units.py       the layout of tables; numbers with units
    plain_json.py, timing_json.py   results as JSON
    sparsity.py, compaction.py, low_rank.py, certificate.py, check.py, procedure.py, tradeoff.py
                              the tables of train, compact, lowrank, train --certificate, check, compress, path
    dead.py                   the table of prune --dead
    class_metrics.py          the tables of test --metrics
    quantization.py           the tables of quantize
    timing.py, forms.py       the tables of time and of time --forms
    diagram.py, layered.py, drawing.py   what a drawing of a net shows, where its boxes are, the SVG picture
    metrics_file.py           reads ``metrics.jsonl``
    plots.py                  figures by Matplotlib, for training_pictures.py, weight_pictures.py, error_pictures.py

Knows: nets, sparsity, timing, inference, results of compression. Does not know: the command line. The names to start with:
``tables.Table``, ``plain_json.to_plain``. The table of a new result is one file with a function that returns a
``Table``.
"""

from sslnet.report.certificate import certificate_table
from sslnet.report.plain_json import dump_json, to_plain
from sslnet.report.sparsity import coupled_table, sparsity_summary, sparsity_table, tied
from sslnet.report.tables import Table, print_table

__all__ = [
    "Table",
    "certificate_table",
    "coupled_table",
    "dump_json",
    "print_table",
    "sparsity_summary",
    "sparsity_table",
    "tied",
    "to_plain",
]
