"""Published data sets -> folders that `make_shards pack` reads: downloaded, checked, unpacked.

catalogue    which there are, from where, under what licence
published    what the official host says of the files: sizes, checksums
web          a request, repeated where that may help
transfer     one address -> one whole, checked file; goes on where it was cut
splitzip     a zip in parts -> one file to read
unpack       archives -> a folder, nothing outside it
obtain       all of it for one data set
"""
