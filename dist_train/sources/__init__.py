"""Recordings as people have them: folders, tables, published data sets -> samples with labels, folds and groups."""
