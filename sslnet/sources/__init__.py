"""Where data comes from: databases, image lists, HDF5 files and the data sets that ship inside the package."""
