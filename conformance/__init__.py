"""The contract of gradclip as a suite that runs on any array namespace or adapter. See README.md.

``conformance/`` is a top-level folder and is imported as ``gradclip.conformance``, in a clone through the link
``gradclip/conformance``.
"""
