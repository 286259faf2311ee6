"""Data sources: databases, image lists, HDF5 files and the data sets included in the package.

Sources, which return images and labels by index:

    base.py          DataSource, the interface of all of them
    database.py      opens an LMDB or a LevelDB: lmdb.py, lmdb_tree.py, leveldb.py; datum_source.py, datum.py decode the records
    builtin.py       data sets in the package
    arrays.py        images and labels in arrays of NumPy; npy.py reads rows of .npy and .npz files
    split.py         parts of a data set for training and for validation
    images.py, imageset.py, image_folder.py   image files, lists and folders of them;  idx.py, cifar.py: files of MNIST and CIFAR-10

Batches of records, prepared in advance:

    prefetch.py      Prefetcher, and Reader, the interface of what makes batches
    record_reader.py, hdf5.py, window_batches.py   readers of records of a source, rows of HDF5 files, windows of images;
                     shards.py: a database for each of several processes
    order.py         the record at each place of an endless run, and its random numbers
    transformer.py   transform_param: crops, mirrors, means, scales (loops: transform_kernels.py; presets.py, geometry.py,
                     resizing.py, colors.py, normalization.py);  windows.py: one window;  mean.py: mean files

Files:

    stable_file.py   files that must not change during a run
    unpack.py        compressed files, read within bounds
    datasets.py, download.py   ``sslnet data``: downloads data sets and converts them to databases

Knows: prototxt messages, HDF5 files, and the memory of kernels. Does not know: layers, nets. The names to start with:
``base.DataSource``, ``prefetch.Reader``. A new kind of database is one file with a DataSource and one line in
``database``.
"""
