"""Videos to the feature files that training reads: what `moda extract` does.

A list of clips over workers (extraction), one clip to its files (features), its usable stretches,
its emotion, and what is done of a folder (index). What the files hold is said in
data.feature_files, which clips there are in data.annotations; made-up ones are data.synthetic's.
"""
