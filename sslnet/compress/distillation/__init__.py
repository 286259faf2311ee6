"""A trained net teaches a small one.

teacher.py   both nets in one definition, with a loss between their scores
"""
