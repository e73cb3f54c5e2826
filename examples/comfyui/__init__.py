"""MoDA talking heads in ComfyUI: copy or link this folder into `ComfyUI/custom_nodes/moda`."""

from .nodes import NODES

NODE_CLASS_MAPPINGS = {node.__name__: node for node in NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node.__name__: node.NAME for node in NODES}
