"""The public name of ``sslnet.pycaffe.coord_map``: where the pixels of one blob lie in another."""

import sys

from sslnet.pycaffe import coord_map

sys.modules[__name__] = coord_map
