"""There is no module ``gradclip.cupy``: it is ``gradclip.backends.cupy``, as the error says."""

from gradclip._elsewhere import refuse_import

refuse_import(__name__)
