"""Output for people and programs: tables, pictures, JSON. ``tables`` lays out tables, ``units`` formats numbers."""

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
