"""Repairs of a pruned net without training or labels."""
