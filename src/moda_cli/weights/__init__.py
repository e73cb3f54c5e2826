"""Files of networks: which there are, fetching, converting and checking them, and loading them.

The networks themselves are beside the code that runs them. Only `download` and `transfer` use the
internet.
"""
