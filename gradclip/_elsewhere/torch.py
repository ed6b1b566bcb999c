"""There is no module ``gradclip.torch``: it is ``gradclip.backends.torch``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
