"""There is no module ``gradclip.sb3``: it is ``gradclip.backends.sb3``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
