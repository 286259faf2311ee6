"""Packaging entry point; everything it needs stands in pyproject.toml."""

import shutil

from setuptools import setup

shutil.rmtree("build/lib", ignore_errors=True)  # modules that are gone since the last build would be installed again

setup()
