"""What changes weights: updates and proximal operators, each in one pass over memory.

update.py         the update rules
prox.py           proximal operators of groups
prox_diagonal.py  the same in the metric of a diagonal matrix (Adam's)
prox_bias.py      groups that include a bias
update_prox.py    update and proximal operator at once
"""
