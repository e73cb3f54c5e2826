"""A set of clips to a report: which clip is compared with which, and what all of them say.

In here: `moda eval` from its inputs to its files (session), clips made alike for every metric
(prepared), the cache, the table's columns, bootstrap intervals, tables, charts and the page, how
long clips take to make (timing: RTF), and `moda generate --check` (check). What is measured of one
clip is metrics'; the test lists are data.splits'.
"""
