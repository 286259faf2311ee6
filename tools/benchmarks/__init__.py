"""Speed of sslnet compared with PyTorch and onnxruntime: the sections of ``tools/bench``, a module each.

``SECTIONS`` in ``sections.py`` lists them. A section is a module with

    HELP, COLUMNS                 what it measures; how its rows are shown
    add_options(parser)           options of its own
    SECONDS                       how long a row is measured when nobody says otherwise
    measure(options)              yields its rows, one after the other, as soon as they are measured
    closing(rows)                 if it has one: what is to be said at the end

A row is a dict: ``what``, ``part`` and ``threads`` name it (``--compare`` matches rows by them), ``times`` holds
the milliseconds of every contestant: median, quartiles, best, ``ratio`` our time by that of the fastest other one.
"""
