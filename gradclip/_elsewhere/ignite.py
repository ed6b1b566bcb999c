"""There is no module ``gradclip.ignite``: it is ``gradclip.backends.ignite``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
