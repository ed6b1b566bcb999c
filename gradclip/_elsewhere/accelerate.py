"""There is no module ``gradclip.accelerate``: it is ``gradclip.backends.accelerate``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
