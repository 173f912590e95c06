"""Opens a domain in volatility3: its symbols as a symbol file, its memory as a layer.

- ``isf``: the symbol file, in volatility3's format (ISF). It needs no volatility3.
- ``isf_types``, ``declarations``: types of the kernel, types of its variables.
- ``layer``: the layer of a domain's physical memory; imports volatility3.
- ``runner``: runs volatility3's command line on a domain; imports volatility3.
"""
