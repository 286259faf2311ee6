"""Data sources: databases, image lists, HDF5 files and the data sets included in the package.

Sources, images with labels read by index:

    base.py          DataSource: what all of them are
    database.py      LMDB or LevelDB, whichever is there: lmdb.py, lmdb_tree.py, leveldb.py; records are datum.py
    builtin.py       data sets inside the package
    images.py, imageset.py   image files and lists of them;  idx.py, cifar.py: files of MNIST and CIFAR-10

Batches of them, made ahead of their use:

    prefetch.py      Prefetcher, and Reader: what makes any batch on demand
    record_reader.py, hdf5.py, window_batches.py   readers of records of a source, rows of HDF5 files, windows of images
    order.py         which record stands at which place of an endless run, and its random numbers
    transformer.py   transform_param: crops, mirrors, means, scales;  windows.py: one window;  mean.py: mean files

Files:

    stable_file.py   files that must stay the same over a run
    unpack.py        compressed files, read within bounds
    datasets.py, download.py   ``sslnet data``: data sets fetched and made into databases

Knows: prototxt messages, HDF5 files, and the memory of kernels. Does not know: layers, nets. The names to start with:
``base.DataSource``, ``prefetch.Reader``. A new kind of database is one file with a DataSource and one line in
``database``.
"""
