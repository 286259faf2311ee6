"""What people and programs read: tables, human units, JSON. See ``tables`` for the tables, ``units`` for the words in them."""

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
