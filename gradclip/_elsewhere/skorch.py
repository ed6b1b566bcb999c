"""There is no module ``gradclip.skorch``: it is ``gradclip.backends.skorch``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
