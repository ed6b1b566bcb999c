"""There is no module ``gradclip.lightning``: it is ``gradclip.backends.lightning``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
