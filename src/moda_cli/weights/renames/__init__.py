"""The tensors of released checkpoints under our names: a file, and one table, a network.

Reading a table is `weights.state`; what a checkpoint may lack has its default beside the table.
"""
