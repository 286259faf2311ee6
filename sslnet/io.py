"""The public name of ``sslnet.pycaffe.io``: images read, resized, cropped, and made into a net's input."""

import sys

from sslnet.pycaffe import io

sys.modules[__name__] = io
