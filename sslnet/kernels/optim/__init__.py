"""Updates of weights and proximal operators, each in as few passes over memory as possible.

update.py         the update rules
average.py        the moving average of weights
prox.py           proximal operators of group norms
prox_diagonal.py  the same in the metric of a diagonal matrix (adaptive update rules)
prox_bias.py      the same for groups that include a bias
update_prox.py    momentum update and proximal operator fused
update_crossed.py the same for the sum of the norms of rows and of columns
"""
