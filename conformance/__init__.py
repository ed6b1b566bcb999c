"""The contract of gradclip as a test suite that runs on any array namespace or adapter. See README.md.

The folder ``conformance/`` is imported as ``gradclip.conformance``; in a clone, ``gradclip/conformance`` is a link to
it.
"""
