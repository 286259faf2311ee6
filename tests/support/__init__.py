"""What the tests of several folders share.

small_nets.py   small nets, built with NetSpec, and their files        compare.py   two nets, the same outputs
model_nets.py   the nets of models/, with zeros in their weights       monitors.py  what ends a solver
lean.py         a run that overwrites all that nobody may read any more

What the tests of one folder share stands in that folder: layers/harness.py, kernels/conv_oracle.py.
"""
