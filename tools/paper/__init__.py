"""The tables of the SSL paper with our figures beside the published ones: what ``tools/table1`` and its siblings run.

    published.py   what the paper says
    recipes.py     how a net of ours is trained for each row: solver, weights to begin with, fine-tuning
    steps.py       a recipe as the commands that a user would type
    runner.py      runs them; what is done already is skipped, what was interrupted goes on
    figures.py     what came out: error, what is left of each layer, how much faster it is
    record.py      figures in a JSON file
    tables.py      the tables
    page.py        a table in docs/paper.md
    command.py     the command line of the tables of trained nets
    alexnet.py     table 4 and figure 1: speedups of AlexNet's layers, which need no data

Ref: Wen, Wu, Wang, Chen, Li 2016, "Learning Structured Sparsity in Deep Neural Networks"
"""
