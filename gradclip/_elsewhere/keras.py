"""There is no module ``gradclip.keras``: it is ``gradclip.backends.keras``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
