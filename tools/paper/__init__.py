"""The tables of the SSL paper with our figures beside the published ones, for ``tools/table1`` and its siblings.

    published.py   the figures of the paper
    recipes.py     the recipe of our net for each row: solver, initial weights, fine-tuning
    steps.py       a recipe as commands that a user would type
    runner.py      runs them; complete steps are skipped, interrupted ones continue
    figures.py     the results: error, remaining parts of each layer, speedups
    record.py      figures in a JSON file
    tables.py      the tables
    page.py        a table in docs/paper.md
    command.py     the command line of the tables of trained nets
    alexnet.py     table 4 and figure 1: speedups of AlexNet's layers, which need no data

Ref: Wen, Wu, Wang, Chen, Li 2016, "Learning Structured Sparsity in Deep Neural Networks"
"""
