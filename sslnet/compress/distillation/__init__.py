"""Knowledge distillation: a small net is trained towards the scores of a trained net, its teacher.

teacher.py   puts both nets into one definition, with a loss between their scores

Knows: definitions, layers, nets. Begin with ``teacher.teach``.
"""
