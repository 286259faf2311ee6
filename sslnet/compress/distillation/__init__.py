"""Knowledge distillation: a small net is trained towards the scores of a trained net, its teacher.

teacher.py   both nets in one definition, with a loss between their scores

Knows: definitions, layers, nets. Begin with ``teacher.teach``.
"""
